#include <algorithm>
#include <limits>

#include "kernels/cpu/ops.h"

namespace cohort {
namespace {

// The block table's row of `token`'s sequence; its blocks from position `begin` to the token's own
// are checked.
const int32_t* BlocksOf(const BatchView& batch, const KvView& kv, int64_t token, int64_t begin) {
  const int64_t sequence = batch.sequence_of_token.As<int32_t>()[token];
  const int64_t position = batch.positions.As<int32_t>()[token];
  CHECK(sequence >= 0 && sequence < batch.sequences)
      << "token " << token << " is of sequence " << sequence << " of " << batch.sequences;
  const int64_t last = position / kv.block_size();
  CHECK(position >= 0 && last < batch.block_table.columns())
      << "position " << position << " with " << batch.block_table.columns() << " blocks of "
      << kv.block_size();
  const int32_t* blocks = batch.block_table.Row<int32_t>(sequence);
  for (int64_t i = begin / kv.block_size(); i <= last; ++i) {
    CHECK(blocks[i] >= 0 && blocks[i] < kv.keys.rows())
        << "block " << blocks[i] << " of " << kv.keys.rows() << " in sequence " << sequence;
  }
  return blocks;
}

// Tokens from `token` on that follow each other in one sequence, at most `limit`.
int64_t RunLength(const BatchView& batch, int64_t token, int64_t limit) {
  const int32_t* positions = batch.positions.As<int32_t>();
  const int32_t* sequences = batch.sequence_of_token.As<int32_t>();
  int64_t length = 1;
  while (length < limit && token + length < batch.tokens &&
         sequences[token + length] == sequences[token] &&
         positions[token + length] == positions[token] + length) {
    ++length;
  }
  return length;
}

// A thread that computes fewer heads than this leaves others idle too often.
constexpr int64_t kHeadsPerThread = 4;

// Heads of one KV head that are computed together: all, so that keys and values are read once, but
// where there are more threads than work, fewer.
int64_t HeadsPerItem(absl::Span<const int32_t> kv_head_of_query, int64_t items, int64_t threads) {
  int64_t largest_group = 1;
  for (const int32_t kv_head : kv_head_of_query) {
    largest_group = std::max<int64_t>(
        largest_group, std::count(kv_head_of_query.begin(), kv_head_of_query.end(), kv_head));
  }
  const int64_t shares = std::clamp<int64_t>(threads / items, 1, largest_group);
  return std::min((largest_group + shares - 1) / shares, AttentionOperands::kMaxRows);
}

// Which keys the run of `operands`, which begins with `token`, sees with which rotation.
void SetParts(const DualChunks* chunks, const BatchView& batch, int64_t token,
              AttentionOperands& operands) {
  const int64_t end = operands.first_position + operands.tokens;
  if (chunks == nullptr) {
    operands.parts[0].end = end;
    operands.part_count = 1;
    return;
  }
  const int64_t length = chunks->chunk_length;
  const int64_t first_row = operands.first_position % length;
  const int64_t chunk = operands.first_position - first_row;  // where it begins
  const int64_t last_row = chunks->rope.cosine.rows() - 1;
  const auto add = [&](const AttentionPart& part) { operands.parts[operands.part_count++] = part; };
  if (chunk > length) {
    add({.end = chunk - length, .first_row = last_row, .last_row = last_row});
  }
  if (chunk > 0) {
    add({.end = chunk, .first_row = first_row + length, .last_row = last_row});
  }
  add({.end = end, .first_row = first_row, .last_row = length - 1});
  operands.cosine = chunks->rope.cosine.As<float>();
  operands.sine = chunks->rope.sine.As<float>();
  operands.cosine_stride = chunks->rope.cosine.row_stride;
  operands.sine_stride = chunks->rope.sine.row_stride;
  operands.logit_factors = batch.logit_factors.As<float>() + token;
}

}  // namespace

void CpuOps::PlaceTokens(const RopeTable& rope, const BatchView& batch, const KvView& kv) {
  const int32_t* positions = batch.positions.As<int32_t>();
  const int32_t* rope_rows = batch.rope_rows.As<int32_t>();
  places_.resize(std::max(places_.size(), static_cast<size_t>(batch.tokens)));
  for (int64_t token = 0; token < batch.tokens; ++token) {
    const int64_t position = positions[token];
    const int32_t* blocks = BlocksOf(batch, kv, token, position);
    const int64_t row = rope_rows[token];
    CHECK(row >= 0 && row < rope.cosine.rows())
        << "row " << row << " of a rope table of " << rope.cosine.rows();
    TokenPlace& place = places_[static_cast<size_t>(token)];
    place.block = blocks[position / kv.block_size()];
    place.offset = position % kv.block_size() * kv.head_dim();
    place.cosine = rope.cosine.Row<float>(row);
    place.sine = rope.sine.Row<float>(row);
  }
}

// Queries are rotated in place; a key goes to the KV memory rotated, a value as it is.
template <class T>
void CpuOps::RopeAndStoreHead(const TensorView& qkv, int64_t token, int64_t head,
                              int64_t query_heads, const RopeTable& rope, const KvView& kv) const {
  const TokenPlace& place = places_[static_cast<size_t>(token)];
  const int64_t head_dim = kv.head_dim();
  const auto rotate = kernels_.For(qkv.dtype).rotate;
  T* from = qkv.Row<T>(token) + head * head_dim;
  if (head < query_heads) {
    if (rope.keys_only) {
      return;
    }
    rotate(from, place.cosine, place.sine, head_dim / 2, from);
    return;
  }
  const bool is_key = head < query_heads + kv.kv_heads();
  const int64_t kv_head = head - query_heads - (is_key ? 0 : kv.kv_heads());
  T* to = (is_key ? kv.keys : kv.values).Row<T>(place.block) +
          kv_head * kv.block_size() * head_dim + place.offset;
  if (is_key) {
    rotate(from, place.cosine, place.sine, head_dim / 2, to);
  } else {
    std::copy_n(from, head_dim, to);
  }
}

void CpuOps::DoRopeAndStoreKv(TensorView qkv, int64_t query_heads, const RopeTable& rope,
                              const BatchView& batch, const KvView& kv) {
  PlaceTokens(rope, batch, kv);
  const int64_t heads = query_heads + 2 * kv.kv_heads();
  WithActivationType(qkv.dtype, [&]<class T>() {
    threads_.ParallelFor(qkv.rows(), 8, [&](int64_t begin, int64_t end) {
      for (int64_t token = begin; token < end; ++token) {
        for (int64_t head = 0; head < heads; ++head) {
          RopeAndStoreHead<T>(qkv, token, head, query_heads, rope, kv);
        }
      }
    });
  });
}

// Each thread computes whole heads, so that it can rotate what it has just written.
void CpuOps::DoProjectQkv(TensorView x, const Weight& w, const TensorView* bias, TensorView qkv,
                          int64_t query_heads, const RopeTable& rope, const BatchView& batch,
                          const KvView& kv) {
  const int64_t heads = query_heads + 2 * kv.kv_heads();
  if (heads < kHeadsPerThread * threads_.threads()) {
    DoMatMul(x, w, bias, qkv);
    DoRopeAndStoreKv(qkv, query_heads, rope, batch, kv);
    return;
  }
  PlaceTokens(rope, batch, kv);
  const MatMulOperands operands = Operands(x, w, bias, qkv);
  const auto multiply = kernels_.For(x.dtype).multiply_to_act;
  WithActivationType(qkv.dtype, [&]<class T>() {
    threads_.ParallelFor(heads, 1, [&](int64_t begin, int64_t end) {
      multiply(operands, begin * kv.head_dim(), end * kv.head_dim());
      for (int64_t token = 0; token < qkv.rows(); ++token) {
        for (int64_t head = begin; head < end; ++head) {
          RopeAndStoreHead<T>(qkv, token, head, query_heads, rope, kv);
        }
      }
    });
  });
}

// Items of up to `limit` heads, KV head by KV head.
void CpuOps::GroupHeads(absl::Span<const int32_t> kv_head_of_query, int64_t kv_heads,
                        int64_t limit) {
  heads_.clear();
  head_groups_.clear();
  for (int64_t kv_head = 0; kv_head < kv_heads; ++kv_head) {
    bool is_open = false;
    for (size_t head = 0; head < kv_head_of_query.size(); ++head) {
      if (kv_head_of_query[head] != kv_head) {
        continue;
      }
      if (!is_open || head_groups_.back().count == limit) {
        head_groups_.push_back({kv_head, static_cast<int64_t>(heads_.size()), 0});
        is_open = true;
      }
      heads_.push_back(static_cast<int32_t>(head));
      ++head_groups_.back().count;
    }
  }
}

void CpuOps::CollectRuns(const BatchView& batch, const KvView& kv, int64_t limit,
                         int64_t chunk_length) {
  runs_.clear();
  for (int64_t token = 0; token < batch.tokens; token += runs_.back().tokens) {
    const int64_t left = chunk_length - batch.positions.As<int32_t>()[token] % chunk_length;
    const int64_t length = RunLength(batch, token, std::min(limit, left));
    runs_.push_back({token, length, BlocksOf(batch, kv, token + length - 1, 0)});
  }
}

void CpuOps::Attend(const TensorView& queries, absl::Span<const int32_t> kv_head_of_query,
                    const DualChunks* chunks, const BatchView& batch, const KvView& kv, float scale,
                    const TensorView& out) {
  const int64_t items = std::max<int64_t>(1, batch.sequences * kv.kv_heads());
  const int64_t heads = HeadsPerItem(kv_head_of_query, items, threads_.threads());
  GroupHeads(kv_head_of_query, kv.kv_heads(), heads);
  CollectRuns(batch, kv, AttentionOperands::kMaxRows / heads,
              chunks == nullptr ? std::numeric_limits<int64_t>::max() : chunks->chunk_length);
  const int64_t runs = static_cast<int64_t>(runs_.size());
  WithActivationType(queries.dtype, [&]<class T>() {
    const auto attend = kernels_.For(queries.dtype).attend;
    threads_.ParallelFor(
        runs * static_cast<int64_t>(head_groups_.size()), 1, [&](int64_t begin, int64_t end) {
          for (int64_t item = begin; item < end; ++item) {
            const HeadGroup& group = head_groups_[static_cast<size_t>(item / runs)];
            const TokenRun& run = runs_[static_cast<size_t>(item % runs)];
            const int64_t head_offset = group.kv_head * kv.block_size() * kv.head_dim();
            AttentionOperands operands = {
                .queries = queries.Row<T>(run.token),
                .query_stride = queries.row_stride,
                .out = out.Row<T>(run.token),
                .out_stride = out.row_stride,
                .tokens = run.tokens,
                .first_position = batch.positions.As<int32_t>()[run.token],
                .heads = heads_.data() + group.first,
                .head_count = group.count,
                .keys = kv.keys.As<T>() + head_offset,
                .values = kv.values.As<T>() + head_offset,
                .block_stride = kv.keys.row_stride,
                .blocks = run.blocks,
                .block_size = kv.block_size(),
                .head_dim = kv.head_dim(),
                .scale = scale};
            SetParts(chunks, batch, run.token, operands);
            attend(operands);
          }
        });
  });
}

void CpuOps::DoPagedAttention(TensorView queries, absl::Span<const int32_t> kv_head_of_query,
                              const BatchView& batch, const KvView& kv, float scale,
                              TensorView out) {
  Attend(queries, kv_head_of_query, nullptr, batch, kv, scale, out);
}

void CpuOps::DoDualChunkAttention(TensorView queries, absl::Span<const int32_t> kv_head_of_query,
                                  const DualChunks& chunks, const BatchView& batch,
                                  const KvView& kv, float scale, TensorView out) {
  Attend(queries, kv_head_of_query, &chunks, batch, kv, scale, out);
}

}  // namespace cohort
