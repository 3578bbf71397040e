// Dual chunk attention against its formulas (arXiv 2402.17463), pair by pair in double precision.
#include <algorithm>
#include <cmath>

#include "tests/kernels/attention_step.h"

namespace cohort {
namespace {

struct Chunking {
  int64_t size = 0;
  int64_t length = 0;
  int64_t rows() const { return std::min(size, 2 * length - 1) + 1; }
};

constexpr int64_t kHeads = 5;
constexpr int64_t kKvHeads = 2;
const std::vector<int32_t> kKvHeadOfQuery = {0, 0, 0, 1, 1};

// One sequence: queries, keys and values of all its positions before any rotation.
struct Text {
  Chunking chunking;
  DType dtype = DType::kF32;
  int64_t head_dim = 8;
  HostTensor qkv;            // [tokens, (heads + 2 kv heads) * head_dim]
  HostTensor cosine, sine;   // [rows, head_dim / 2]
  HostTensor logit_factors;  // [tokens]
  int64_t tokens() const { return qkv.rows(); }
  int64_t columns() const { return kHeads * head_dim; }
};

Text MakeText(std::mt19937_64& random, const Chunking& chunking, DType dtype, int64_t head_dim,
              int64_t tokens) {
  Text text{chunking, dtype, head_dim, {}, {}, {}, {}};
  text.qkv = RandomNormal(random, dtype, Shape{tokens, (kHeads + 2 * kKvHeads) * head_dim});
  text.cosine = text.sine = Filled(DType::kF32, Shape{chunking.rows(), head_dim / 2}, 0);
  for (int64_t row = 0; row < chunking.rows(); ++row) {
    for (int64_t i = 0; i < head_dim / 2; ++i) {
      const double angle = static_cast<double>(row) *
                           std::pow(1e3, -2.0 * static_cast<double>(i) / double(head_dim));
      text.cosine.At(row, i) = RoundTo(std::cos(angle), dtype);
      text.sine.At(row, i) = RoundTo(std::sin(angle), dtype);
    }
  }
  text.logit_factors = Filled(DType::kF32, Shape{tokens}, 1);
  for (int64_t token = tokens / 2; token < tokens; ++token) {  // the later ones attend more sharply
    text.logit_factors.values[static_cast<size_t>(token)] =
        RoundTo(1 + 0.001 * static_cast<double>(token), DType::kF32);
  }
  return text;
}

// The head that begins at `column` of a token, rotated by `row` of the table.
std::vector<double> Rotated(const Text& text, int64_t token, int64_t column, int64_t row) {
  const int64_t half = text.head_dim / 2;
  std::vector<double> head(static_cast<size_t>(text.head_dim));
  const auto rounded = [&](double value) { return RoundTo(value, text.dtype); };
  for (int64_t i = 0; i < half; ++i) {
    const double first = text.qkv.At(token, column + i);
    const double second = text.qkv.At(token, column + i + half);
    const double c = text.cosine.At(row, i), s = text.sine.At(row, i);
    head[static_cast<size_t>(i)] = rounded(rounded(first * c) - rounded(second * s));
    head[static_cast<size_t>(i + half)] = rounded(rounded(second * c) + rounded(first * s));
  }
  return head;
}

// The row of the table that rotates query `i` for key `j`.
int64_t RowFor(const Chunking& c, int64_t i, int64_t j) {
  switch (i / c.length - j / c.length) {
    case 0:
      return i % c.length;
    case 1:
      return std::min(i % c.length + c.length, c.size);
    default:
      return std::min(2 * c.length - 1, c.size);
  }
}

struct Expected {
  std::vector<double> values, bounds;
};

// Token `i` of the text and what fp32 may make of it. A rotated element in fp32 carries three
// roundings of numbers below |x| + |y|, in bf16 none (its products are exact in fp32); a logit one
// rounding per product of its sum and a few; a weight is off by what its logit and the largest are.
// Tensor cores: as in attention_step.cc.
Expected ExpectToken(const Text& text, int64_t i, double scale, bool has_tensor_cores) {
  Expected expected;
  const int64_t dim = text.head_dim;
  const double factor = scale * text.logit_factors.At(i);
  const double rotations = text.dtype == DType::kBF16 ? 0 : 12;
  const double unit = has_tensor_cores ? 2 * kFloatUnit : kFloatUnit;
  const double rounded_weight = has_tensor_cores ? Spacing(DType::kBF16) / 2 : 0;
  for (int64_t head = 0; head < kHeads; ++head) {
    const int64_t kv_head = kKvHeadOfQuery[static_cast<size_t>(head)];
    std::vector<double> logits;
    double logit_bound = 0, largest = -1e300;
    for (int64_t j = 0; j <= i; ++j) {
      const auto query = Rotated(text, i, head * dim, RowFor(text.chunking, i, j));
      const auto key = Rotated(text, j, (kHeads + kv_head) * dim, j % text.chunking.length);
      double logit = 0, q2 = 0, k2 = 0;
      for (size_t k = 0; k < query.size(); ++k) {
        logit += query[k] * key[k];
        q2 += query[k] * query[k];
        k2 += key[k] * key[k];
      }
      logits.push_back(factor * logit);
      largest = std::max(largest, logits.back());
      logit_bound = std::max(logit_bound, (static_cast<double>(dim) + 6 + rotations) * unit *
                                              factor * std::sqrt(q2 * k2));
    }
    double total = 0;
    for (double& logit : logits) {
      logit = std::exp(logit - largest);
      total += logit;
    }
    const double relative =
        std::expm1(2 * logit_bound) + (2 * static_cast<double>(i + 1) + 16) * unit + rounded_weight;
    for (int64_t k = 0; k < dim; ++k) {
      double sum = 0, magnitude = 0;
      for (int64_t j = 0; j <= i; ++j) {
        const double value = logits[static_cast<size_t>(j)] / total *
                             text.qkv.At(j, (kHeads + kKvHeads + kv_head) * dim + k);
        sum += value;
        magnitude += std::abs(value);
      }
      expected.values.push_back(RoundTo(sum, text.dtype));
      expected.bounds.push_back(relative * 1.01 * magnitude + Spacing(text.dtype) * std::abs(sum));
    }
  }
  return expected;
}

// The text's positions [begin, end) of a step; those before are in the KV memory already.
class Attention {
 public:
  Attention(Device& device, const Text& text, int64_t block_size = 5)
      : device_(device),
        text_(text),
        block_size_(block_size),
        cosine_(device, text.cosine),
        sine_(device, text.sine),
        factors_(device, text.logit_factors),
        table_(device, Table()),
        keys_(device, Poison(text.dtype, Cache())),
        values_(device, Poison(text.dtype, Cache())) {}

