#include <algorithm>
#include <cmath>
#include <numeric>

#include "tests/kernels/devices.h"
#include "tests/kernels/reference_ops.h"

namespace cohort {
namespace {

struct Dims {
  DType dtype = DType::kF32;
  int64_t head_dim = 8;
  int64_t block_size = 4;
  std::vector<int32_t> kv_head_of_query = {0, 0, 1};
  int64_t kv_heads = 2;

  int64_t query_heads() const { return static_cast<int64_t>(kv_head_of_query.size()); }
};

// Tokens of one step: of each sequence, positions [begin, end).
struct Chunk {
  int64_t begin = 0;
  int64_t end = 0;
};

// Everything one step of attention reads. Slots that no sequence holds are poison, and so are the
// entries of the block table behind a sequence's last block.
struct Step {
  Dims dims;
  HostTensor queries;
  reference::Batch batch;
  reference::Kv kv;
  double scale = 1;
};

reference::Batch MakeBatch(std::mt19937_64& random, const Dims& dims,
                           const std::vector<Chunk>& chunks, int64_t* blocks) {
  std::vector<int32_t> positions;
  std::vector<int32_t> sequences;
  int64_t longest = 1;
  int64_t used = 0;
  for (size_t i = 0; i < chunks.size(); ++i) {
    for (int64_t position = chunks[i].begin; position < chunks[i].end; ++position) {
      positions.push_back(static_cast<int32_t>(position));
      sequences.push_back(static_cast<int32_t>(i));
    }
    const int64_t length = (chunks[i].end + dims.block_size - 1) / dims.block_size;
    longest = std::max(longest, length);
    used += length;
  }
  *blocks = used + 2;
  std::vector<int32_t> ids(static_cast<size_t>(*blocks));
  std::iota(ids.begin(), ids.end(), 0);
  std::shuffle(ids.begin(), ids.end(), random);
  HostTensor table = Poison(DType::kI32, Shape{static_cast<int64_t>(chunks.size()), longest + 1});
  for (size_t i = 0; i < chunks.size(); ++i) {
    for (int64_t block = 0; block * dims.block_size < chunks[i].end; ++block) {
      table.At(static_cast<int64_t>(i), block) = ids[static_cast<size_t>(--used)];
    }
  }
  return {Indices(positions), Indices(sequences), table};
}

// Writes rows [blocks, kv_heads, block_size] of positions 0..end-1 of each sequence.
void FillSlots(std::mt19937_64& random, const std::vector<Chunk>& chunks, Step* step,
               double key_offset) {
  const Dims& dims = step->dims;
  std::normal_distribution<double> normal;
  for (size_t sequence = 0; sequence < chunks.size(); ++sequence) {
    for (int64_t position = 0; position < chunks[sequence].end; ++position) {
      const int64_t block = static_cast<int64_t>(
          step->batch.block_table.At(static_cast<int64_t>(sequence), position / dims.block_size));
      for (int64_t head = 0; head < dims.kv_heads; ++head) {
        const int64_t slot =
            (block * dims.kv_heads + head) * dims.block_size + position % dims.block_size;
        for (int64_t k = 0; k < dims.head_dim; ++k) {
          const size_t index = static_cast<size_t>(slot * dims.head_dim + k);
          const double offset = k % 2 == 0 ? key_offset : -key_offset;
          step->kv.keys.values[index] = RoundTo(normal(random) + offset, dims.dtype);
          step->kv.values.values[index] = RoundTo(normal(random), dims.dtype);
        }
      }
    }
  }
}

Step MakeStep(std::mt19937_64& random, const Dims& dims, const std::vector<Chunk>& chunks,
              double key_offset = 0) {
  Step step;
  step.dims = dims;
  int64_t blocks = 0;
  step.batch = MakeBatch(random, dims, chunks, &blocks);
  const Shape cache{blocks, dims.kv_heads, dims.block_size, dims.head_dim};
  step.kv = {Poison(dims.dtype, cache), Poison(dims.dtype, cache)};
  FillSlots(random, chunks, &step, key_offset);
  step.queries = RandomNormal(
      random, dims.dtype, Shape{step.batch.positions.rows(), dims.query_heads() * dims.head_dim});
  step.scale = 1 / std::sqrt(static_cast<double>(dims.head_dim));
  return step;
}

// The batch and the paged memory of a step on a device.
struct DeviceStep {
  DeviceTensor positions;
  DeviceTensor sequences;
  DeviceTensor block_table;
  std::vector<int32_t> host_first_rows;
  DeviceTensor first_rows;
  DeviceTensor keys;
  DeviceTensor values;

