// What the kernels on rows of logits share: reading a row, keys that order its logits, sums and
// selections of a block. Everything is exact and independent of the order of threads.
#ifndef COHORT_KERNELS_CUDA_CANDIDATES_CUH_H_
#define COHORT_KERNELS_CUDA_CANDIDATES_CUH_H_

#include <cmath>

#include "kernels/cuda/candidates.h"
#include "kernels/cuda/ptx.cuh"
#include "kernels/mass_rule.h"

namespace cohort::cuda {

inline constexpr unsigned kAllLanes = 0xffffffffu;

// Unique per index, ascending with the logit and, among equal logits, descending with the index. 0
// for minus infinity, which is never chosen. Not of NaN.
__device__ inline Word KeyOf(float logit, int32_t index) {
  const uint32_t bits = __float_as_uint(logit == 0 ? 0.0f : logit);  // -0 equals 0
  const uint32_t ordered = (bits & 0x80000000u) != 0 ? ~bits : bits | 0x80000000u;
  return logit == -INFINITY ? 0 : (Word{ordered} << 32) | ~static_cast<uint32_t>(index);
}
__device__ inline int32_t IndexOf(Word key) {
  return static_cast<int32_t>(~static_cast<uint32_t>(key));
}
__device__ inline float LogitOf(Word key) {
  const uint32_t ordered = static_cast<uint32_t>(key >> 32);
  return __uint_as_float((ordered & 0x80000000u) != 0 ? ordered & 0x7fffffffu : ~ordered);
}

struct Four {
  float at[4];
};

// The logits of a row that may be chosen; minus infinity for all others.
struct RowReader {
  const float* logits;
  const uint32_t* mask;  // null: all
  int32_t columns;       // valid ones