  // Stores the keys and values of these positions; the queries attend, in chunks or in the plain
  // way.
  HostTensor Run(int64_t begin, int64_t end, bool plain = false) {
    const DeviceTensor qkv(device_, RowsOf(text_.qkv, begin, end - begin));
    const DeviceTensor out(device_, Poison(text_.dtype, Shape{end - begin, text_.columns()}));
    std::vector<int32_t> positions, rows;
    for (int64_t position = begin; position < end; ++position) {
      positions.push_back(static_cast<int32_t>(position));
      rows.push_back(static_cast<int32_t>(position % text_.chunking.length));
    }
    const DeviceTensor on_device(device_, Indices(positions));
    const DeviceTensor rope_rows(device_, Indices(rows));
    const DeviceTensor sequences(device_, Filled(DType::kI32, Shape{end - begin}, 0));
    const DeviceTensor first_rows(device_, Indices({0, static_cast<int32_t>(end - begin)}));
    const BatchView batch{.tokens = end - begin,
                          .sequences = 1,
                          .positions = on_device.view(),
                          .sequence_of_token = sequences.view(),
                          .block_table = table_.view(),
                          .rope_rows = rope_rows.view(),
                          .logit_factors = factors_.view().Rows(begin, end - begin),
                          .first_rows = first_rows.view(),
                          .leading_decodes = end - begin == 1 ? 1 : 0,
                          .longest_chunk = end - begin};
    const KvView kv{keys_.view(), values_.view()};
    const RopeTable rope{cosine_.view(), sine_.view(), !plain};
    const TensorView queries = qkv.view().Columns(0, text_.columns());
    device_.ops().RopeAndStoreKv(qkv.view(), kHeads, rope, batch, kv);
    if (plain) {
      device_.ops().PagedAttention(queries, kKvHeadOfQuery, batch, kv, Scale(), out.view());
    } else {
      device_.ops().DualChunkAttention(queries, kKvHeadOfQuery,
                                       {text_.chunking.size, text_.chunking.length, rope}, batch,
                                       kv, Scale(), out.view());
    }
    return out.Read();
  }

