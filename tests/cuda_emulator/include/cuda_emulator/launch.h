// How a kernel gets from cudaLaunchKernelEx onto a stream.
#ifndef COHORT_TESTS_CUDA_EMULATOR_LAUNCH_H_
#define COHORT_TESTS_CUDA_EMULATOR_LAUNCH_H_

#include <cuda_runtime_api.h>

#include <functional>
#include <tuple>
#include <utility>

namespace cuda_emulator {

// `call` runs one thread of the kernel at address `kernel`.
cudaError_t LaunchKernel(const cudaLaunchConfig_t& config, const void* kernel,
                         std::function<void()> call);

}  // namespace cuda_emulator

// The arguments are copied at the launch, and once more by every thread.
template <class... Parameters, class... Arguments>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t* config, void (*kernel)(Parameters...),
                               Arguments&&... arguments) {
  std::tuple<std::remove_const_t<Parameters>...> values(std::forward<Arguments>(arguments)...);
  return cuda_emulator::LaunchKernel(
      *config, reinterpret_cast<const void*>(kernel),
      [kernel, values = std::move(values)] { std::apply(kernel, values); });
}

template <class Kernel>
cudaError_t cudaFuncSetAttribute(Kernel* kernel, cudaFuncAttribute attribute, int value) {
  return ::cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel), attribute, value);
}
template <class Kernel>
cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks, Kernel* kernel, int threads,
                                                          size_t shared_bytes) {
  return ::cudaOccupancyMaxActiveBlocksPerMultiprocessor(
      blocks, reinterpret_cast<const void*>(kernel), threads, shared_bytes);
}
template <class T>
cudaError_t cudaMalloc(T** memory, size_t bytes) {
  return ::cudaMalloc(reinterpret_cast<void**>(memory), bytes);
}

#endif  // COHORT_TESTS_CUDA_EMULATOR_LAUNCH_H_
