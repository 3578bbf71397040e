// Attention for every shape and dtype that the kernels on tensor cores do not take, and the plain
// twin that they are compared with. One block computes one (token, query head): warp w takes the
// positions w, w + 8, ... of each part (Chunks), a lane the dimensions l, l + 32, ...; then the
// warps are merged in order. Every sum depends on the position only, never on the batch.
#include <climits>
#include <cmath>

#include "kernels/cuda/attention.cuh"
#include "kernels/cuda/attention.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/ptx.cuh"

namespace cohort::cuda {
namespace {

constexpr int kMaxHeadDim = 256;
constexpr int kWarps = 8;
constexpr int kPerLane = kMaxHeadDim / 32;

// Passed by value: lives in the kernel's parameters, so a launch needs no copy.
struct HeadMap {
  int16_t kv_head[kMaxQueryHeads];
};

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

// LoadLanes of the vector as RopeAndStoreKv rotates it.
template <class T>
__device__ LaneVector LoadRotatedLanes(const T* vector, const float* cosine, const float* sine,
                                       int head_dim, int lane) {
  LaneVector lanes;
  const int half = head_dim / 2;
#pragma unroll
  for (int i = 0; i < kPerLane; ++i) {
    const int k = lane + 32 * i;
    if (k < head_dim) {
      const int pair = k < half ? k : k - half;
      const float partner = ToFloat(vector[k < half ? k + half : pair]);
      lanes.item[i] = ToFloat(SumOfRoundedProducts<T>(ToFloat(vector[k]), cosine[pair],
                                                      k < half ? -partner : partner, sine[pair]));
    }
  }
  return lanes;
}

// Takes one more key into the running softmax and the weighted sum of values.
__device__ void TakeKey(const LaneVector& query, const LaneVector& key, const LaneVector& value,
                        float scale, PartialSoftmax* softmax, LaneVector* weighted) {
  float dot = 0;
#pragma unroll
  for (int i = 0; i < kPerLane; ++i) {
    dot = fmaf(query.item[i], key.item[i], dot);
  }
  const float logit = __fmul_rn(scale, WarpSum(dot));
  const float maximum = fmaxf(softmax->maximum, logit);
  const float keep = expf(softmax->maximum - maximum);
  const float weight = expf(logit - maximum);
  *softmax = {maximum, fmaf(softmax->sum, keep, weight)};
#pragma unroll
  for (int i = 0; i < kPerLane; ++i) {
    weighted->item[i] = fmaf(weighted->item[i], keep, __fmul_rn(weight, value.item[i]));
  }
}

// What the warps of a block have seen.
struct Partials {
  PartialSoftmax softmax[kWarps];
  float weighted[kWarps][kMaxHeadDim];
};

// Adds up the warps in order; a thread writes the dimensions threadIdx.x, threadIdx.x + 256, ... A
// warp without keys has maximum -inf and so the factor 0; one always has some.
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
  for (int d = static_cast<int>(threadIdx.x); d < head_dim; d += kWarps * 32) {
    float total = 0;
    for (int warp = 0; warp < kWarps; ++warp) {
      total += partials.weighted[warp][d] * expf(partials.softmax[warp].maximum - maximum);
    }
    out[d] = FromFloat<T>(total / sum);
  }
}

template <class T>
struct PlainArguments {
  Rows<const T> queries;
  Rows<T> out;
  HeadMap heads;
  Batch batch;
  PagedKv<const T> kv;
  Chunks chunks;
  float scale;
};

// This warp's keys among the positions [begin, end).
template <class T>
__device__ void TakeKeys(const PlainArguments<T>& a, const LaneVector& query, float scale,
                         int32_t begin, int32_t end, PartialSoftmax* softmax,
                         LaneVector* weighted) {
  const int32_t kv_head = a.heads.kv_head[blockIdx.y];
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int head_dim = a.kv.head_dim;
  const int32_t* blocks = a.batch.Blocks(blockIdx.x);
  const int32_t warp = static_cast<int32_t>(threadIdx.x) / 32;
  for (int32_t position = begin + warp; position < end; position += kWarps) {
    const int64_t block = blocks[position / a.kv.block_size];
    const LaneVector key = LoadLanes(a.kv.Key(block, kv_head, position), head_dim, lane);
    const LaneVector value = LoadLanes(a.kv.Value(block, kv_head, position), head_dim, lane);
    TakeKey(query, key, value, scale, softmax, weighted);
  }
}

template <class T>
__global__ void PlainAttentionKernel(PlainArguments<T> a) {
  __shared__ Partials partials;
  WaitForPredecessor();
  const int64_t token = blockIdx.x;
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int head_dim = a.kv.head_dim;
  const T* vector = a.queries[token] + int64_t{blockIdx.y} * head_dim;
  const int32_t position = a.batch.Position(token);

  PartialSoftmax softmax;
  LaneVector weighted;
  if (a.chunks.length == 0) {
    TakeKeys(a, LoadLanes(vector, head_dim, lane), a.scale, 0, position + 1, &softmax, &weighted);
  } else {
    const float scale = __fmul_rn(a.scale, a.chunks.logit_factors[token][0]);
    int32_t begin = 0;
    for (int part = 0; part < kKeyParts; ++part) {
      const int32_t end = min(a.chunks.PartEnd(part, a.chunks.ChunkBegin(position)), position + 1);
      const int64_t row = a.chunks.RopeRow(part, position);
      const LaneVector query =
          LoadRotatedLanes(vector, a.chunks.cosine[row], a.chunks.sine[row], head_dim, lane);
      TakeKeys(a, query, scale, begin, end, &softmax, &weighted);
      begin = end;
    }
  }
  if (lane == 0) {
    partials.softmax[warp] = softmax;
  }
#pragma unroll
  for (int i = 0; i < kPerLane; ++i) {
    partials.weighted[warp][lane + 32 * i] = weighted.item[i];
  }
  __syncthreads();
  MergeWarps(partials, head_dim, a.out[token] + int64_t{blockIdx.y} * head_dim);
}

}  // namespace

void PlainAttention(CohortCudaDevice* device, const AttentionCall& call) {
  HeadMap heads{};
  for (int64_t head = 0; head < call.query_heads; ++head) {
    heads.kv_head[head] = static_cast<int16_t>(call.kv_head_of_query[head]);
  }
  const LaunchShape shape = {.grid = dim3(static_cast<unsigned>(call.batch->tokens),
                                          static_cast<unsigned>(call.query_heads)),
                             .block = kWarps * 32,
                             .programmatic = true};
  WithActivation(call.queries->dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    const PlainArguments<T> arguments = {RowsOf<const T>(*call.queries),
                                         RowsOf<T>(*call.out),
                                         heads,
                                         BatchOf(*call.batch),
                                         PagedKvOf<const T>(*call.kv),
                                         ChunksOf(call.chunks, *call.batch),
                                         call.scale};
    Launch(device, "PlainAttention", shape, PlainAttentionKernel<T>, arguments);
  });
}

}  // namespace cohort::cuda
