// What the kernels share: rows of tensors, conversions, packs, sums over a block.
#ifndef COHORT_KERNELS_CUDA_ROWS_CUH_H_
#define COHORT_KERNELS_CUDA_ROWS_CUH_H_

#include <cuda_bf16.h>

#include <cmath>
#include <cstdint>
#include <initializer_list>

#include "kernels/cuda_plugin.h"

namespace cohort::cuda {

using BFloat16 = __nv_bfloat16;

// A matrix whose rows are `stride` elements apart.
template <class T>
struct Rows {
  T* data;
  int64_t stride;
  __device__ T* operator[](int64_t row) const { return data + row * stride; }
};

template <class T>
Rows<T> RowsOf(const CohortCudaTensor& tensor) {
  return {static_cast<T*>(tensor.data), tensor.row_stride};
}

__device__ inline float ToFloat(float value) { return value; }
__device__ inline float ToFloat(BFloat16 value) { return __bfloat162float(value); }

template <class T>
__device__ T FromFloat(float value);
template <>
__device__ inline float FromFloat<float>(float value) {
  return value;
}
template <>
__device__ inline BFloat16 FromFloat<BFloat16>(float value) {
  return __float2bfloat16_rn(value);
}

// `value` as it reads back after being stored as T.
template <class T>
__device__ float Rounded(float value) {
  return ToFloat(FromFloat<T>(value));
}

// round(round(silu(gate)) * up).
template <class T>
__device__ T SiluTimes(float gate, float up) {
  return FromFloat<T>(Rounded<T>(gate / (1.0f + expf(-gate))) * up);
}

// kVec neighbours, loaded and stored at once (16 bytes at most per access).
template <class T, int kVec>
struct alignas(sizeof(T) * kVec < 16 ? sizeof(T) * kVec : 16) Pack {
  T item[kVec];
};
template <int kVec, class T>
__device__ Pack<T, kVec> LoadPack(const T* source) {
  return *reinterpret_cast<const Pack<T, kVec>*>(source);
}
template <int kVec, class T>
__device__ void StorePack(T* destination, const Pack<T, kVec>& pack) {
  *reinterpret_cast<Pack<T, kVec>*>(destination) = pack;
}

// The sum over a warp, the same bits in every lane.
__device__ inline float WarpSum(float value) {
  for (int offset = 16; offset > 0; offset /= 2) {
    value += __shfl_xor_sync(0xffffffffu, value, offset);
  }
  return value;
}

// The sum over a block of whole warps, in every thread. A fixed tree: the same bits every time.
__device__ inline float BlockSum(float value) {
  __shared__ float of_warp[32];
  const int warps = static_cast<int>(blockDim.x) / 32;
  value = WarpSum(value);
  __syncthreads();  // of_warp may still be read from the call before
  if (threadIdx.x % 32 == 0) {
    of_warp[threadIdx.x / 32] = value;
  }
  __syncthreads();
  const int lane = static_cast<int>(threadIdx.x) % 32;
  return WarpSum(lane < warps ? of_warp[lane] : 0.0f);
}

// Whether rows of these matrices may be cut into packs of `vec` elements: columns a multiple of
// `vec`, every row 16-byte aligned.
inline bool CutsIntoPacks(int64_t columns, int vec,
                          std::initializer_list<const CohortCudaTensor*> tensors) {
  if (columns % vec != 0) {
    return false;
  }
  for (const CohortCudaTensor* tensor : tensors) {
    if (tensor->row_stride % vec != 0 || reinterpret_cast<uintptr_t>(tensor->data) % 16 != 0) {
      return false;
    }
  }
  return true;
}

// Kernels of so few rows are launched programmatically. Beyond, nothing is won by it, and a
// successor that only waits would take room on the multiprocessors.
inline constexpr int64_t kProgrammaticRows = 64;

template <class T>
struct TypeTag {
  using type = T;
};

// Calls function(TypeTag<T>{}) with the C++ type of an activation dtype.
template <class Function>
void WithActivation(int32_t dtype, Function function) {
  if (dtype == kCohortCudaBF16) {
    function(TypeTag<BFloat16>{});
  } else {
    function(TypeTag<float>{});
  }
}

}  // namespace cohort::cuda

#endif  // COHORT_KERNELS_CUDA_ROWS_CUH_H_
