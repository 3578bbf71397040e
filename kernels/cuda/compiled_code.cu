// Which of the plugin's code runs on a device. One thread of one block writes down what it was
// compiled for; no shared memory.
#include "kernels/cuda/compiled_code.h"
#include "kernels/cuda/device.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/ptx.cuh"

namespace cohort::cuda {
namespace {

__global__ void DescribeCodeKernel(CompiledCode* code) {
  *code = {CompiledCompute(), IsCompiledForWgmma() ? 1 : 0};
}

}  // namespace

CohortCudaError LookAtCode(CohortCudaDevice* device, CompiledCode* code) {
  if (device->compute < 80) {
    return MakeError(kCohortCudaNotUsable,
                     "cuda:%d has compute capability %d.%d; the kernels need 8.0 or later",
                     device->index, device->compute / 10, device->compute % 10);
  }
  cudaFuncAttributes attributes = {};
  cudaError_t result =
      cudaFuncGetAttributes(&attributes, reinterpret_cast<const void*>(DescribeCodeKernel));
  if (result == cudaErrorNoKernelImageForDevice || result == cudaErrorInvalidDeviceFunction) {
    cudaGetLastError();  // as in FromCuda
    return MakeError(
        kCohortCudaNotUsable,
        "cuda:%d has compute capability %d.%d, for which this plugin was not compiled; "
        "build it with -DCOHORT_CUDA_ARCHITECTURES=%d-real",
        device->index, device->compute / 10, device->compute % 10, device->compute);
  }
  if (result != cudaSuccess) {
    return FromCuda(result, "cudaFuncGetAttributes");
  }
  Launch(device, "DescribeCode", {.grid = 1, .block = 1}, DescribeCodeKernel,
         static_cast<CompiledCode*>(device->workspace));
  if (device->first_error.code != kCohortCudaOk) {
    return device->first_error;
  }
  result = cudaMemcpyAsync(code, device->workspace, sizeof(*code), cudaMemcpyDeviceToHost,
                           device->stream);
  if (result == cudaSuccess) {
    result = cudaStreamSynchronize(device->stream);
  }
  return FromCuda(result, "the first kernel");
}

}  // namespace cohort::cuda
