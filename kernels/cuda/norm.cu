// RMS norm, alone and after a residual addition. One block computes one row; each thread strides
// over it by packs of kVec elements and meets the same elements in both passes, so what it wrote in
// the first it may read in the second without a barrier.
#include "kernels/cuda/device.h"
#include "kernels/cuda/entries.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/norm.cuh"
#include "kernels/cuda/ptx.cuh"
#include "kernels/cuda/rows.cuh"

namespace cohort::cuda {
namespace {

// Fixed, so that the order of a row's sum depends on its length only.
constexpr int kThreads = 256;

// out = round(round(x * scale) * gamma) with scale = 1 / sqrt(sum_of_squares / columns + eps).
template <class T, int kVec>
__device__ void NormaliseRow(const T* x, const T* gamma, float sum_of_squares, float eps,
                             int64_t columns, T* out) {
  const float scale = NormScale(sum_of_squares, eps, columns);
  for (int64_t column = threadIdx.x * kVec; column < columns; column += kThreads * kVec) {
    StorePack<kVec>(out + column,
                    NormedPack(LoadPack<kVec>(x + column), LoadPack<kVec>(gamma + column), scale));
  }
}

template <class T, int kVec>
__global__ void RmsNormKernel(Rows<const T> x, const T* gamma, float eps, int64_t columns,
                              Rows<T> out) {
  LaunchSuccessor();
  WaitForPredecessor();
  const T* row = x[blockIdx.x];
  float sum = 0;
  for (int64_t column = threadIdx.x * kVec; column < columns; column += kThreads * kVec) {
    AddSquares(LoadPack<kVec>(row + column), &sum);
  }
  NormaliseRow<T, kVec>(row, gamma, BlockSum(sum), eps, columns, out[blockIdx.x]);
}

// X is T, or float when x is a reduced partial sum.
template <class T, class X, int kVec>
__global__ void AddRmsNormKernel(Rows<T> residual, Rows<const X> x, const T* gamma, float eps,
                                 int64_t columns, Rows<T> out) {
  LaunchSuccessor();
  WaitForPredecessor();
  T* row = residual[blockIdx.x];
  const X* addend = x[blockIdx.x];
  float sum = 0;
  for (int64_t column = threadIdx.x * kVec; column < columns; column += kThreads * kVec) {
    auto values = LoadPack<kVec>(row + column);
    AddRounded(&values, LoadPack<kVec>(addend + column));
    AddSquares(values, &sum);
    StorePack<kVec>(row + column, values);
  }
  NormaliseRow<T, kVec>(row, gamma, BlockSum(sum), eps, columns, out[blockIdx.x]);
}

LaunchShape ShapeOf(const CohortCudaTensor& x) {
  return {.grid = static_cast<unsigned>(x.dims[0]),
          .block = kThreads,
          .programmatic = x.dims[0] <= kProgrammaticRows};
}

template <class T, int kVec>
void LaunchRmsNorm(CohortCudaDevice* device, const CohortCudaTensor& x,
                   const CohortCudaTensor& gamma, float eps, const CohortCudaTensor& out) {
  Launch(device, "RmsNorm", ShapeOf(x), RmsNormKernel<T, kVec>, RowsOf<const T>(x),
         static_cast<const T*>(gamma.data), eps, x.dims[1], RowsOf<T>(out));
}

template <class T, class X, int kVec>
void LaunchAddRmsNorm(CohortCudaDevice* device, const CohortCudaTensor& residual,
                      const CohortCudaTensor& x, const CohortCudaTensor& gamma, float eps,
                      const CohortCudaTensor& out) {
  Launch(device, "AddRmsNorm", ShapeOf(x), AddRmsNormKernel<T, X, kVec>, RowsOf<T>(residual),
         RowsOf<const X>(x), static_cast<const T*>(gamma.data), eps, x.dims[1], RowsOf<T>(out));
}

bool Aligned(const CohortCudaTensor& vector) {
  return reinterpret_cast<uintptr_t>(vector.data) % 16 == 0;
}

}  // namespace

void RmsNorm(CohortCudaDevice* device, const CohortCudaTensor* x, const CohortCudaTensor* gamma,
             float eps, const CohortCudaTensor* out) noexcept {
  if (x->dims[0] == 0 || x->dims[1] == 0) {
    return;
  }
  Activate(device);
  WithActivation(x->dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    constexpr int kVec = 16 / sizeof(T);
    if (CutsIntoPacks(x->dims[1], kVec, {x, out}) && Aligned(*gamma)) {
      LaunchRmsNorm<T, kVec>(device, *x, *gamma, eps, *out);
    } else {
      LaunchRmsNorm<T, 1>(device, *x, *gamma, eps, *out);
    }
  });
}

void AddRmsNorm(CohortCudaDevice* device, const CohortCudaTensor* residual,
                const CohortCudaTensor* x, const CohortCudaTensor* gamma, float eps,
                const CohortCudaTensor* out) noexcept {
  if (x->dims[0] == 0 || x->dims[1] == 0) {
    return;
  }
  Activate(device);
  const auto launch = [&]<class T, class X>() {
    constexpr int kVec = 16 / sizeof(T);
    if (CutsIntoPacks(x->dims[1], kVec, {residual, x, out}) && Aligned(*gamma)) {
      LaunchAddRmsNorm<T, X, kVec>(device, *residual, *x, *gamma, eps, *out);
    } else {
      LaunchAddRmsNorm<T, X, 1>(device, *residual, *x, *gamma, eps, *out);
    }
  };
  if (residual->dtype == kCohortCudaF32) {
    launch.template operator()<float, float>();
  } else if (x->dtype == kCohortCudaF32) {
    launch.template operator()<BFloat16, float>();
  } else {
    launch.template operator()<BFloat16, BFloat16>();
  }
}

}  // namespace cohort::cuda