  __device__ bool Allows(int32_t column) const {
    return mask == nullptr || (mask[column / 32] >> (column % 32) & 1u) != 0;
  }
  __device__ float operator[](int32_t column) const {
    return column < columns && Allows(column) ? logits[column] : -INFINITY;
  }
  // Four neighbours from a multiple of four on.
  __device__ Four Load(int32_t column) const {
    Four four;
    if (column + 4 <= columns && reinterpret_cast<uintptr_t>(logits) % 16 == 0) {
      const float4 packed = *reinterpret_cast<const float4*>(logits + column);
      four = {packed.x, packed.y, packed.z, packed.w};
      if (mask != nullptr) {
        for (int i = 0; i < 4; ++i) {
          four.at[i] = Allows(column + i) ? four.at[i] : -INFINITY;
        }
      }
      return four;
    }
    for (int i = 0; i < 4; ++i) {
      four.at[i] = (*this)[column + i];
    }
    return four;
  }
};

__device__ inline RowReader ReaderOf(const Rows<const float>& logits, const RowRequest& request,
                                     const SamplingScratch& scratch, int32_t valid_columns) {
  return {logits[request.row],
          request.first_mask < 0 ? nullptr : scratch.masks + request.first_mask, valid_columns};
}

// Of a thread in a block that goes over kBlockColumns: half h (0 or 1) of its columns. Eight
// neighbouring threads own one stretch, and a warp reads whole sectors.
__device__ inline int32_t ColumnOfHalf(int half) {
  const int thread = static_cast<int>(threadIdx.x);
  return static_cast<int32_t>(blockIdx.x) * kBlockColumns + thread / 8 * kStretch + half * 32 +
         thread % 8 * 4;
}

__device__ inline Word WarpSumOfWords(Word value) {
  for (int offset = 16; offset > 0; offset /= 2) {
    value += __shfl_xor_sync(kAllLanes, value, offset);
  }
  return value;
}

// The sums of a block of whole warps: over all its threads, and over those before this one.
struct BlockSums {
  Word before;
  Word total;
};
__device__ inline BlockSums SumOverBlock(Word value) {
  __shared__ Word of_warp[32];
  const unsigned lane = threadIdx.x % 32;
  const unsigned warp = threadIdx.x / 32;
  Word up_to = value;
  for (unsigned offset = 1; offset < 32; offset *= 2) {
    const Word other = __shfl_up_sync(kAllLanes, up_to, offset);
    up_to += lane >= offset ? other : 0;
  }
  __syncthreads();  // of_warp may still be read from the call before
  if (lane == 31) {
    of_warp[warp] = up_to;
  }
  __syncthreads();
  BlockSums sums = {up_to - value, 0};
  for (unsigned i = 0; i < blockDim.x / 32; ++i) {
    sums.before += i < warp ? of_warp[i] : 0;
    sums.total += of_warp[i];
  }
  return sums;
}

// Whether this block is the last of its row (blockIdx.y) to come here. What all threads of the
// others wrote before is then visible to all threads of this one. No block waits for another.
__device__ inline bool IsLastOfRow(RowState* state) {
  __shared__ bool is_last;
  __syncthreads();
  if (threadIdx.x == 0) {
    is_last = FetchAddAcquireRelease(&state->arrived, 1) == gridDim.x - 1;
  }
  __syncthreads();
  return is_last;
}

// A bin of a histogram of 256 that ascends: the one in which the bins' sum from the last one down
// reaches a wanted one.
template <class T>
struct Bin {
  unsigned digit;
  T above;   // the sum of the bins above it
  T inside;  // and its own
};
// By the first warp. Each lane adds up eight bins, the first lane the highest; the sum of all
// reaches `wanted`, which is above 0.
template <class T>
__device__ void FindBin(const T* histogram, T wanted, Bin<T>* found) {
  const unsigned top = 255 - 8 * threadIdx.x;
  T sum = 0;
  for (unsigned i = 0; i < 8; ++i) {
    sum += histogram[top - i];
  }
  T up_to = sum;
  for (unsigned offset = 1; offset < 32; offset *= 2) {
    const T other = __shfl_up_sync(kAllLanes, up_to, offset);
    up_to += threadIdx.x >= offset ? other : 0;
  }
  T above = up_to - sum;
  if (above < wanted && wanted <= up_to) {
    unsigned digit = top;
    while (above + histogram[digit] < wanted) {
      above += histogram[digit--];
    }
    *found = {digit, above, histogram[digit]};
  }
}

// A key from which on lie min(wanted, all) of the keys that the block holds in registers; they are
// distinct but for 0, which is none. A radix selection from the first bit on in which they differ:
// a histogram of eight bits tells in which of its bins the wanted key lies, until a bin ends there.
template <int kKeys>
__device__ Word BoundOfLargest(const Word (&keys)[kKeys], unsigned wanted) {
  __shared__ unsigned histogram[256];
  __shared__ Bin<unsigned> bin;
  __shared__ Word largest;
  __shared__ Word smallest;
  __shared__ unsigned present;
  __syncthreads();  // all of them may still be read from the call before
  if (threadIdx.x == 0) {
    largest = 0;
    smallest = ~Word{0};
    present = 0;
  }
  __syncthreads();
  Word high = 0;
  Word low = ~Word{0};
  unsigned mine = 0;
#pragma unroll
  for (int i = 0; i < kKeys; ++i) {
    high = keys[i] > high ? keys[i] : high;
    low = keys[i] != 0 && keys[i] < low ? keys[i] : low;
    mine += keys[i] != 0;
  }
  if (mine > 0) {
    atomicMax(&largest, high);
    atomicMin(&smallest, low);
    atomicAdd(&present, mine);
  }
  __syncthreads();
  if (present <= wanted) {
    return 1;
  }
  int shift = 64 - __clzll(static_cast<long long>(largest ^ smallest));
  Word prefix = shift == 64 ? 0 : largest >> shift;
  while (true) {
    const int end = shift;
    const int width = min(8, shift);
    shift -= width;
    if (threadIdx.x < 256) {
      histogram[threadIdx.x] = 0;
    }
    __syncthreads();
#pragma unroll
    for (int i = 0; i < kKeys; ++i) {
      if (keys[i] != 0 && (end == 64 ? 0 : keys[i] >> end) == prefix) {
        atomicAdd(&histogram[keys[i] >> shift & ((1u << width) - 1)], 1u);
      }
    }
    __syncthreads();
    if (threadIdx.x < 32) {
      FindBin(histogram, wanted, &bin);
    }
    __syncthreads();
    prefix = prefix << width | bin.digit;
    wanted -= bin.above;
    if (bin.inside == wanted || shift == 0) {
      return prefix << shift;
    }
  }
}

}  // namespace cohort::cuda

#endif  // COHORT_KERNELS_CUDA_CANDIDATES_CUH_H_
