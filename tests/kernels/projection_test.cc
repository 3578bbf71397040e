// The coarse operations give the bits of the small ones that they are made of.
#include <numeric>

#include "tests/kernels/devices.h"

namespace cohort {
namespace {

// One sequence of some tokens on a device, and a KV memory for it.
struct Sequence {
  static constexpr int64_t kBlockSize = 4;

  DeviceTensor positions;
  DeviceTensor sequences;
  DeviceTensor block_table;
  DeviceTensor first_rows;
  DeviceTensor keys;
  DeviceTensor values;

  Sequence(Device& device, DType dtype, int64_t tokens, int64_t kv_heads, int64_t head_dim)
      : positions(device, Indices(Ascending(tokens))),
        sequences(device, Filled(DType::kI32, Shape{tokens}, 0)),
        block_table(device, TableOf(tokens)),
        first_rows(device, Indices({0, static_cast<int32_t>(tokens)})),
        keys(device, Poison(dtype, Cache(tokens, kv_heads, head_dim))),
        values(device, Poison(dtype, Cache(tokens, kv_heads, head_dim))) {}

  static std::vector<int32_t> Ascending(int64_t count) {
    std::vector<int32_t> numbers(static_cast<size_t>(count));
    std::iota(numbers.begin(), numbers.end(), 0);
    return numbers;
  }
  static int64_t Blocks(int64_t tokens) { return (tokens + kBlockSize - 1) / kBlockSize; }
  static HostTensor TableOf(int64_t tokens) {
    HostTensor table = Indices(Ascending(Blocks(tokens)));
    table.shape = Shape{1, Blocks(tokens)};
    return table;
  }
  static Shape Cache(int64_t tokens, int64_t kv_heads, int64_t head_dim) {
    return Shape{Blocks(tokens), kv_heads, kBlockSize, head_dim};
  }
  BatchView batch() const {
    const int64_t tokens = positions.view().rows();
    return {.tokens = tokens,
            .sequences = 1,
            .positions = positions.view(),
            .sequence_of_token = sequences.view(),
            .block_table = block_table.view(),
            .rope_rows = positions.view(),
            .first_rows = first_rows.view(),
            .leading_decodes = tokens == 1 ? 1 : 0,
            .longest_chunk = tokens};
  }
  KvView kv() const { return {keys.view(), values.view()}; }
};

struct QkvShape {
  int64_t tokens = 9;
  int64_t hidden = 40;
  int64_t query_heads = 0;
  int64_t kv_heads = 2;
  int64_t head_dim = 6;
  bool keys_only = false;
  bool with_bias = true;
};

void ExpectProjectQkvIsItsParts(Device& device, DType dtype, const QkvShape& shape) {
  const auto [tokens, hidden, query_heads, kv_heads, head_dim, keys_only, with_bias] = shape;
  std::mt19937_64 random(static_cast<uint64_t>(query_heads));
  const int64_t columns = (query_heads + 2 * kv_heads) * head_dim;
  const DeviceTensor x(device, RandomNormal(random, dtype, Shape{tokens, hidden}));
  const DeviceTensor w(device, RandomNormal(random, dtype, Shape{columns, hidden}));
  const DeviceTensor bias(device, RandomNormal(random, dtype, Shape{columns}));
  const Shape table{tokens, head_dim / 2};
  const DeviceTensor cosine(device, RandomNormal(random, DType::kF32, table));
  const DeviceTensor sine(device, RandomNormal(random, DType::kF32, table));
  const RopeTable rope{cosine.view(), sine.view(), keys_only};
  const TensorView bias_view = bias.view();
  const TensorView* addend = with_bias ? &bias_view : nullptr;

  const Sequence whole(device, dtype, tokens, kv_heads, head_dim);
  const DeviceTensor qkv(device, Poison(dtype, Shape{tokens, columns}), 8);
  device.ops().ProjectQkv(x.view(), Weight{w.view()}, addend, qkv.view(), query_heads, rope,
                          whole.batch(), whole.kv());

  const Sequence parts(device, dtype, tokens, kv_heads, head_dim);
  const DeviceTensor expected(device, Poison(dtype, Shape{tokens, columns}));
  device.ops().MatMul(x.view(), Weight{w.view()}, addend, expected.view());
  device.ops().RopeAndStoreKv(expected.view(), query_heads, rope, parts.batch(), parts.kv());

  ExpectSame(whole.keys.Read(), parts.keys.Read());
  ExpectSame(whole.values.Read(), parts.values.Read());
  const HostTensor actual_rows = qkv.Read();
  const HostTensor expected_rows = expected.Read();
  for (int64_t token = 0; token < tokens; ++token) {
    for (int64_t column = 0; column < query_heads * head_dim; ++column) {
      ASSERT_EQ(actual_rows.At(token, column), expected_rows.At(token, column));
    }
  }
}

// With few and with many heads for a thread.
TEST(ProjectQkv, IsItsParts) {
  OnEachDevice([](Device& device) {
    for (const DType dtype : {DType::kF32, DType::kBF16}) {
      ExpectProjectQkvIsItsParts(device, dtype, {.query_heads = 3});
      ExpectProjectQkvIsItsParts(device, dtype, {.query_heads = 14});
    }
  });
}

// Shapes that a device may compute in one kernel, and their neighbours.
TEST(ProjectQkv, IsItsPartsInOneKernel) {
  OnEachDevice([](Device& device) {
    for (const int64_t tokens : {1, 7, 16, 17, 50}) {
      SCOPED_TRACE(tokens);
      ExpectProjectQkvIsItsParts(
          device, DType::kBF16,
          {.tokens = tokens, .hidden = 896, .query_heads = 3, .kv_heads = 1, .head_dim = 64});
      ExpectProjectQkvIsItsParts(device, DType::kBF16,
                                 {.tokens = tokens,
                                  .hidden = 264,
                                  .query_heads = 2,
                                  .kv_heads = 1,
                                  .head_dim = 128,
                                  .keys_only = true});
      ExpectProjectQkvIsItsParts(
          device, DType::kBF16,
          {.tokens = tokens, .hidden = 48, .query_heads = 1, .head_dim = 16, .with_bias = false});
    }
  });
}

void ExpectProjectGateUpIsItsParts(Device& device, DType dtype, int64_t tokens, int64_t hidden,
                                   int64_t columns) {
  std::mt19937_64 random(1);
  const DeviceTensor x(device, RandomNormal(random, dtype, Shape{tokens, hidden}), 8);
  const DeviceTensor w(device, RandomNormal(random, dtype, Shape{2 * columns, hidden}, 0.2));
  const DeviceTensor gate_up(device, Poison(dtype, Shape{tokens, 2 * columns}));
  const DeviceTensor whole(device, Poison(dtype, Shape{tokens, columns}), 8);
  device.ops().ProjectGateUp(x.view(), Weight{w.view()}, gate_up.view(), whole.view());
  const DeviceTensor parts(device, Poison(dtype, Shape{tokens, columns}));
  device.ops().MatMul(x.view(), Weight{w.view()}, nullptr, gate_up.view());
  device.ops().SiluMultiply(gate_up.view(), parts.view());
  ExpectSame(whole.Read(), parts.Read());
}

TEST(ProjectGateUp, IsItsParts) {
  OnEachDevice([](Device& device) {
    for (const DType dtype : {DType::kF32, DType::kBF16}) {
      for (const int64_t tokens : {0, 1, 5, 40}) {
        ExpectProjectGateUpIsItsParts(device, dtype, tokens, 50, 70);
      }
    }
  });
}

// As for ProjectQkv; the columns are those of a rank's share, cut evenly and unevenly.
TEST(ProjectGateUp, IsItsPartsInOneKernel) {
  OnEachDevice([](Device& device) {
    for (const int64_t tokens : {1, 8, 9, 16, 17, 33, 64}) {
      SCOPED_TRACE(tokens);
      ExpectProjectGateUpIsItsParts(device, DType::kBF16, tokens, 896, 72);
      ExpectProjectGateUpIsItsParts(device, DType::kBF16, tokens, 72, 8);
      ExpectProjectGateUpIsItsParts(device, DType::kBF16, tokens, 3584, 16);
      ExpectProjectGateUpIsItsParts(device, DType::kBF16, tokens, 256, 37);
    }
  });
}

}  // namespace
}  // namespace cohort
