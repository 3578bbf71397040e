// A stream of copies beside the device's own.
#ifndef COHORT_KERNELS_CUDA_COPY_QUEUE_H_
#define COHORT_KERNELS_CUDA_COPY_QUEUE_H_

#include "kernels/cuda/device.h"

struct CohortCudaCopyQueue {
  CohortCudaDevice* device = nullptr;
  cudaStream_t stream = nullptr;
};

namespace cohort::cuda {

// Enqueues a copy whose ends are pinned memory of the host or the device's; an error sticks.
void EnqueueCopy(CohortCudaDevice* device, cudaStream_t stream, const void* source,
                 void* destination, uint64_t bytes, cudaMemcpyKind kind, const char* what);

}  // namespace cohort::cuda

#endif  // COHORT_KERNELS_CUDA_COPY_QUEUE_H_
