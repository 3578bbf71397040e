#include "kernels/cuda/launch.h"

namespace cohort::cuda {

cudaError_t AllowSharedBytes(CohortCudaDevice* device, const void* kernel, std::size_t bytes) {
  std::size_t& allowed = device->shared_bytes_of_kernel[kernel];
  if (bytes <= allowed) {
    return cudaSuccess;
  }
  const cudaError_t result = cudaFuncSetAttribute(
      kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(bytes));
  if (result == cudaSuccess) {
    allowed = bytes;
  }
  return result;
}

}  // namespace cohort::cuda
