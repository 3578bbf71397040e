// What the kernels of attention share: views of the batch and of the KV memory, groups of heads,
// the parts of dual chunk attention, shared memory that ldmatrix reads without bank conflicts.
#ifndef COHORT_KERNELS_CUDA_ATTENTION_CUH_H_
#define COHORT_KERNELS_CUDA_ATTENTION_CUH_H_

#include <climits>
#include <cstdint>
#include <cstring>

#include "kernels/cuda/rows.cuh"
#include "kernels/cuda_plugin.h"

namespace cohort::cuda {

inline constexpr int kMaxQueryHeads = 256;

// KvView as a kernel addresses it.
template <class T>
struct PagedKv {
  T* keys;
  T* values;
  int64_t key_block_stride;  // elements between blocks
  int64_t value_block_stride;
  int32_t kv_heads;
  int32_t block_size;
  int32_t head_dim;

  // Elements from the start of a block to the vector of (kv_head, position).
  __device__ int64_t Inside(int32_t kv_head, int32_t position) const {
    return (int64_t{kv_head} * block_size + position % block_size) * head_dim;
  }
  __device__ T* Key(int64_t block, int32_t kv_head, int32_t position) const {
    return keys + block * key_block_stride + Inside(kv_head, position);
  }
  __device__ T* Value(int64_t block, int32_t kv_head, int32_t position) const {
    return values + block * value_block_stride + Inside(kv_head, position);
  }
};

template <class T>
PagedKv<T> PagedKvOf(const CohortCudaKv& kv) {
  return {static_cast<T*>(kv.keys.data),
          static_cast<T*>(kv.values.data),
          kv.keys.row_stride,
          kv.values.row_stride,
          static_cast<int32_t>(kv.keys.dims[1]),
          static_cast<int32_t>(kv.keys.dims[2]),
          static_cast<int32_t>(kv.keys.dims[3])};
}

// BatchView likewise.
struct Batch {
  Rows<const int32_t> positions;
  Rows<const int32_t> sequence_of_token;
  Rows<const int32_t> block_table;
  Rows<const int32_t> rope_rows;
  Rows<const int32_t> first_rows;
  int32_t sequences;
  int32_t leading_decodes;

  __device__ int32_t Position(int64_t token) const { return positions[token][0]; }
  __device__ const int32_t* Blocks(int64_t token) const {
    return block_table[sequence_of_token[token][0]];
  }
};

inline Batch BatchOf(const CohortCudaBatch& batch) {
  return {
      RowsOf<const int32_t>(batch.positions),     RowsOf<const int32_t>(batch.sequence_of_token),
      RowsOf<const int32_t>(batch.block_table),   RowsOf<const int32_t>(batch.rope_rows),
      RowsOf<const int32_t>(batch.first_rows),    static_cast<int32_t>(batch.sequences),
      static_cast<int32_t>(batch.leading_decodes)};
}

// round(round(a * b) + round(c * d)); the intrinsics keep nvcc from fusing product and sum.
template <class T>
__device__ T SumOfRoundedProducts(float a, float b, float c, float d) {
  return FromFloat<T>(__fadd_rn(Rounded<T>(__fmul_rn(a, b)), Rounded<T>(__fmul_rn(c, d))));
}

// DualChunks as a kernel reads it, `length` 0 for plain attention. The keys of a query fall into
// three parts, each with another rotation of the query: chunks before the last (0), the chunk
// before (1), the query's own (2).
inline constexpr int kKeyParts = 3;
struct Chunks {
  Rows<const float> cosine;
  Rows<const float> sine;
  Rows<const float> logit_factors;
  int32_t length;
  int32_t last_row;  // of the table of rotations

