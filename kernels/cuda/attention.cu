// Rope with the store into the paged KV memory, and attention over it.
#include <climits>
#include <cmath>

#include "kernels/cuda/device.h"
#include "kernels/cuda/entries.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/rows.cuh"

namespace cohort::cuda {
namespace {

constexpr int kMaxHeadDim = 256;
constexpr int kMaxQueryHeads = 256;

// KvView as a kernel addresses it.
template <class T>
struct PagedKv {
  T* keys;
  T* values;
  int64_t key_block_stride;  // elements between blocks
  int64_t value_block_stride;
  int64_t kv_heads;
  int64_t block_size;
  int64_t head_dim;

  // Elements from the start of a block to the vector of (kv_head, position).
  __device__ int64_t Inside(int64_t kv_head, int64_t position) const {
    return (kv_head * block_size + position % block_size) * head_dim;
  }
  __device__ T* Key(int64_t block, int64_t kv_head, int64_t position) const {
    return keys + block * key_block_stride + Inside(kv_head, position);
  }
  __device__ T* Value(int64_t block, int64_t kv_head, int64_t position) const {
    return values + block * value_block_stride + Inside(kv_head, position);
  }
};

template <class T>
PagedKv<T> PagedKvOf(const CohortCudaKv& kv) {
  return {static_cast<T*>(kv.keys.data),
          static_cast<T*>(kv.values.data),
          kv.keys.row_stride,
          kv.values.row_stride,
          kv.keys.dims[1],
          kv.keys.dims[2],
          kv.keys.dims[3]};
}

// BatchView likewise.
struct Batch {
  Rows<const int32_t> positions;
  Rows<const int32_t> sequence_of_token;
  Rows<const int32_t> block_table;
  Rows<const int32_t> rope_rows;