  float Scale() const { return 1 / std::sqrt(static_cast<float>(text_.head_dim)); }

 private:
  int64_t Blocks() const { return (text_.tokens() + block_size_ - 1) / block_size_; }
  Shape Cache() const { return Shape{Blocks(), kKvHeads, block_size_, text_.head_dim}; }
  HostTensor Table() const {
    HostTensor table = Filled(DType::kI32, Shape{1, Blocks()}, 0);
    for (int64_t i = 0; i < Blocks(); ++i) {
      table.At(0, i) = static_cast<double>(Blocks() - 1 - i);
    }
    return table;
  }

  Device& device_;
  const Text& text_;
  const int64_t block_size_;
  DeviceTensor cosine_, sine_, factors_, table_, keys_, values_;
};

// `actual` holds the text's rows from `begin` on.
void ExpectRows(const HostTensor& actual, const Text& text, int64_t begin, float scale,
                bool has_tensor_cores) {
  Expected expected;
  for (int64_t i = begin; i < begin + actual.rows(); ++i) {
    const Expected row = ExpectToken(text, i, static_cast<double>(scale), has_tensor_cores);
    expected.values.insert(expected.values.end(), row.values.begin(), row.values.end());
    expected.bounds.insert(expected.bounds.end(), row.bounds.begin(), row.bounds.end());
  }
  ExpectWithin(actual, expected.values, expected.bounds);
}

// Chunks that are no multiples of blocks or tiles; local sizes below and above the chunk's length;
// distances that stop growing early, late, or never.
const Chunking kChunkings[] = {{20, 17}, {100, 70}, {40, 13}, {9, 8}, {2, 1}};

TEST(DualChunkAttention, MatchesTheFormulasOverManyChunks) {
  OnEachDevice([](Device& device) {
    std::mt19937_64 random(1);
    for (const Chunking& chunking : kChunkings) {
      for (const DType dtype : {DType::kF32, DType::kBF16}) {
        const int64_t tokens = std::min<int64_t>(4 * chunking.length + 9, 100);
        const Text text = MakeText(random, chunking, dtype, chunking.size == 20 ? 24 : 10, tokens);
        Attention attention(device, text);
        const HostTensor actual = attention.Run(0, tokens);
        ExpectRows(actual, text, 0, attention.Scale(), false);
      }
    }
  });
}

TEST(DualChunkAttention, IsPlainAttentionInTheFirstChunk) {
  OnEachDevice([](Device& device) {
    std::mt19937_64 random(2);
    for (const DType dtype : {DType::kF32, DType::kBF16}) {
      Text text = MakeText(random, {100, 70}, dtype, 16, 70);
      text.logit_factors = Filled(DType::kF32, Shape{70}, 1);
      ExpectSame(Attention(device, text).Run(0, 70), Attention(device, text).Run(0, 70, true));
    }
  });
}

TEST(DualChunkAttention, ResultsDoNotDependOnTheStepsThatComputeThem) {
  OnEachDevice([](Device& device) {
    std::mt19937_64 random(3);
    for (const DType dtype : {DType::kF32, DType::kBF16}) {
      const Text text = MakeText(random, {40, 30}, dtype, 12, 140);
      const HostTensor whole = Attention(device, text).Run(0, 140);
      for (const int64_t step : {1, 7, 64}) {
        Attention attention(device, text);
        for (int64_t begin = 0; begin < 140; begin += step) {
          const int64_t end = std::min<int64_t>(begin + step, 140);
          ExpectSame(attention.Run(begin, end), RowsOf(whole, begin, end - begin));
        }
      }
    }
  });
}

// The shapes that CUDA computes on tensor cores: chunks of rows, and rows that are decoded.
TEST(DualChunkAttention, MatchesTheFormulasOnTensorCores) {
  OnEachDevice([](Device& device) {
    std::mt19937_64 random(4);
    for (const Chunking& chunking : kChunkings) {
      for (const int64_t head_dim : {64, 128}) {
        const bool has_tensor_cores = HasTensorCores(device, DType::kBF16, head_dim, 16);
        const int64_t tokens = std::min<int64_t>(4 * chunking.length + 3, 160);
        const Text text = MakeText(random, chunking, DType::kBF16, head_dim, tokens);
        Attention attention(device, text, 16);
        const HostTensor whole = attention.Run(0, tokens - 1);
        const int64_t last = std::min<int64_t>(tokens - 1, 15);  // enough of them
        ExpectRows(RowsOf(whole, tokens - 1 - last, last), text, tokens - 1 - last,
                   attention.Scale(), has_tensor_cores);
        ExpectRows(attention.Run(tokens - 1, tokens), text, tokens - 1, attention.Scale(),
                   has_tensor_cores);
        Attention in_steps(device, text, 16);
        for (int64_t begin = 0; begin < tokens - 1; begin += 40) {
          const int64_t end = std::min(begin + 40, tokens - 1);
          const HostTensor step = in_steps.Run(begin, end);
          if (end - begin > 1) {  // a single row is a decode
            ExpectSame(step, RowsOf(whole, begin, end - begin));
          }
        }
      }
    }
  });
}

// A decode over many ranges of keys, each with its parts.
TEST(DualChunkAttention, LongSequencesAreMerged) {
  OnEachDevice([](Device& device) {
    std::mt19937_64 random(5);
    const Text text = MakeText(random, {300, 220}, DType::kBF16, 64, 900);
    Attention attention(device, text, 32);
    attention.Run(0, 899);
    ExpectRows(attention.Run(899, 900), text, 899, attention.Scale(),
               HasTensorCores(device, DType::kBF16, 64, 32));
  });
}

TEST(DualChunkAttention, IsPlainAttentionInTheFirstChunkOnTensorCores) {
  OnEachDevice([](Device& device) {
    std::mt19937_64 random(6);
    for (const int64_t head_dim : {64, 128}) {
      Text text = MakeText(random, {300, 170}, DType::kBF16, head_dim, 170);
      text.logit_factors = Filled(DType::kF32, Shape{170}, 1);
      Attention chunks(device, text, 16);
      Attention plain(device, text, 16);
      // Some devices have another kernel, with another order of sums, for plain chunks.
      const bool has_tensor_cores = HasTensorCores(device, DType::kBF16, head_dim, 16);
      ExpectRows(RowsOf(chunks.Run(0, 169), 149, 20), text, 149, chunks.Scale(), has_tensor_cores);
      ExpectRows(RowsOf(plain.Run(0, 169, true), 149, 20), text, 149, plain.Scale(),
                 has_tensor_cores);
      ExpectSame(chunks.Run(169, 170), plain.Run(169, 170, true));
    }
  });
}

}  // namespace
}  // namespace cohort