  __device__ int32_t ChunkBegin(int32_t position) const { return position - position % length; }
  // Where `part` of a query in the chunk that begins at `chunk` ends, if it does so before the
  // query; it begins where the part before ends.
  __device__ int32_t PartEnd(int part, int32_t chunk) const {
    const int32_t end = part == 0 ? chunk - length : part == 1 ? chunk : INT_MAX;
    return end > 0 ? end : 0;
  }
  // The row of the table that rotates the query at `position` for the keys of `part`.
  __device__ int32_t RopeRow(int part, int32_t position) const {
    const int32_t row = position % length;
    if (part == 2) {
      return row;
    }
    return part == 0 || row > last_row - length ? last_row : row + length;
  }
};

inline Chunks ChunksOf(const CohortCudaDualChunks* chunks, const CohortCudaBatch& batch) {
  if (chunks == nullptr) {
    return {};
  }
  const int64_t length = chunks->chunk_length < INT_MAX ? chunks->chunk_length : INT_MAX;
  return {RowsOf<const float>(chunks->rope.cosine), RowsOf<const float>(chunks->rope.sine),
          RowsOf<const float>(batch.logit_factors), static_cast<int32_t>(length),
          static_cast<int32_t>(chunks->rope.cosine.dims[0] - 1)};
}

// Up to kGroupHeads consecutive query heads that share a KV head: they read keys and values once.
inline constexpr int kGroupHeads = 8;
struct HeadGroup {
  int16_t kv_head;
  uint8_t first;
  uint8_t count;
};
// Passed by value: lives in the kernel's parameters, so a launch needs no copy.
struct HeadGroups {
  HeadGroup item[kMaxQueryHeads];
};

// Returns how many groups there are. (attention.cu)
int GroupHeads(const int32_t* kv_head_of_query, int64_t query_heads, HeadGroups* groups);

// What the kernels on tensor cores are given.
struct TensorCoreAttention {
  Rows<const BFloat16> queries;
  Rows<BFloat16> out;
  PagedKv<const BFloat16> kv;
  Batch batch;
  Chunks chunks;
  float scale;
  HeadGroups groups;
};

inline constexpr float kLog2E = 1.44269504f;

// Two numbers rounded to bf16, the first in the low half.
__device__ inline uint32_t PackBFloat16(float low, float high) {
  const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
  uint32_t bits;
  memcpy(&bits, &pair, sizeof(bits));
  return bits;
}
__device__ inline float LowFloat(uint32_t pair) { return __uint_as_float(pair << 16); }
__device__ inline float HighFloat(uint32_t pair) { return __uint_as_float(pair & 0xffff0000u); }

// Rotates two pairs of neighbouring elements, each as RopeAndStoreKv would: the first elements of
// the pairs lie in `first`, the second in `second`.
__device__ inline void RotatePair(uint32_t* first, uint32_t* second, const float* cosine,
                                  const float* sine) {
  const float x[2] = {LowFloat(*first), HighFloat(*first)};
  const float y[2] = {LowFloat(*second), HighFloat(*second)};
  BFloat16 low[2];
  BFloat16 high[2];
#pragma unroll
  for (int k = 0; k < 2; ++k) {
    low[k] = SumOfRoundedProducts<BFloat16>(x[k], cosine[k], -y[k], sine[k]);
    high[k] = SumOfRoundedProducts<BFloat16>(y[k], cosine[k], x[k], sine[k]);
  }
  *first = PackBFloat16(ToFloat(low[0]), ToFloat(low[1]));
  *second = PackBFloat16(ToFloat(high[0]), ToFloat(high[1]));
}

// Rows of kHeadDim bf16 in shared memory. Chunks of 16 bytes are permuted inside a row by its
// number, so that the eight rows that one ldmatrix reads lie in different banks.
template <int kHeadDim>
struct SwizzledTile {
  static constexpr int kChunks = kHeadDim / 8;
  static constexpr int kRowBytes = kHeadDim * 2;
  unsigned char* data;

  __device__ unsigned char* Chunk(int row, int chunk) const {
    return data + row * kRowBytes + ((chunk ^ (row & 7)) << 4);
  }
};

}  // namespace cohort::cuda

#endif  // COHORT_KERNELS_CUDA_ATTENTION_CUH_H_
