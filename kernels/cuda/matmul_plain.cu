// A product without a library, the bias that cuBLASLt cannot add, numbers to tune products with.
#include "kernels/cuda/device.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/matmul.h"
#include "kernels/cuda/ptx.cuh"
#include "kernels/cuda/rows.cuh"

namespace cohort::cuda {
namespace {

constexpr int kWarps = 8;
constexpr int kBiasThreads = 256;
constexpr int kFillThreads = 256;

// A warp computes one element of out; its lanes stride over the inner dimension. blockIdx.x is the
// token, blockIdx.y a stretch of kWarps columns.
template <class T, class Out>
__global__ void PlainMatMulKernel(Rows<const T> x, Rows<const T> weight, int64_t inner,
                                  const T* bias, int64_t columns, Rows<Out> out) {
  LaunchSuccessor();
  WaitForPredecessor();
  const int64_t column = int64_t{blockIdx.y} * kWarps + threadIdx.x / 32;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  if (column >= columns) {
    return;
  }
  const T* left = x[blockIdx.x];
  const T* right = weight[column];
  float sum = 0;
  for (int64_t i = lane; i < inner; i += 32) {
    sum += ToFloat(left[i]) * ToFloat(right[i]);
  }
  sum = WarpSum(sum);
  if (lane == 0) {
    out[blockIdx.x][column] = FromFloat<Out>(bias != nullptr ? sum + ToFloat(bias[column]) : sum);
  }
}

template <class T, class Out>
void LaunchPlainMatMul(CohortCudaDevice* device, const CohortCudaTensor& x,
                       const CohortCudaTensor& weight, const CohortCudaTensor* bias,
                       const CohortCudaTensor& out) {
  // gridDim.y ends at 65,535; a wider product (a vocabulary) goes in stretches.
  constexpr int64_t kStretch = int64_t{65535} * kWarps;
  for (int64_t begin = 0; begin < out.dims[1]; begin += kStretch) {
    const int64_t columns = out.dims[1] - begin < kStretch ? out.dims[1] - begin : kStretch;
    Rows<const T> weights = RowsOf<const T>(weight);
    weights.data += begin * weights.stride;
    Rows<Out> result = RowsOf<Out>(out);
    result.data += begin;
    const T* addend = bias != nullptr ? static_cast<const T*>(bias->data) + begin : nullptr;
    const dim3 grid(static_cast<unsigned>(out.dims[0]),
                    static_cast<unsigned>((columns + kWarps - 1) / kWarps));
    const LaunchShape shape = {
        .grid = grid, .block = kWarps * 32, .programmatic = out.dims[0] <= kProgrammaticRows};
    Launch(device, "PlainMatMul", shape, PlainMatMulKernel<T, Out>, RowsOf<const T>(x), weights,
           x.dims[1], addend, columns, result);
  }
}

// One block adds to one row.
template <class T>
__global__ void AddBiasKernel(const T* bias, int64_t columns, Rows<float> out) {
  float* row = out[blockIdx.x];
  for (int64_t column = threadIdx.x; column < columns; column += kBiasThreads) {
    row[column] += ToFloat(bias[column]);
  }
}

// A thread writes words that lie a grid apart; bits of `random_bits` come from a hash of the word's
// place, the others from `exponents`.
__global__ void FillRandomKernel(uint32_t* words, int64_t count, uint32_t random_bits,
                                 uint32_t exponents) {
  const int64_t threads = int64_t{gridDim.x} * kFillThreads;
  for (int64_t i = int64_t{blockIdx.x} * kFillThreads + threadIdx.x; i < count; i += threads) {
    uint32_t hash = static_cast<uint32_t>(i) * 0x9e3779b9u;
    hash = (hash ^ (hash >> 16)) * 0x85ebca6bu;
    hash = (hash ^ (hash >> 13)) * 0xc2b2ae35u;
    words[i] = ((hash ^ (hash >> 16)) & random_bits) | exponents;
  }
}

}  // namespace

void PlainMatMul(CohortCudaDevice* device, const CohortCudaTensor& x,
                 const CohortCudaTensor& weight, const CohortCudaTensor* bias,
                 const CohortCudaTensor& out) {
  if (x.dtype == kCohortCudaF32) {
    LaunchPlainMatMul<float, float>(device, x, weight, bias, out);
  } else if (out.dtype == kCohortCudaF32) {
    LaunchPlainMatMul<BFloat16, float>(device, x, weight, bias, out);
  } else {
    LaunchPlainMatMul<BFloat16, BFloat16>(device, x, weight, bias, out);
  }
}

void AddBias(CohortCudaDevice* device, const CohortCudaTensor& bias, const CohortCudaTensor& out) {
  WithActivation(bias.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    Launch(device, "AddBias", {static_cast<unsigned>(out.dims[0]), kBiasThreads}, AddBiasKernel<T>,
           static_cast<const T*>(bias.data), out.dims[1], RowsOf<float>(out));
  });
}

void FillRandom(CohortCudaDevice* device, void* memory, int64_t bytes, int32_t dtype) {
  const bool is_bf16 = dtype == kCohortCudaBF16;
  Launch(device, "FillRandom", {static_cast<unsigned>(8 * device->multiprocessors), kFillThreads},
         FillRandomKernel, static_cast<uint32_t*>(memory), bytes / 4,
         is_bf16 ? 0x807f807fu : 0x807fffffu, is_bf16 ? 0x3f003f00u : 0x3f000000u);
}

}  // namespace cohort::cuda
