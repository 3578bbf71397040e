// Attention in the shapes that CUDA computes on tensor cores: bf16, heads of 64 and 128, blocks of
// multiples of 16. The same bodies hold every other device to the same formulas.
#include <algorithm>
#include <cmath>

#include "tests/kernels/attention_step.h"

namespace cohort {
namespace {

AttentionDims DimsOf(int64_t head_dim, int64_t block_size, std::vector<int32_t> map) {
  AttentionDims dims;
  dims.dtype = DType::kBF16;
  dims.head_dim = head_dim;
  dims.block_size = block_size;
  dims.kv_head_of_query = std::move(map);
  dims.kv_heads = 1 + *std::max_element(dims.kv_head_of_query.begin(), dims.kv_head_of_query.end());
  return dims;
}

// `heads` query heads of one KV head, and one of another.
std::vector<int32_t> Heads(int64_t heads) {
  std::vector<int32_t> map(static_cast<size_t>(heads), 0);
  map.push_back(1);
  return map;
}

void ExpectOnEachDevice(const std::vector<CheckedStep>& steps) {
  OnEachDevice([&](Device& device) {
    for (size_t i = 0; i < steps.size(); ++i) {
      SCOPED_TRACE(i);
      steps[i].ExpectOn(device, 8 * static_cast<int64_t>(i % 2));
    }
  });
}

// Decodes of lengths around slabs, tiles and ranges, a sequence without rows, chunks that begin at
// zero and in the middle, and one row behind them.
const std::vector<Chunk> kMixed = {{0, 1},     {15, 16}, {16, 17}, {130, 131}, {255, 256},
                                   {256, 257}, {9, 9},   {0, 21},  {100, 113}, {64, 65}};

TEST(PagedAttentionBf16, MatchesTheReferenceForAnyNumberOfHeads) {
  std::mt19937_64 random(1);
  std::vector<CheckedStep> steps;
  for (const int64_t heads : {1, 2, 3, 4, 5, 6, 7, 8, 12}) {
    const AttentionDims dims = DimsOf(heads % 2 == 0 ? 64 : 128, 16 << heads % 3, Heads(heads));
    steps.emplace_back(MakeStep(random, dims, kMixed));
  }
  ExpectOnEachDevice(steps);
}

TEST(PagedAttentionBf16, FollowsTheMapOfHeads) {
  std::mt19937_64 random(2);
  std::vector<CheckedStep> steps;
  for (const int64_t head_dim : {64, 128}) {
    const AttentionDims dims = DimsOf(head_dim, 48, {2, 0, 0, 3, 2, 2});
    steps.emplace_back(MakeStep(random, dims, {{80, 81}, {20, 24}, {0, 40}}));
  }
  ExpectOnEachDevice(steps);
}

// One long sequence is cut into many ranges.
TEST(PagedAttentionBf16, LongSequencesAreMerged) {
  std::mt19937_64 random(3);
  std::vector<CheckedStep> steps;
  for (const int64_t head_dim : {64, 128}) {
    for (const int64_t length : {129, 700, 2000}) {
      steps.emplace_back(
          MakeStep(random, DimsOf(head_dim, 16, {0, 0, 0, 1}), {{length - 1, length}}));
    }
  }
  ExpectOnEachDevice(steps);
}

// Chunks of rows beyond one block's, over keys beyond one tile's.
TEST(PagedAttentionBf16, LongChunksAreTiled) {
  std::mt19937_64 random(4);
  std::vector<CheckedStep> steps;
  for (const int64_t head_dim : {64, 128}) {
    const AttentionDims dims = DimsOf(head_dim, 32, {0, 0, 0, 0, 0, 0, 0});
    steps.emplace_back(MakeStep(random, dims, {{0, 100}, {90, 110}}));
  }
  ExpectOnEachDevice(steps);
}

// More tiles of rows than multiprocessors, each over several tiles of keys; those of the last round
// have enough keys to be cut into ranges.
TEST(PagedAttentionBf16, BlocksTakeSeveralTiles) {
  std::mt19937_64 random(10);
  std::vector<Chunk> chunks;
  for (int64_t i = 0; i < 8; ++i) {
    chunks.push_back({380 + i, 383 + 2 * i});
  }
  chunks.push_back({1020, 1030});
  std::vector<CheckedStep> steps;
  for (const int64_t head_dim : {64, 128}) {
    steps.emplace_back(MakeStep(random, DimsOf(head_dim, 64, {0, 0, 1}), chunks));
  }
  ExpectOnEachDevice(steps);
}

// Few rows behind many keys: these are cut into ranges, the last of which some rows do not see.
TEST(PagedAttentionBf16, ShortChunksBehindLongPrefixesAreMerged) {
  std::mt19937_64 random(11);
  std::vector<CheckedStep> steps;
  for (const int64_t head_dim : {64, 128}) {
    steps.emplace_back(
        MakeStep(random, DimsOf(head_dim, 32, {0, 0, 0, 1}), {{40, 60}, {1018, 1030}}));
    steps.push_back(steps.back());  // the counters of the ranges are again what it found
  }
  ExpectOnEachDevice(steps);
}

// Many short sequences give the tiles of a step to more of them than a warp has lanes.
TEST(PagedAttentionBf16, ManySequences) {
  std::mt19937_64 random(5);
  std::vector<Chunk> chunks;
  for (int64_t i = 0; i < 75; ++i) {
    chunks.push_back({i % 7, i % 7 + (i < 40 ? 1 : i % 4)});
  }
  ExpectOnEachDevice({CheckedStep(MakeStep(random, DimsOf(64, 16, {0, 1}), chunks))});
}

// Key biases of norm 900 make logits of several hundred that all but cancel.
TEST(PagedAttentionBf16, HugeKeysKeepTheirLogitsInFloat) {
  std::mt19937_64 random(6);
  std::vector<CheckedStep> steps;
  for (const int64_t head_dim : {64, 128}) {
    const AttentionDims dims = DimsOf(head_dim, 16, {0, 0, 0, 0});
    const double offset = 900 / std::sqrt(static_cast<double>(head_dim));
    steps.emplace_back(MakeStep(random, dims, {{90, 91}, {0, 6}, {150, 160}}, offset));
  }
  ExpectOnEachDevice(steps);
}

// These rows of a step.
AttentionStep Narrowed(const AttentionStep& step, const std::vector<int64_t>& rows) {
  AttentionStep narrowed = StepOfRows(step, 0, static_cast<int64_t>(rows.size()));
  for (size_t i = 0; i < rows.size(); ++i) {
    narrowed.batch.positions.values[i] = step.batch.positions.At(rows[i]);
    narrowed.batch.sequence_of_token.values[i] = step.batch.sequence_of_token.At(rows[i]);
    for (int64_t k = 0; k < step.queries.columns(); ++k) {
      narrowed.queries.At(static_cast<int64_t>(i), k) = step.queries.At(rows[i], k);
    }
  }
  return narrowed;
}

// The last layer computes only rows that somebody wants.
TEST(PagedAttentionBf16, PositionsMayHaveGaps) {
  std::mt19937_64 random(7);
  std::vector<CheckedStep> steps;
  for (const int64_t head_dim : {64, 128}) {
    const AttentionStep step =
        MakeStep(random, DimsOf(head_dim, 16, {0, 0, 0}), {{0, 140}, {3, 9}});
    steps.emplace_back(Narrowed(step, {3, 17, 40, 41, 90, 139, 140, 145}));
  }
  ExpectOnEachDevice(steps);
}

// A chunk's row depends on the row alone, however the prompt is cut into chunks of several rows.
TEST(PagedAttentionBf16, ChunksDoNotChangeResults) {
  OnEachDevice([](Device& device) {
    std::mt19937_64 random(8);
    for (const int64_t head_dim : {64, 128}) {
      const AttentionStep whole =
          MakeStep(random, DimsOf(head_dim, 16, {0, 0, 0, 0, 0, 0}), {{0, 150}});
      const HostTensor expected = Attend(device, whole);
      for (const int64_t chunk : {2, 25, 75}) {
        for (int64_t begin = 0; begin < 150; begin += chunk * (chunk == 2 ? 9 : 1)) {
          const int64_t count = std::min(chunk, 150 - begin);
          ExpectSame(Attend(device, StepOfRows(whole, begin, count)),
                     RowsOf(expected, begin, count));
        }
      }
    }
  });
}

// A decode's row depends on the row and on how many sequences and heads are decoded with it.
TEST(PagedAttentionBf16, OtherSequencesDoNotChangeResults) {
  OnEachDevice([](Device& device) {
    std::mt19937_64 random(9);
    for (const int64_t head_dim : {64, 128}) {
      AttentionStep step = MakeStep(random, DimsOf(head_dim, 16, {0, 0, 1, 1, 1}),
                                    {{400, 401}, {33, 34}, {700, 701}, {20, 30}});
      const HostTensor expected = Attend(device, step);
      const int64_t columns = step.queries.columns();
      for (int64_t k = 0; k < columns; ++k) {  // other queries, and another length
        step.queries.At(1, k) = RoundTo(step.queries.At(2, k) / 2, DType::kBF16);
      }
      step.batch.positions.values[1] = 12;
      // The counters of the ranges are again what the first call found.
      const HostTensor actual = Attend(device, step);
      ExpectSame(RowsOf(actual, 0, 1), RowsOf(expected, 0, 1));
      ExpectSame(RowsOf(actual, 2, 11), RowsOf(expected, 2, 11));
    }
  });
}

// Weights of other shapes than the rows' too: none has to be multiplied with what is attended to.
TEST(PagedAttentionBf16, PrefetchedWeightsChangeNothing) {
  OnEachDevice([](Device& device) {
    std::mt19937_64 random(10);
    const DeviceTensor large(device, RandomNormal(random, DType::kBF16, Shape{1040, 520}), 8);
    const DeviceTensor small(device, RandomNormal(random, DType::kBF16, Shape{7, 8}));
    const DeviceTensor odd(device, RandomNormal(random, DType::kBF16, Shape{10, 12}));
    const DeviceTensor plain(device, RandomNormal(random, DType::kF32, Shape{16, 16}));
    const TensorView none;
    for (const int64_t head_dim : {64, 128}) {
      const AttentionStep step =
          MakeStep(random, DimsOf(head_dim, 16, {0, 0, 1, 1, 1}), {{300, 301}, {33, 34}});
      const HostTensor expected = Attend(device, step);
      for (const TensorView& product : {large.view(), small.view(), odd.view(), none}) {
        for (const TensorView& gate_up : {large.view(), odd.view(), plain.view(), none}) {
          device.ops().PrefetchWeights({.product = product, .gate_up = gate_up});
          ExpectSame(Attend(device, step), expected);
        }
      }
    }
  });
}

}  // namespace
}  // namespace cohort
