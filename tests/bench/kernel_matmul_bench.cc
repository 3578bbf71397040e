// Speed of MatMul alone on the shapes of Qwen2-0.5B: weights come from memory, as in a step. Prints
// for every number of tokens the weights read per second, also as a part of the read bandwidth
// measured in turn with it, and the arithmetic done.
//
//   kernel_matmul_bench [threads=1] [instruction set=best] [rounds=5] [cpu|wall]
#include <algorithm>
#include <cstdio>
#include <cstring>
#include <string>
#include <vector>

#include "absl/strings/numbers.h"
#include "kernels/check.h"
#include "kernels/ops.h"
#include "tests/bench/flags.h"
#include "tests/bench/kernel_bandwidth.h"

namespace cohort {
namespace {

struct Shape2 {
  int64_t features = 0;
  int64_t columns = 0;
};

// As many matrices of one shape as no cache holds.
class Weights {
 public:
  Weights(Device& device, const Shape2& shape) {
    constexpr int64_t kBytes = int64_t{192} << 20;
    const int64_t count = std::max<int64_t>(1, kBytes / (2 * shape.features * shape.columns));
    for (int64_t i = 0; i < count; ++i) {
      auto tensor = device.Allocate(Shape{shape.features, shape.columns}, DType::kBF16);
      CHECK_OK(tensor.status());
      std::memset(tensor->view().data, 0x3c, static_cast<size_t>(tensor->bytes()));
      tensors_.push_back(*std::move(tensor));
    }
  }
  const Tensor& Next() { return tensors_[next_++ % tensors_.size()]; }
  size_t count() const { return tensors_.size(); }

 private:
  std::vector<Tensor> tensors_;
  size_t next_ = 0;
};

Tensor Ones(Device& device, Shape shape, DType dtype) {
  auto tensor = device.Allocate(shape, dtype);
  CHECK_OK(tensor.status());
  std::memset(tensor->view().data, 0x3c, static_cast<size_t>(tensor->bytes()));
  return *std::move(tensor);
}

void Measure(Device& device, const Shape2& shape, int64_t tokens, int rounds, Clock clock,
             ReadBandwidth& memory) {
  Weights weights(device, shape);
  const Tensor x = Ones(device, Shape{tokens, shape.columns}, DType::kBF16);
  const Tensor out = Ones(device, Shape{tokens, shape.features}, DType::kF32);
  std::vector<double> seconds, fractions;
  const double bytes = static_cast<double>(2 * shape.features * shape.columns);
  for (int round = 0; round < rounds; ++round) {
    const double bandwidth = memory.Measure();
    const size_t calls = std::max<size_t>(1, tokens > 64 ? weights.count() / 8 : weights.count());
    const double start = clock();
    for (size_t call = 0; call < calls; ++call) {
      device.ops().MatMul(x.view(), Weight{weights.Next().view()}, nullptr, out.view());
    }
    seconds.push_back((clock() - start) / static_cast<double>(calls));
    fractions.push_back(bytes / seconds.back() / bandwidth);
  }
  const double median = Median(seconds);
  std::printf("%6ld x %4ld  tokens %3ld  %6.1f GB/s  %.2f of the read bandwidth  %6.1f GFLOP/s\n",
              shape.features, shape.columns, tokens, bytes / median / 1e9, Median(fractions),
              bytes * static_cast<double>(tokens) / median / 1e9);
  std::fflush(stdout);
}

void Main(int argc, char** argv) {
  int threads = 1;
  int rounds = 5;
  CHECK(argc < 2 || absl::SimpleAtoi(argv[1], &threads)) << argv[1];
  CHECK(argc < 4 || absl::SimpleAtoi(argv[3], &rounds)) << argv[3];
  const Clock clock = argc > 4 && std::string(argv[4]) == "cpu" ? CpuSeconds : WallSeconds;
  DeviceOptions options;
  options.threads = threads;
  options.instruction_set = argc > 2 ? argv[2] : "";
  auto device = Device::Create(options);
  CHECK_OK(device.status());
  std::printf("%s\n", (*device)->description().c_str());
  ReadBandwidth memory(threads, clock);
  for (const Shape2& shape : {Shape2{9728, 896}, Shape2{896, 4864}}) {
    for (const int64_t tokens : {1, 2, 4, 8, 16, 24, 32, 64, 128, 512}) {
      Measure(**device, shape, tokens, rounds, clock, memory);
    }
  }
}

}  // namespace
}  // namespace cohort

int main(int argc, char** argv) { cohort::Main(argc, argv); }
