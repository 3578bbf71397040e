// Attention of one layer: decode steps against the bytes of keys and values, prompts and short
// chunks behind a long prefix against their operations. Keys and values of several layers take
// turns, so that the L2 cache holds none.
#include <algorithm>
#include <numeric>
#include <random>

#include "kernels/check.h"
#include "tests/gpu/bench_setup.h"
#include "tests/gpu/measurement.h"

namespace cohort::gpu {
namespace {

constexpr int64_t kBlockSize = 16;

struct AttentionShape {
  int64_t sequences = 1;
  int64_t context = 0;  // positions of each sequence
  int64_t rows = 1;     // of these the last ones, computed
  int64_t heads = 28;
  int64_t kv_heads = 4;
  int64_t head_dim = 128;

  int64_t blocks() const { return (context + kBlockSize - 1) / kBlockSize; }
  double kv_bytes() const {
    return 2.0 * 2 * static_cast<double>(sequences * context * kv_heads * head_dim);
  }
  // Products of queries with keys and of weights with values; a row sees the positions up to its
  // own.
  double operations() const {
    const double seen = static_cast<double>(context) - 0.5 * static_cast<double>(rows - 1);
    return 4.0 * static_cast<double>(sequences * rows * heads * head_dim) * seen;
  }
};

class AttentionRun {
 public:
  AttentionRun(Device& device, const AttentionShape& shape, int64_t copies)
      : device_(device), shape_(shape) {
    const int64_t tokens = shape.sequences * shape.rows;
    for (int64_t head = 0; head < shape.heads; ++head) {
      kv_head_of_query_.push_back(static_cast<int32_t>(head / (shape.heads / shape.kv_heads)));
    }
    queries_ = RandomTensor(device, {tokens, shape.heads * shape.head_dim});
    out_ = Allocate(device, {tokens, shape.heads * shape.head_dim}, DType::kBF16);
    for (int64_t copy = 0; copy < copies; ++copy) {
      const Shape kv{shape.sequences * shape.blocks(), shape.kv_heads, kBlockSize, shape.head_dim};
      keys_.push_back(RandomTensor(device, kv));
      values_.push_back(RandomTensor(device, kv));
    }
    FillBatch(tokens);
  }

  void Enqueue(int64_t call) {
    const size_t copy = static_cast<size_t>(call) % keys_.size();
    const BatchView batch{
        .tokens = shape_.sequences * shape_.rows,
        .sequences = shape_.sequences,
        .positions = positions_.view(),
        .sequence_of_token = sequences_.view(),
        .block_table = blocks_.view(),
        .first_rows = first_rows_.view(),
        .leading_decodes = shape_.rows == 1 ? shape_.sequences : 0,
        .longest_chunk = shape_.rows,
    };
    device_.ops().PagedAttention(queries_.view(), kv_head_of_query_, batch,
                                 {keys_[copy].view(), values_[copy].view()}, 0.088f, out_.view());
  }

 private:
  void FillBatch(int64_t tokens) {
    std::vector<int32_t> positions, sequences, first_rows;
    for (int64_t token = 0; token < tokens; ++token) {
      sequences.push_back(static_cast<int32_t>(token / shape_.rows));
      positions.push_back(static_cast<int32_t>(shape_.context - shape_.rows + token % shape_.rows));
    }
    for (int64_t sequence = 0; sequence <= shape_.sequences; ++sequence) {
      first_rows.push_back(static_cast<int32_t>(sequence * shape_.rows));
    }
    // Blocks as they come out of a pool that has been used for a while: in no order.
    std::vector<int32_t> blocks(static_cast<size_t>(shape_.sequences * shape_.blocks()));
    std::iota(blocks.begin(), blocks.end(), 0);
    std::shuffle(blocks.begin(), blocks.end(), std::minstd_rand(1));
    positions_ = Integers(device_, {tokens}, positions);
    sequences_ = Integers(device_, {tokens}, sequences);
    first_rows_ = Integers(device_, {shape_.sequences + 1}, first_rows);
    blocks_ = Integers(device_, {shape_.sequences, shape_.blocks()}, blocks);
  }

  Device& device_;
  AttentionShape shape_;
  std::vector<int32_t> kv_head_of_query_;
  Tensor queries_, out_, positions_, sequences_, first_rows_, blocks_;
  std::vector<Tensor> keys_, values_;
};

}  // namespace

void MeasureAttention(int argc, char** argv) {
  const Flags flags = ParseFlags(argc, argv,
                                 WithCommonFlags({{"contexts", "1024,4096,16384"},
                                                  {"batches", "1,16,64"},
                                                  {"prompts", "1024,4096,8192,16384"},
                                                  {"chunk", "256"},
                                                  {"prefixes", "8192,32768"},
                                                  {"heads", "28"},
                                                  {"kv-heads", "4"},
                                                  {"head-dim", "128"},
                                                  {"calls", "56"},
                                                  {"memory", "4294967296"}}));
  const std::unique_ptr<Device> device = OpenDevice(flags);
  AttentionShape shape;
  shape.heads = Number(flags, "heads");
  shape.kv_heads = Number(flags, "kv-heads");
  shape.head_dim = Number(flags, "head-dim");
  const int64_t calls = Number(flags, "calls"), rounds = Number(flags, "rounds");
  for (const int64_t context : Numbers(flags, "contexts")) {
    for (const int64_t batch : Numbers(flags, "batches")) {
      shape.sequences = batch;
      shape.context = context;
      shape.rows = 1;
      const double copies = static_cast<double>(Number(flags, "memory")) / shape.kv_bytes();
      AttentionRun run(*device, shape, std::clamp<int64_t>(static_cast<int64_t>(copies), 1, 28));
      Print({absl::StrCat("attention.decode.b", batch, ".c", context),
             SecondsPerCall(*device, calls, rounds, [&](int64_t i) { run.Enqueue(i); }),
             shape.kv_bytes(), shape.operations()});
    }
  }
  const auto measure_prompt = [&](const std::string& row, int64_t prompt, int64_t rows) {
    shape.sequences = 1;
    shape.context = prompt;
    shape.rows = rows;
    AttentionRun run(*device, shape, 2);
    Print({row,
           SecondsPerCall(*device, std::max<int64_t>(calls / 8, 1), rounds,
                          [&](int64_t i) { run.Enqueue(i); }),
           0, shape.operations()});
  };
  for (const int64_t prompt : Numbers(flags, "prompts")) {
    measure_prompt(absl::StrCat("attention.prefill.", prompt), prompt, prompt);
  }
  const int64_t chunk = Number(flags, "chunk");
  for (const int64_t prefix : Numbers(flags, "prefixes")) {
    measure_prompt(absl::StrCat("attention.chunk.", chunk, ".behind.", prefix), prefix + chunk,
                   chunk);
  }
}

}  // namespace cohort::gpu
