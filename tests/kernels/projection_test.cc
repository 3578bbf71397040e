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

void ExpectProjectQkvIsItsParts(Device& device, DType dtype, int64_t query_heads) {
  constexpr int64_t kTokens = 9;
  constexpr int64_t kHidden = 40;
  constexpr int64_t kKvHeads = 2;
  constexpr int64_t kHeadDim = 6;
  std::mt19937_64 random(static_cast<uint64_t>(query_heads));
  const int64_t columns = (query_heads + 2 * kKvHeads) * kHeadDim;
  const DeviceTensor x(device, RandomNormal(random, dtype, Shape{kTokens, kHidden}));
  const DeviceTensor w(device, RandomNormal(random, dtype, Shape{columns, kHidden}));
  const DeviceTensor bias(device, RandomNormal(random, dtype, Shape{columns}));
  const DeviceTensor cosine(device,
                            RandomNormal(random, DType::kF32, Shape{kTokens, kHeadDim / 2}));
  const DeviceTensor sine(device, RandomNormal(random, DType::kF32, Shape{kTokens, kHeadDim / 2}));
  const RopeTable rope{cosine.view(), sine.view()};
  const TensorView bias_view = bias.view();

  const Sequence whole(device, dtype, kTokens, kKvHeads, kHeadDim);
  const DeviceTensor qkv(device, Poison(dtype, Shape{kTokens, columns}));
  device.ops().ProjectQkv(x.view(), Weight{w.view()}, &bias_view, qkv.view(), query_heads, rope,
                          whole.batch(), whole.kv());

  const Sequence parts(device, dtype, kTokens, kKvHeads, kHeadDim);
  const DeviceTensor expected(device, Poison(dtype, Shape{kTokens, columns}));
  device.ops().MatMul(x.view(), Weight{w.view()}, &bias_view, expected.view());
  device.ops().RopeAndStoreKv(expected.view(), query_heads, rope, parts.batch(), parts.kv());

  ExpectSame(whole.keys.Read(), parts.keys.Read());
  ExpectSame(whole.values.Read(), parts.values.Read());
  const HostTensor actual_rows = qkv.Read();
  const HostTensor expected_rows = expected.Read();
  for (int64_t token = 0; token < kTokens; ++token) {
    for (int64_t column = 0; column < query_heads * kHeadDim; ++column) {
      ASSERT_EQ(actual_rows.At(token, column), expected_rows.At(token, column));
    }
  }
}

// With few and with many heads for a thread.
TEST(ProjectQkv, IsItsParts) {
  OnEachDevice([](Device& device) {
    for (const DType dtype : {DType::kF32, DType::kBF16}) {
      ExpectProjectQkvIsItsParts(device, dtype, 3);
      ExpectProjectQkvIsItsParts(device, dtype, 14);
    }
  });
}

TEST(ProjectGateUp, IsItsParts) {
  OnEachDevice([](Device& device) {
    std::mt19937_64 random(1);
    for (const DType dtype : {DType::kF32, DType::kBF16}) {
      for (const int64_t tokens : {0, 1, 5, 40}) {
        constexpr int64_t kColumns = 70;
        const DeviceTensor x(device, RandomNormal(random, dtype, Shape{tokens, 50}));
        const DeviceTensor w(device, RandomNormal(random, dtype, Shape{2 * kColumns, 50}));
        const DeviceTensor gate_up(device, Poison(dtype, Shape{tokens, 2 * kColumns}));
        const DeviceTensor whole(device, Poison(dtype, Shape{tokens, kColumns}));
        device.ops().ProjectGateUp(x.view(), Weight{w.view()}, gate_up.view(), whole.view());
        const DeviceTensor parts(device, Poison(dtype, Shape{tokens, kColumns}));
        device.ops().MatMul(x.view(), Weight{w.view()}, nullptr, gate_up.view());
        device.ops().SiluMultiply(gate_up.view(), parts.view());
        ExpectSame(whole.Read(), parts.Read());
      }
    }
  });
}

}  // namespace
}  // namespace cohort