  __device__ int64_t Position(int64_t token) const { return positions[token][0]; }
  __device__ const int32_t* Blocks(int64_t token) const {
    return block_table[sequence_of_token[token][0]];
  }
};

Batch BatchOf(const CohortCudaBatch& batch) {
  return {RowsOf<const int32_t>(batch.positions), RowsOf<const int32_t>(batch.sequence_of_token),
          RowsOf<const int32_t>(batch.block_table), RowsOf<const int32_t>(batch.rope_rows)};
}

// round(round(a * b) + round(c * d)); the intrinsics keep nvcc from fusing product and sum.
template <class T>
__device__ T SumOfRoundedProducts(float a, float b, float c, float d) {
  return FromFloat<T>(__fadd_rn(Rounded<T>(__fmul_rn(a, b)), Rounded<T>(__fmul_rn(c, d))));
}

constexpr int kRopeThreads = 256;

// One block handles one token; one thread the pair (i, i + head_dim / 2) of one head. Heads are
// numbered as they lie in the row: queries, keys, values.
template <class T>
__global__ void RopeAndStoreKvKernel(Rows<T> qkv, int64_t query_heads, Rows<const float> cosine,
                                     Rows<const float> sine, Batch batch, PagedKv<T> kv) {
  const int64_t token = blockIdx.x;
  const int64_t position = batch.Position(token);
  const int64_t block = batch.Blocks(token)[position / kv.block_size];
  const int64_t rope_row = batch.rope_rows[token][0];
  const int64_t half = kv.head_dim / 2;
  const int64_t pairs = (query_heads + 2 * kv.kv_heads) * half;
  for (int64_t pair = threadIdx.x; pair < pairs; pair += kRopeThreads) {
    const int64_t head = pair / half;
    const int64_t i = pair % half;
    T* source = qkv[token] + head * kv.head_dim;
    if (head >= query_heads + kv.kv_heads) {
      T* value = kv.Value(block, head - query_heads - kv.kv_heads, position);
      value[i] = source[i];
      value[i + half] = source[i + half];
      continue;
    }
    const float first = ToFloat(source[i]);
    const float second = ToFloat(source[i + half]);
    const float c = cosine[rope_row][i];
    const float s = sine[rope_row][i];
    T* rotated = head < query_heads ? source : kv.Key(block, head - query_heads, position);
    rotated[i] = SumOfRoundedProducts<T>(first, c, -second, s);
    rotated[i + half] = SumOfRoundedProducts<T>(second, c, first, s);
  }
}

// Passed by value: lives in the kernel's parameters, so a launch needs no copy.
struct HeadMap {
  int16_t kv_head[kMaxQueryHeads];
};

constexpr int kAttentionWarps = 8;
constexpr int kPerLane = kMaxHeadDim / 32;

// The softmax over some of the keys, not yet divided.
struct PartialSoftmax {
  float maximum = -INFINITY;
  float sum = 0;  // of exp(logit - maximum)
};

// A head's vector cut over a warp: lane l holds the dimensions l, l + 32, ...
struct LaneVector {
  float item[kPerLane] = {};
};

template <class T>
__device__ LaneVector LoadLanes(const T* vector, int head_dim, int lane) {
  LaneVector lanes;
#pragma unroll
  for (int i = 0; i < kPerLane; ++i) {
    lanes.item[i] = lane + 32 * i < head_dim ? ToFloat(vector[lane + 32 * i]) : 0.0f;
  }
  return lanes;
}

// Takes one more key into the running softmax and the weighted sum of values.
__device__ void TakeKey(const LaneVector& query, const LaneVector& key, const LaneVector& value,
                        float scale, PartialSoftmax* softmax, LaneVector* weighted) {
  float dot = 0;
#pragma unroll
  for (int i = 0; i < kPerLane; ++i) {
    dot += query.item[i] * key.item[i];
  }
  const float logit = scale * WarpSum(dot);
  const float maximum = fmaxf(softmax->maximum, logit);
  const float keep = expf(softmax->maximum - maximum);
  const float weight = expf(logit - maximum);
  *softmax = {maximum, softmax->sum * keep + weight};
#pragma unroll
  for (int i = 0; i < kPerLane; ++i) {
    weighted->item[i] = weighted->item[i] * keep + weight * value.item[i];
  }
}

// What the warps of a block have seen.
struct Partials {
  PartialSoftmax softmax[kAttentionWarps];
  float weighted[kAttentionWarps][kMaxHeadDim];
};

// Adds up the warps in order; a thread writes the dimensions threadIdx.x, threadIdx.x + 256, ... A
// warp without keys has maximum -inf and so the factor 0; warp 0 always has one.
template <class T>
__device__ void MergeWarps(const Partials& partials, int head_dim, T* out) {
  float maximum = -INFINITY;
  for (const PartialSoftmax& part : partials.softmax) {
    maximum = fmaxf(maximum, part.maximum);
  }
  float sum = 0;
  for (const PartialSoftmax& part : partials.softmax) {
    sum += part.sum * expf(part.maximum - maximum);
  }
  for (int d = static_cast<int>(threadIdx.x); d < head_dim; d += kAttentionWarps * 32) {
    float total = 0;
    for (int warp = 0; warp < kAttentionWarps; ++warp) {
      total += partials.weighted[warp][d] * expf(partials.softmax[warp].maximum - maximum);
    }
    out[d] = FromFloat<T>(total / sum);
  }
}

// One block computes one (token, query head): warp w takes the positions w, w + 8, ..., then the
// warps are merged. The order of every sum depends on the position only, never on the batch.
template <class T>
__global__ void PagedAttentionKernel(Rows<const T> queries, HeadMap heads, Batch batch,
                                     PagedKv<const T> kv, float scale, Rows<T> out) {
  __shared__ Partials partials;
  const int64_t token = blockIdx.x;
  const int64_t head = blockIdx.y;
  const int64_t kv_head = heads.kv_head[head];
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int head_dim = static_cast<int>(kv.head_dim);
  const int64_t keys = batch.Position(token) + 1;
  const int32_t* blocks = batch.Blocks(token);

  const LaneVector query = LoadLanes(queries[token] + head * head_dim, head_dim, lane);
  PartialSoftmax softmax;
  LaneVector weighted;
  for (int64_t position = warp; position < keys; position += kAttentionWarps) {
    const int64_t block = blocks[position / kv.block_size];
    const LaneVector key = LoadLanes(kv.Key(block, kv_head, position), head_dim, lane);
    const LaneVector value = LoadLanes(kv.Value(block, kv_head, position), head_dim, lane);
    TakeKey(query, key, value, scale, &softmax, &weighted);
  }
  if (lane == 0) {
    partials.softmax[warp] = softmax;
  }
#pragma unroll
  for (int i = 0; i < kPerLane; ++i) {
    partials.weighted[warp][lane + 32 * i] = weighted.item[i];
  }
  __syncthreads();
  MergeWarps(partials, head_dim, out[token] + head * head_dim);
}

}  // namespace

void RopeAndStoreKv(CohortCudaDevice* device, const CohortCudaTensor* qkv, int64_t query_heads,
                    const CohortCudaRope* rope, const CohortCudaBatch* batch,
                    const CohortCudaKv* kv) noexcept {
  if (batch->tokens == 0 || qkv->dims[1] == 0) {
    return;
  }
  Activate(device);
  WithActivation(qkv->dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    Launch(device, "RopeAndStoreKv", {static_cast<unsigned>(batch->tokens), kRopeThreads},
           RopeAndStoreKvKernel<T>, RowsOf<T>(*qkv), query_heads, RowsOf<const float>(rope->cosine),
           RowsOf<const float>(rope->sine), BatchOf(*batch), PagedKvOf<T>(*kv));
  });
}

void PagedAttention(CohortCudaDevice* device, const CohortCudaTensor* queries,
                    const int32_t* kv_head_of_query, int64_t query_heads,
                    const CohortCudaBatch* batch, const CohortCudaKv* kv, float scale,
                    const CohortCudaTensor* out) noexcept {
  if (batch->tokens == 0 || query_heads == 0) {
    return;
  }
  const int64_t head_dim = kv->keys.dims[3];
  if (query_heads > kMaxQueryHeads || head_dim > kMaxHeadDim || kv->keys.dims[1] > SHRT_MAX) {
    Stick(device, MakeError(kCohortCudaInvalidArgument,
                            "PagedAttention: %lld query heads of size %lld, at most %d of %d are "
                            "supported on one CUDA rank",
                            static_cast<long long>(query_heads), static_cast<long long>(head_dim),
                            kMaxQueryHeads, kMaxHeadDim));
    return;
  }
  HeadMap heads{};
  for (int64_t head = 0; head < query_heads; ++head) {
    heads.kv_head[head] = static_cast<int16_t>(kv_head_of_query[head]);
  }
  Activate(device);
  const dim3 grid(static_cast<unsigned>(batch->tokens), static_cast<unsigned>(query_heads));
  WithActivation(queries->dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    Launch(device, "PagedAttention", {grid, kAttentionWarps * 32}, PagedAttentionKernel<T>,
           RowsOf<const T>(*queries), heads, BatchOf(*batch), PagedKvOf<const T>(*kv), scale,
           RowsOf<T>(*out));
  });
}

}  // namespace cohort::cuda
