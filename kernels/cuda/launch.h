// The one way to launch a kernel.
#ifndef COHORT_KERNELS_CUDA_LAUNCH_H_
#define COHORT_KERNELS_CUDA_LAUNCH_H_

#include <cuda_runtime.h>

#include <cstddef>
#include <utility>

#include "kernels/cuda/device.h"

namespace cohort::cuda {

struct LaunchShape {
  dim3 grid;
  dim3 block;
  std::size_t shared_bytes = 0;  // dynamic shared memory
  // May start before the kernel ahead of it in the stream has ended: only for kernels in which
  // every thread calls WaitForPredecessor() (ptx.cuh) before it reads what others produce or
  // writes.
  bool programmatic = false;
  // All blocks must run at the same time; an error where the device cannot hold them.
  bool cooperative = false;
};

// What a block gets of dynamic shared memory without asking.
inline constexpr std::size_t kPlainSharedBytes = std::size_t{48} << 10;

// Raises the kernel's limit of dynamic shared memory to `bytes`, once. (launch.cc)
cudaError_t AllowSharedBytes(CohortCudaDevice* device, const void* kernel, std::size_t bytes);

// Enqueues kernel(arguments...) on the device's stream. An error sticks to the device under `name`.
template <class... Parameters, class... Arguments>
void Launch(CohortCudaDevice* device, const char* name, const LaunchShape& shape,
            void (*kernel)(Parameters...), Arguments&&... arguments) {
  cudaLaunchAttribute attributes[2] = {};
  cudaLaunchConfig_t config = {};
  config.gridDim = shape.grid;
  config.blockDim = shape.block;
  config.dynamicSmemBytes = shape.shared_bytes;
  config.stream = device->stream;
  config.attrs = attributes;
  if (shape.programmatic && device->compute >= 90) {
    attributes[config.numAttrs].id = cudaLaunchAttributeProgrammaticStreamSerialization;
    attributes[config.numAttrs].val.programmaticStreamSerializationAllowed = 1;
    ++config.numAttrs;
  }
  if (shape.cooperative) {
    attributes[config.numAttrs].id = cudaLaunchAttributeCooperative;
    attributes[config.numAttrs].val.cooperative = 1;
    ++config.numAttrs;
  }
  cudaError_t result = cudaSuccess;
  if (shape.shared_bytes > kPlainSharedBytes) {
    result = AllowSharedBytes(device, reinterpret_cast<const void*>(kernel), shape.shared_bytes);
  }
  if (result == cudaSuccess) {
    result = cudaLaunchKernelEx(&config, kernel, std::forward<Arguments>(arguments)...);
  }
  if (result != cudaSuccess) {
    Stick(device, FromCuda(result, name));
  }
}

}  // namespace cohort::cuda

#endif  // COHORT_KERNELS_CUDA_LAUNCH_H_
