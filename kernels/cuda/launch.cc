#include "kernels/cuda/launch.h"

namespace cohort::cuda {

cudaError_t AllowSharedBytes(CohortCudaDevice* device, const void* kernel, std::size_t bytes) {
  std::size_t& allowed = device->shared_bytes_of_kernel[kernel];
  if (bytes <= allowed) {
    return cudaSuccess;
  }
  cudaError_t result = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                            static_cast<int>(bytes));
  // Else the driver gives L1 what this kernel alone leaves, and the next one's blocks find no room
  // beside it.
  if (result == cudaSuccess) {
    result = cudaFuncSetAttribute(kernel, cudaFuncAttributePreferredSharedMemoryCarveout,
                                  cudaSharedmemCarveoutMaxShared);
  }
  if (result == cudaSuccess) {
    allowed = bytes;
  }
  return result;
}

}  // namespace cohort::cuda
