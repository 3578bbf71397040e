// Device memory and device clocks of the programs that use CUDA without the core.
#ifndef COHORT_TESTS_GPU_DEVICE_MEMORY_H_
#define COHORT_TESTS_GPU_DEVICE_MEMORY_H_

#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <vector>

#include "kernels/cuda/launch.h"

namespace cohort::gpu {

// These programs measure; one that cannot go on says what failed and ends.
inline void Check(cudaError_t result, const char* what) {
  if (result != cudaSuccess) {
    std::fprintf(stderr, "%s: %s\n", what, cudaGetErrorString(result));
    std::exit(1);
  }
}

// The first error since the last call, launches' included.
inline void Finish(CohortCudaDevice* device, const char* what) {
  Check(cudaStreamSynchronize(device->stream), what);
  if (device->first_error.code != kCohortCudaOk) {
    std::fprintf(stderr, "%s: %s\n", what, device->first_error.message);
    std::exit(1);
  }
}

struct FreeDeviceMemory {
  void operator()(void* memory) const { cudaFree(memory); }
};
using DeviceMemory = std::unique_ptr<void, FreeDeviceMemory>;

inline DeviceMemory Allocate(std::size_t bytes) {
  void* memory = nullptr;
  Check(cudaMalloc(&memory, bytes), "cudaMalloc");
  return DeviceMemory(memory);
}

// Seconds on the device's clock of `body()`, which enqueues on the device's stream, once to warm up
// and then `repetitions` times.
template <class Body>
std::vector<double> DeviceSeconds(CohortCudaDevice* device, int repetitions, Body body) {
  cudaEvent_t begin = nullptr;
  cudaEvent_t end = nullptr;
  Check(cudaEventCreate(&begin), "cudaEventCreate");
  Check(cudaEventCreate(&end), "cudaEventCreate");
  body();
  std::vector<double> seconds;
  for (int i = 0; i < repetitions; ++i) {
    Check(cudaEventRecord(begin, device->stream), "cudaEventRecord");
    body();
    Check(cudaEventRecord(end, device->stream), "cudaEventRecord");
    Finish(device, "a measured kernel");
    float milliseconds = 0;
    Check(cudaEventElapsedTime(&milliseconds, begin, end), "cudaEventElapsedTime");
    seconds.push_back(1e-3 * static_cast<double>(milliseconds));
  }
  cudaEventDestroy(begin);
  cudaEventDestroy(end);
  return seconds;
}

}  // namespace cohort::gpu

#endif  // COHORT_TESTS_GPU_DEVICE_MEMORY_H_
