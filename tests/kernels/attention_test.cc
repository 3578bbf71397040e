#include <algorithm>
#include <cmath>

#include "tests/kernels/attention_step.h"

namespace cohort {
namespace {

TEST(PagedAttention, MatchesTheReference) {
  OnEachDevice([](Device& device) {
    for (const uint64_t seed : {1, 2}) {
      SCOPED_TRACE(seed);
      std::mt19937_64 random(seed);
      for (const int64_t head_dim : {8, 10, 16, 24, 64, 80, 128}) {
        for (const DType dtype : {DType::kF32, DType::kBF16}) {
          AttentionDims dims;
          dims.dtype = dtype;
          dims.head_dim = head_dim;
          dims.block_size = std::uniform_int_distribution<int64_t>(1, 9)(random);
          // A prefill, a decode, a chunk in the middle, a sequence without tokens.
          const AttentionStep step = MakeStep(random, dims, {{0, 7}, {70, 71}, {5, 9}, {3, 3}});
          ExpectMatchesReference(device, step, head_dim);
        }
      }
    }
  });
}

TEST(PagedAttention, NoTokensAreNoWork) {
  OnEachDevice([](Device& device) {
    std::mt19937_64 random(3);
    const AttentionStep step = MakeStep(random, AttentionDims(), {});
    EXPECT_EQ(Attend(device, step).values.size(), 0u);
  });
}

TEST(PagedAttention, FollowsTheMapOfHeads) {
  OnEachDevice([](Device& device) {
    std::mt19937_64 random(4);
    AttentionDims dims;
    dims.kv_heads = 3;
    dims.kv_head_of_query = {2, 0, 0, 1, 2};
    ExpectMatchesReference(device, MakeStep(random, dims, {{0, 5}, {140, 142}}), 0);
  });
}

// Key biases of norm 900 make logits of several hundred that all but cancel: softmax sees the
// small differences only if the logits stay in fp32.
TEST(PagedAttention, HugeKeysKeepTheirLogitsInFloat) {
  OnEachDevice([](Device& device) {
    std::mt19937_64 random(5);
    AttentionDims dims;
    dims.head_dim = 64;
    for (const DType dtype : {DType::kF32, DType::kBF16}) {
      dims.dtype = dtype;
      const AttentionStep step = MakeStep(random, dims, {{0, 6}, {90, 91}}, 900.0 / 8);
      ExpectMatchesReference(device, step, 0);
    }
  });
}

TEST(PagedAttention, ResultsDoNotDependOnTheBatch) {
  OnEachDevice([](Device& device) {
    std::mt19937_64 random(6);
    for (const DType dtype : {DType::kF32, DType::kBF16}) {
      AttentionDims dims;
      dims.dtype = dtype;
      dims.head_dim = 20;
      const AttentionStep whole = MakeStep(random, dims, {{0, 6}, {130, 134}, {66, 67}});
      const HostTensor expected = Attend(device, whole);
      for (int64_t begin = 0; begin < 11; begin += 3) {
        const int64_t count = std::min<int64_t>(3, 11 - begin);
        ExpectSame(Attend(device, StepOfRows(whole, begin, count)), RowsOf(expected, begin, count));
      }
    }
  });
}

// Tiles of positions and of rows lie differently in every chunk.
TEST(PagedAttention, ResultsDoNotDependOnTheChunks) {
  OnEachDevice([](Device& device) {
    std::mt19937_64 random(7);
    for (const DType dtype : {DType::kF32, DType::kBF16}) {
      AttentionDims dims;
      dims.dtype = dtype;
      dims.head_dim = 16;
      dims.kv_head_of_query = {0, 0, 0, 0, 0, 1, 1};
      constexpr int64_t kTokens = 150;
      const AttentionStep whole = MakeStep(random, dims, {{0, kTokens}});
      const HostTensor expected = Attend(device, whole);
      for (const int64_t chunk : {1, 13, 64}) {
        for (int64_t begin = 0; begin < kTokens; begin += chunk) {
          const int64_t count = std::min(chunk, kTokens - begin);
          ExpectSame(Attend(device, StepOfRows(whole, begin, count)),
                     RowsOf(expected, begin, count));
        }
      }
    }
  });
}

HostTensor RopeTableOf(int64_t positions, int64_t half, DType dtype, double (*function)(double)) {
  HostTensor table = Filled(DType::kF32, Shape{positions, half}, 0);
  for (int64_t position = 0; position < positions; ++position) {
    for (int64_t i = 0; i < half; ++i) {
      const double angle = static_cast<double>(position) *
                           std::pow(10000.0, -static_cast<double>(i) / static_cast<double>(half));
      table.At(position, i) = RoundTo(function(angle), dtype);
    }
  }
  return table;
}

double Sine(double angle) { return std::sin(angle); }
double Cosine(double angle) { return std::cos(angle); }

void ExpectRopeMatches(Device& device, std::mt19937_64& random, const AttentionDims& dims,
                       const std::vector<Chunk>& chunks) {
  int64_t blocks = 0;
  const reference::Batch batch = MakeBatch(random, dims, chunks, &blocks);
  const Shape cache{blocks, dims.kv_heads, dims.block_size, dims.head_dim};
  reference::Kv kv{Poison(dims.dtype, cache), Poison(dims.dtype, cache)};
  const HostTensor cosine = RopeTableOf(50, dims.head_dim / 2, dims.dtype, Cosine);
  const HostTensor sine = RopeTableOf(50, dims.head_dim / 2, dims.dtype, Sine);
  const int64_t heads = dims.query_heads() + 2 * dims.kv_heads;
  HostTensor qkv =
      RandomNormal(random, dims.dtype, Shape{batch.positions.rows(), heads * dims.head_dim});

  const DeviceStep step(device, batch, kv);
  const DeviceTensor rotated(device, qkv, dims.head_dim);
  const DeviceTensor cosines(device, cosine);
  const DeviceTensor sines(device, sine);
  device.ops().RopeAndStoreKv(rotated.view(), dims.query_heads(), {cosines.view(), sines.view()},
                              step.batch(), step.kv());
  reference::RopeAndStoreKv(&qkv, dims.query_heads(), cosine, sine, batch, &kv);

  const HostTensor actual = rotated.Read();
  const int64_t query_columns = dims.query_heads() * dims.head_dim;
  // In bf16 the products are exact in fp32, so nothing is left to chance; in fp32 two products and
  // a sum of numbers below 6 are rounded.
  const double bound = dims.dtype == DType::kBF16 ? 0 : 3 * 12 * kFloatUnit;
  for (int64_t token = 0; token < qkv.rows(); ++token) {
    for (int64_t k = 0; k < query_columns; ++k) {
      ASSERT_LE(std::abs(actual.At(token, k) - qkv.At(token, k)), bound);
    }
  }
  const HostTensor keys = step.keys.Read();
  for (size_t i = 0; i < keys.values.size(); ++i) {
    ASSERT_EQ(std::isnan(keys.values[i]), std::isnan(kv.keys.values[i])) << "slot element " << i;
    ASSERT_FALSE(std::abs(keys.values[i] - kv.keys.values[i]) > bound);
  }
  ExpectSame(step.values.Read(), kv.values);
}

TEST(RopeAndStoreKv, MatchesTheReferenceAndWritesNoOtherSlot) {
  OnEachDevice([](Device& device) {
    for (const uint64_t seed : {1, 2}) {
      SCOPED_TRACE(seed);
      std::mt19937_64 random(seed);
      for (const int64_t head_dim : {2, 8, 18, 64}) {
        for (const DType dtype : {DType::kF32, DType::kBF16}) {
          AttentionDims dims;
          dims.dtype = dtype;
          dims.head_dim = head_dim;
          dims.block_size = 5;
          ExpectRopeMatches(device, random, dims, {{0, 12}, {49, 50}, {3, 6}});
          ExpectRopeMatches(device, random, dims, {});
        }
      }
    }
  });
}

}  // namespace
}  // namespace cohort