  DeviceStep(Device& device, const reference::Batch& batch, const reference::Kv& kv)
      : positions(device, batch.positions),
        sequences(device, batch.sequence_of_token),
        block_table(device, batch.block_table),
        host_first_rows(FirstRows(batch)),
        first_rows(device, Indices(host_first_rows)),
        keys(device, kv.keys),
        values(device, kv.values) {}

  static std::vector<int32_t> FirstRows(const reference::Batch& batch) {
    std::vector<int32_t> rows(static_cast<size_t>(batch.block_table.rows()) + 1, 0);
    for (const double sequence : batch.sequence_of_token.values) {
      ++rows[static_cast<size_t>(sequence) + 1];
    }
    std::partial_sum(rows.begin(), rows.end(), rows.begin());
    return rows;
  }

  BatchView batch() const {
    BatchView view = {.tokens = positions.view().rows(),
                      .sequences = block_table.view().rows(),
                      .positions = positions.view(),
                      .sequence_of_token = sequences.view(),
                      .block_table = block_table.view(),
                      .rope_rows = positions.view(),
                      .first_rows = first_rows.view()};
    for (size_t sequence = 0; sequence + 1 < host_first_rows.size(); ++sequence) {
      const int64_t rows = host_first_rows[sequence + 1] - host_first_rows[sequence];
      view.longest_chunk = std::max(view.longest_chunk, rows);
      const bool leads = view.leading_decodes == static_cast<int64_t>(sequence);
      view.leading_decodes += leads && rows == 1 ? 1 : 0;
    }
    return view;
  }
  KvView kv() const { return {keys.view(), values.view()}; }
};

HostTensor Attend(Device& device, const Step& step, int64_t padding = 0) {
  const DeviceStep on_device(device, step.batch, step.kv);
  const DeviceTensor out(device, Poison(step.dims.dtype, step.queries.shape), padding);
  device.ops().PagedAttention(DeviceTensor(device, step.queries, padding).view(),
                              step.dims.kv_head_of_query, on_device.batch(), on_device.kv(),
                              static_cast<float>(step.scale), out.view());
  return out.Read();
}

HostTensor ReferenceAttend(const Step& step) {
  return reference::PagedAttention(step.queries, step.dims.kv_head_of_query, step.batch, step.kv,
                                   static_cast<double>(static_cast<float>(step.scale)));
}

double LargestMagnitude(const HostTensor& tensor) {
  double largest = 0;
  for (const double value : tensor.values) {
    largest = std::isnan(value) ? largest : std::max(largest, std::abs(value));
  }
  return largest;
}

// A logit, a dot product of head_dim fp32 products, errs by `logit` at most; a weight is off by
// twice that (its own and the largest logit's) and by a unit per term of the sums over positions.
std::vector<double> Bounds(const Step& step, const HostTensor& expected) {
  const double head_dim = static_cast<double>(step.dims.head_dim);
  const double logit = (head_dim + 6) * kFloatUnit * step.scale * head_dim *
                       LargestMagnitude(step.queries) * LargestMagnitude(step.kv.keys);
  const double length = LargestMagnitude(step.batch.positions) + 1;
  const double relative = std::expm1(2 * logit) + (2 * length + 16) * kFloatUnit;
  Step magnitudes = step;
  for (double& value : magnitudes.kv.values.values) {
    value = std::abs(value);
  }
  std::vector<double> bounds;
  const HostTensor sums = ReferenceAttend(magnitudes);
  for (size_t i = 0; i < sums.values.size(); ++i) {
    bounds.push_back(relative * 1.01 * sums.values[i] +
                     Spacing(step.dims.dtype) * std::abs(expected.values[i]));
  }
  return bounds;
}

void ExpectMatchesReference(Device& device, const Step& step, int64_t padding) {
  const HostTensor expected = ReferenceAttend(step);
  ExpectWithin(Attend(device, step, padding), expected.values, Bounds(step, expected));
}

TEST(PagedAttention, MatchesTheReference) {
  OnEachDevice([](Device& device) {
    for (const uint64_t seed : {1, 2}) {
      SCOPED_TRACE(seed);
      std::mt19937_64 random(seed);
      for (const int64_t head_dim : {8, 10, 16, 24, 64, 80, 128}) {
        for (const DType dtype : {DType::kF32, DType::kBF16}) {
          Dims dims;
          dims.dtype = dtype;
          dims.head_dim = head_dim;
          dims.block_size = std::uniform_int_distribution<int64_t>(1, 9)(random);
          // A prefill, a decode, a chunk in the middle, a sequence without tokens.
          const Step step = MakeStep(random, dims, {{0, 7}, {70, 71}, {5, 9}, {3, 3}});
          ExpectMatchesReference(device, step, head_dim);
        }
      }
    }
  });
}

TEST(PagedAttention, NoTokensAreNoWork) {
  OnEachDevice([](Device& device) {
    std::mt19937_64 random(3);
    const Step step = MakeStep(random, Dims(), {});
    EXPECT_EQ(Attend(device, step).values.size(), 0u);
  });
}

TEST(PagedAttention, FollowsTheMapOfHeads) {
  OnEachDevice([](Device& device) {
    std::mt19937_64 random(4);
    Dims dims;
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
    Dims dims;
    dims.head_dim = 64;
    for (const DType dtype : {DType::kF32, DType::kBF16}) {
      dims.dtype = dtype;
      const Step step = MakeStep(random, dims, {{0, 6}, {90, 91}}, 900.0 / 8);
      ExpectMatchesReference(device, step, 0);
    }
  });
}

TEST(PagedAttention, ResultsDoNotDependOnTheBatch) {
  OnEachDevice([](Device& device) {
    std::mt19937_64 random(6);
    for (const DType dtype : {DType::kF32, DType::kBF16}) {
      Dims dims;
      dims.dtype = dtype;
      dims.head_dim = 20;
      const Step whole = MakeStep(random, dims, {{0, 6}, {130, 134}, {66, 67}});
      const HostTensor expected = Attend(device, whole);
      for (int64_t begin = 0; begin < 11; begin += 3) {
        const int64_t count = std::min<int64_t>(3, 11 - begin);
        Step part = whole;
        part.queries = RowsOf(whole.queries, begin, count);
        part.batch.positions = RowsOf(whole.batch.positions, begin, count);
        part.batch.sequence_of_token = RowsOf(whole.batch.sequence_of_token, begin, count);
        ExpectSame(Attend(device, part), RowsOf(expected, begin, count));
      }
    }
  });
}

// Tiles of positions and of rows lie differently in every chunk.
TEST(PagedAttention, ResultsDoNotDependOnTheChunks) {
  OnEachDevice([](Device& device) {
    std::mt19937_64 random(7);
    for (const DType dtype : {DType::kF32, DType::kBF16}) {
      Dims dims;
      dims.dtype = dtype;
      dims.head_dim = 16;
      dims.kv_head_of_query = {0, 0, 0, 0, 0, 1, 1};
      constexpr int64_t kTokens = 150;
      const Step whole = MakeStep(random, dims, {{0, kTokens}});
      const HostTensor expected = Attend(device, whole);
      for (const int64_t chunk : {1, 13, 64}) {
        for (int64_t begin = 0; begin < kTokens; begin += chunk) {
          const int64_t count = std::min(chunk, kTokens - begin);
          Step part = whole;
          part.queries = RowsOf(whole.queries, begin, count);
          part.batch.positions = RowsOf(whole.batch.positions, begin, count);
          part.batch.sequence_of_token = RowsOf(whole.batch.sequence_of_token, begin, count);
          ExpectSame(Attend(device, part), RowsOf(expected, begin, count));
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

void ExpectRopeMatches(Device& device, std::mt19937_64& random, const Dims& dims,
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
          Dims dims;
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
