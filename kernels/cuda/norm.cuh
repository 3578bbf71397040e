// RMS norm of packs of a row: what norm.cu and the persistent step share.
#ifndef COHORT_KERNELS_CUDA_NORM_CUH_H_
#define COHORT_KERNELS_CUDA_NORM_CUH_H_

#include <cstdint>

#include "kernels/cuda/rows.cuh"

namespace cohort::cuda {

// values = round(values + round(added))
template <class T, class X, int kVec>
__device__ void AddRounded(Pack<T, kVec>* values, const Pack<X, kVec>& added) {
#pragma unroll
  for (int i = 0; i < kVec; ++i) {
    values->item[i] = FromFloat<T>(ToFloat(values->item[i]) + Rounded<T>(ToFloat(added.item[i])));
  }
}

template <class T, int kVec>
__device__ void AddSquares(const Pack<T, kVec>& values, float* sum) {
#pragma unroll
  for (int i = 0; i < kVec; ++i) {
    const float value = ToFloat(values.item[i]);
    *sum += value * value;
  }
}

__device__ inline float NormScale(float sum_of_squares, float eps, int64_t columns) {
  return 1.0f / sqrtf(sum_of_squares / static_cast<float>(columns) + eps);
}

// round(round(values * scale) * gamma)
template <class T, int kVec>
__device__ Pack<T, kVec> NormedPack(const Pack<T, kVec>& values, const Pack<T, kVec>& gamma,
                                    float scale) {
  Pack<T, kVec> result;
#pragma unroll
  for (int i = 0; i < kVec; ++i) {
    result.item[i] =
        FromFloat<T>(Rounded<T>(ToFloat(values.item[i]) * scale) * ToFloat(gamma.item[i]));
  }
  return result;
}

}  // namespace cohort::cuda

#endif  // COHORT_KERNELS_CUDA_NORM_CUH_H_
