#include <algorithm>
#include <cmath>
#include <limits>

#include "kernels/cpu/lanes.h"
#include "kernels/cpu/ops.h"

namespace cohort {
namespace {

constexpr int64_t kMaxHeadDim = 256;

// Positions whose logits are computed before their weights; tiles begin at multiples of it, so the
// order of summation depends on the position alone.
constexpr int64_t kTilePositions = 64;

// Where the keys or values of one KV head of one sequence lie.
template <class T>
struct HeadPages {
  const T* data = nullptr;  // the head's first slot in block 0
  int64_t block_stride = 0;
  const int32_t* blocks = nullptr;  // the sequence's row of the block table
  int64_t block_size = 0;
  int64_t head_dim = 0;

  COHORT_CPU_INLINE const T* Slot(int64_t position) const {
    return data + blocks[position / block_size] * block_stride + position % block_size * head_dim;
  }
};

template <class T>
HeadPages<T> PagesOf(const TensorView& cache, const int32_t* blocks, int64_t kv_head) {
  const int64_t block_size = cache.shape[2];
  const int64_t head_dim = cache.shape[3];
  return {cache.As<T>() + kv_head * block_size * head_dim, cache.row_stride, blocks, block_size,
          head_dim};
}

// Blocks of `token`'s sequence, all checked up to the token's own position.
const int32_t* BlocksOf(const BatchView& batch, const KvView& kv, int64_t token) {
  const int64_t sequence = batch.sequence_of_token.As<int32_t>()[token];
  const int64_t position = batch.positions.As<int32_t>()[token];
  CHECK(sequence >= 0 && sequence < batch.sequences)
      << "token " << token << " is of sequence " << sequence << " of " << batch.sequences;
  const int64_t last = position / kv.block_size();
  CHECK(position >= 0 && last < batch.block_table.columns())
      << "position " << position << " with " << batch.block_table.columns() << " blocks of "
      << kv.block_size();
  const int32_t* blocks = batch.block_table.Row<int32_t>(sequence);
  for (int64_t i = 0; i <= last; ++i) {
    CHECK(blocks[i] >= 0 && blocks[i] < kv.keys.rows())
        << "block " << blocks[i] << " of " << kv.keys.rows() << " in sequence " << sequence;
  }
  return blocks;
}

// Half rotation of one head. `from` and `to` may be the same.
template <class T>
void RotateHead(const T* from, const float* cosine, const float* sine, int64_t half, T* to) {
  for (int64_t i = 0; i < half; ++i) {
    const float first = ToFloat(from[i]);
    const float second = ToFloat(from[i + half]);
    to[i] = FromFloat<T>(Rounded<T>(first * cosine[i]) - Rounded<T>(second * sine[i]));
    to[i + half] = FromFloat<T>(Rounded<T>(second * cosine[i]) + Rounded<T>(first * sine[i]));
  }
}

template <class T>
void RopeAndStoreToken(T* qkv, int64_t query_heads, const RopeTable& rope, const BatchView& batch,
                       const KvView& kv, int64_t token) {
  const int64_t position = batch.positions.As<int32_t>()[token];
  const int32_t* blocks = BlocksOf(batch, kv, token);
  CHECK_LT(position, rope.cosine.rows()) << "position beyond the rope table";
  const float* cosine = rope.cosine.Row<float>(position);
  const float* sine = rope.sine.Row<float>(position);
  const int64_t head_dim = kv.head_dim();
  for (int64_t head = 0; head < query_heads; ++head) {
    T* query = qkv + head * head_dim;
    RotateHead(query, cosine, sine, head_dim / 2, query);
  }
  const int64_t block = blocks[position / kv.block_size()];
  const int64_t slot = position % kv.block_size();
  for (int64_t head = 0; head < kv.kv_heads(); ++head) {
    const int64_t offset = (head * kv.block_size() + slot) * head_dim;
    const T* key = qkv + (query_heads + head) * head_dim;
    const T* value = key + kv.kv_heads() * head_dim;
    RotateHead(key, cosine, sine, head_dim / 2, kv.keys.Row<T>(block) + offset);
    std::copy_n(value, head_dim, kv.values.Row<T>(block) + offset);
  }
}

// A softmax-weighted sum that grows tile by tile; everything is relative to the largest logit.
struct RunningSoftmax {
  float maximum = -std::numeric_limits<float>::infinity();
  float total = 0;
  alignas(64) float sums[kMaxHeadDim] = {};
};

// Adds positions [begin, end) to `state`. The query is padded with zeros to whole lanes.
template <class T>
COHORT_CPU_INLINE void AddTile(const float* query, const HeadPages<T>& keys,
                               const HeadPages<T>& values, int64_t begin, int64_t end, float scale,
                               RunningSoftmax& state) {
  float logits[kTilePositions];
  float maximum = state.maximum;
  for (int64_t position = begin; position < end; ++position) {
    float dot[1];
    lanes::Dot<1>(keys.Slot(position), keys.head_dim, query, 0, dot);
    logits[position - begin] = scale * dot[0];
    maximum = std::max(maximum, logits[position - begin]);
  }
  float total = 0;
  alignas(64) float sums[kMaxHeadDim] = {};
  for (int64_t position = begin; position < end; ++position) {
    const float weight = std::exp(logits[position - begin] - maximum);
    total += weight;
    lanes::AddScaled(values.Slot(position), values.head_dim, weight, sums);
  }
  const float shrink = begin == 0 ? 0.0f : std::exp(state.maximum - maximum);
  state.maximum = maximum;
  state.total = state.total * shrink + total;
  for (int64_t k = 0; k < values.head_dim; ++k) {
    state.sums[k] = state.sums[k] * shrink + sums[k];
  }
}

template <class T>
struct AddTiles {
  COHORT_CPU_INLINE static void Run(const float* query, const HeadPages<T>& keys,
                                    const HeadPages<T>& values, int64_t length, float scale,
                                    RunningSoftmax& state) {
    for (int64_t begin = 0; begin < length; begin += kTilePositions) {
      AddTile(query, keys, values, begin, std::min(length, begin + kTilePositions), scale, state);
    }
  }
};

template <class T>
void AttendHead(const T* query, const HeadPages<T>& keys, const HeadPages<T>& values,
                int64_t length, float scale, bool has_avx2, T* out) {
  alignas(64) float wide[kMaxHeadDim] = {};
  std::transform(query, query + keys.head_dim, wide, [](T value) { return ToFloat(value); });
  RunningSoftmax state;
  lanes::Run<AddTiles<T>>(has_avx2, wide, keys, values, length, scale, state);
  for (int64_t k = 0; k < keys.head_dim; ++k) {
    out[k] = FromFloat<T>(state.sums[k] / state.total);
  }
}

}  // namespace

void CpuOps::DoRopeAndStoreKv(TensorView qkv, int64_t query_heads, const RopeTable& rope,
                              const BatchView& batch, const KvView& kv) {
  WithActivationType(qkv.dtype, [&]<class T>() {
    threads_.ParallelFor(qkv.rows(), 8, [&](int64_t begin, int64_t end) {
      for (int64_t token = begin; token < end; ++token) {
        RopeAndStoreToken(qkv.Row<T>(token), query_heads, rope, batch, kv, token);
      }
    });
  });
}

void CpuOps::DoPagedAttention(TensorView queries, absl::Span<const int32_t> kv_head_of_query,
                              const BatchView& batch, const KvView& kv, float scale,
                              TensorView out) {
  const int64_t heads = static_cast<int64_t>(kv_head_of_query.size());
  const int64_t head_dim = kv.head_dim();
  WithActivationType(queries.dtype, [&]<class T>() {
    threads_.ParallelFor(queries.rows() * heads, 1, [&](int64_t begin, int64_t end) {
      for (int64_t item = begin; item < end; ++item) {
        const int64_t token = item / heads;
        const int64_t head = item % heads;
        const int32_t* blocks = BlocksOf(batch, kv, token);
        const int64_t kv_head = kv_head_of_query[static_cast<size_t>(head)];
        AttendHead(queries.Row<T>(token) + head * head_dim, PagesOf<T>(kv.keys, blocks, kv_head),
                   PagesOf<T>(kv.values, blocks, kv_head),
                   batch.positions.As<int32_t>()[token] + int64_t{1}, scale, has_avx2_,
                   out.Row<T>(token) + head * head_dim);
      }
    });
  });
}

}  // namespace cohort
