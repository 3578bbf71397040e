// Attention of one decode step: plain attention and dual chunk attention in turn over the same keys
// and values, in this process. Prints microseconds of each and their ratio per context length.
//
//   kernel_attention_bench [--dtype=bf16] [--threads=2] [--chunk-length=2048] [--chunks=1,2,4,8]
//                          [--heads=28] [--kv-heads=4] [--head-dim=128] [--batch=1] [--rounds=31]
//                          [--clock=wall]
//
// Contexts are whole chunks long; chunk_size is a quarter more than their length. --clock=cpu
// measures the CPU time of the process instead, for machines that do other things too.
#include <algorithm>
#include <cstdio>
#include <cstring>
#include <string>
#include <vector>

#include "kernels/bfloat16.h"
#include "kernels/check.h"
#include "kernels/device.h"
#include "kernels/ops.h"
#include "tests/bench/flags.h"
#include "tests/bench/kernel_bandwidth.h"

namespace cohort {
namespace {

constexpr int64_t kBlockSize = 16;

// `batch` sequences of `length` positions, the last of which is computed.
class Decode {
 public:
  Decode(Device& device, const Flags& flags, int64_t length)
      : device_(device),
        act_(flags.at("dtype") == "fp32" ? DType::kF32 : DType::kBF16),
        clock_(flags.at("clock") == "cpu" ? CpuSeconds : WallSeconds),
        chunk_length_(Number(flags, "chunk-length")),
        batch_(Number(flags, "batch")),
        head_dim_(Number(flags, "head-dim")) {
    const int64_t heads = Number(flags, "heads"), kv_heads = Number(flags, "kv-heads");
    for (int64_t head = 0; head < heads; ++head) {
      kv_head_of_query_.push_back(static_cast<int32_t>(head / (heads / kv_heads)));
    }
    const int64_t blocks = (length + kBlockSize - 1) / kBlockSize;
    queries_ = Fill({batch_, heads * head_dim_});
    out_ = Fill({batch_, heads * head_dim_});
    keys_ = Fill({batch_ * blocks, kv_heads, kBlockSize, head_dim_});
    values_ = Fill({batch_ * blocks, kv_heads, kBlockSize, head_dim_});
    const int64_t rows = std::min(chunk_size(), 2 * chunk_length_ - 1) + 1;
    table_ = Fill({rows, head_dim_ / 2}, DType::kF32);
    factors_ = Fill({batch_}, DType::kF32);
    positions_ = Count({batch_}, length - 1, 0);
    sequences_ = Count({batch_}, 0, 1);
    first_rows_ = Count({batch_ + 1}, 0, 1);
    blocks_ = Count({batch_, blocks}, 0, 1);
  }

  double Run(bool dual_chunks) {
    const BatchView batch{.tokens = batch_,
                          .sequences = batch_,
                          .positions = positions_.view(),
                          .sequence_of_token = sequences_.view(),
                          .block_table = blocks_.view(),
                          .rope_rows = positions_.view(),
                          .logit_factors = factors_.view(),
                          .first_rows = first_rows_.view(),
                          .leading_decodes = batch_,
                          .longest_chunk = 1};
    const KvView kv{keys_.view(), values_.view()};
    const double start = clock_();
    if (dual_chunks) {
      const RopeTable rope{table_.view(), table_.view(), true};
      device_.ops().DualChunkAttention(queries_.view(), kv_head_of_query_,
                                       {chunk_size(), chunk_length_, rope}, batch, kv, 0.1f,
                                       out_.view());
    } else {
      device_.ops().PagedAttention(queries_.view(), kv_head_of_query_, batch, kv, 0.1f,
                                   out_.view());
    }
    CHECK_OK(device_.Synchronize());
    return clock_() - start;
  }

 private:
  int64_t chunk_size() const { return chunk_length_ + chunk_length_ / 4; }
  Tensor Fill(Shape shape) { return Fill(shape, act_); }
  // Small numbers that differ.
  Tensor Fill(Shape shape, DType dtype) {
    auto tensor = device_.Allocate(shape, dtype);
    CHECK_OK(tensor.status());
    for (int64_t i = 0; i < shape.elements(); ++i) {
      const float value = static_cast<float>(i * 37 % 101) / 101 + 0.1f;
      if (dtype == DType::kF32) {
        tensor->view().As<float>()[i] = value;
      } else {
        tensor->view().As<BFloat16>()[i] = FromFloat<BFloat16>(value);
      }
    }
    return *std::move(tensor);
  }
  Tensor Count(Shape shape, int64_t first, int64_t step) {
    auto tensor = device_.Allocate(shape, DType::kI32);
    CHECK_OK(tensor.status());
    for (int64_t i = 0; i < shape.elements(); ++i) {
      tensor->view().As<int32_t>()[i] = static_cast<int32_t>(first + i * step);
    }
    return *std::move(tensor);
  }

  Device& device_;
  DType act_;
  Clock clock_;
  int64_t chunk_length_, batch_, head_dim_;
  std::vector<int32_t> kv_head_of_query_;
  Tensor queries_, out_, keys_, values_, table_, factors_, positions_, sequences_, blocks_,
      first_rows_;
};

Flags Defaults() {
  return {{"dtype", "bf16"}, {"threads", "2"},  {"chunk-length", "2048"}, {"chunks", "1,2,4,8"},
          {"heads", "28"},   {"kv-heads", "4"}, {"head-dim", "128"},      {"batch", "1"},
          {"rounds", "31"},  {"clock", "wall"}};
}

void Main(const Flags& flags) {
  DeviceOptions options;
  options.threads = static_cast<int>(Number(flags, "threads"));
  auto device = Device::Create(options);
  CHECK_OK(device.status());
  std::printf("%s, %s, chunks of %s positions\n", (*device)->description().c_str(),
              flags.at("dtype").c_str(), flags.at("chunk-length").c_str());
  for (const int64_t chunks : Numbers(flags, "chunks")) {
    CHECK_GT(chunks, 0);
    const int64_t length = chunks * Number(flags, "chunk-length");
    Decode decode(**device, flags, length);
    std::vector<double> plain, dual, ratios;
    for (int64_t round = -1; round < Number(flags, "rounds"); ++round) {
      const double one = decode.Run(false), other = decode.Run(true);
      if (round >= 0) {  // the first one warms up
        plain.push_back(one);
        dual.push_back(other);
        ratios.push_back(other / one);
      }
    }
    std::printf("%2ld chunks, %7ld positions: plain %9.1f us, dual chunk %9.1f us, ratio %.3f\n",
                static_cast<long>(chunks), static_cast<long>(length), 1e6 * Median(plain),
                1e6 * Median(dual), Median(ratios));
    std::fflush(stdout);
  }
}

}  // namespace
}  // namespace cohort

int main(int argc, char** argv) {
  cohort::Main(cohort::ParseFlags(argc, argv, cohort::Defaults()));
}
