// The token that the device sampled last, in and out of a recorded step. One thread handles one
// row; nothing is shared. Launched programmatically: every thread waits for its predecessor first.
#include "kernels/cuda/device.h"
#include "kernels/cuda/entries.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/ptx.cuh"

namespace cohort::cuda {
namespace {

constexpr int kThreads = 128;

__global__ void SelectIdsKernel(const int32_t* sources, const int32_t* last_tokens, int64_t slots,
                                int64_t rows, int32_t* ids) {
  WaitForPredecessor();
  LaunchSuccessor();
  const int64_t row = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (row >= rows) {
    return;
  }
  const int32_t source = sources[row];
  if (source >= 0) {
    ids[row] = source;
    return;
  }
  const int64_t slot = -1 - int64_t{source};
  const int32_t token = slot < slots ? last_tokens[slot] : 0;
  ids[row] = token < 0 ? 0 : token;  // what follows no token is thrown away
}

__global__ void StoreTokensKernel(const int32_t* tokens, const int32_t* slots_of_rows,
                                  int64_t slots, int64_t rows, int32_t* last_tokens) {
  WaitForPredecessor();
  LaunchSuccessor();
  const int64_t row = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (row >= rows) {
    return;
  }
  const int32_t slot = slots_of_rows[row];
  if (slot >= 0 && slot < slots) {
    last_tokens[slot] = tokens[row];
  }
}

LaunchShape ShapeFor(int64_t rows) {
  return {.grid = dim3(static_cast<unsigned>((rows + kThreads - 1) / kThreads)),
          .block = dim3(kThreads),
          .programmatic = true};
}

}  // namespace

void SelectIds(CohortCudaDevice* device, const CohortCudaTensor* sources,
               const CohortCudaTensor* last_tokens, const CohortCudaTensor* ids) noexcept {
  const int64_t rows = ids->dims[0];
  if (rows == 0) {
    return;
  }
  Activate(device);
  Launch(device, "SelectIds", ShapeFor(rows), SelectIdsKernel,
         static_cast<const int32_t*>(sources->data), static_cast<const int32_t*>(last_tokens->data),
         last_tokens->dims[0], rows, static_cast<int32_t*>(ids->data));
}

void StoreTokens(CohortCudaDevice* device, const CohortCudaTensor* tokens,
                 const CohortCudaTensor* slots, const CohortCudaTensor* last_tokens) noexcept {
  const int64_t rows = tokens->dims[0];
  if (rows == 0) {
    return;
  }
  Activate(device);
  Launch(device, "StoreTokens", ShapeFor(rows), StoreTokensKernel,
         static_cast<const int32_t*>(tokens->data), static_cast<const int32_t*>(slots->data),
         last_tokens->dims[0], rows, static_cast<int32_t*>(last_tokens->data));
}

}  // namespace cohort::cuda
