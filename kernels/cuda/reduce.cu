#include <algorithm>

#include "kernels/cuda/launch.h"
#include "kernels/cuda/reduce.h"
#include "kernels/cuda/rows.cuh"

namespace cohort::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int64_t kMaxBlocks = 1024;

// One thread sums one element over the ranks, then strides on by the grid.
template <class T>
__global__ void SumInRankOrderKernel(const T* parts, int32_t world, int32_t own, int64_t count,
                                     T* out) {
  for (int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x; i < count;
       i += int64_t{gridDim.x} * kThreads) {
    float sum = ToFloat(own == 0 ? out[i] : parts[i]);
    for (int32_t rank = 1; rank < world; ++rank) {
      sum += ToFloat(rank == own ? out[i] : parts[rank * count + i]);
    }
    out[i] = FromFloat<T>(sum);
  }
}

}  // namespace

void SumInRankOrder(CohortCudaDevice* device, int32_t dtype, const void* parts, int32_t world,
                    int32_t own, int64_t count, void* out) {
  const int64_t blocks = std::min((count + kThreads - 1) / kThreads, kMaxBlocks);
  WithActivation(dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    Launch(device, "SumInRankOrder", {static_cast<unsigned>(blocks), kThreads},
           SumInRankOrderKernel<T>, static_cast<const T*>(parts), world, own, count,
           static_cast<T*>(out));
  });
}

}  // namespace cohort::cuda
