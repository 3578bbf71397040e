// Launches and memory for the emulator's own tests.
#ifndef COHORT_TESTS_CUDA_EMULATOR_TEST_HARNESS_H_
#define COHORT_TESTS_CUDA_EMULATOR_TEST_HARNESS_H_

#include <cuda_runtime.h>
#include <gtest/gtest.h>

#include <utility>
#include <vector>

namespace cohort::emulator_test {

// Device memory of `count` items, as fresh as cudaMalloc gives it.
template <class T>
class DeviceArray {
 public:
  explicit DeviceArray(std::size_t count) : count_(count) {
    EXPECT_EQ(cudaMalloc(&data_, count * sizeof(T)), cudaSuccess);
  }
  explicit DeviceArray(const std::vector<T>& items) : DeviceArray(items.size()) {
    EXPECT_EQ(cudaMemcpy(data_, items.data(), count_ * sizeof(T), cudaMemcpyHostToDevice),
              cudaSuccess);
  }
  DeviceArray(const DeviceArray&) = delete;
  DeviceArray& operator=(const DeviceArray&) = delete;
  ~DeviceArray() { cudaFree(data_); }

  T* data() const { return data_; }
  std::vector<T> Read() const {
    std::vector<T> items(count_);
    EXPECT_EQ(cudaMemcpy(items.data(), data_, count_ * sizeof(T), cudaMemcpyDeviceToHost),
              cudaSuccess);
    return items;
  }

 private:
  T* data_ = nullptr;
  std::size_t count_;
};

// Runs kernel(arguments...) to its end; the error it left, which is then forgotten.
template <class... Parameters, class... Arguments>
cudaError_t RunKernel(dim3 grid, dim3 block, std::size_t shared_bytes,
                      void (*kernel)(Parameters...), Arguments&&... arguments) {
  cudaLaunchConfig_t config{};
  config.gridDim = grid;
  config.blockDim = block;
  config.dynamicSmemBytes = shared_bytes;
  cudaError_t result = cudaLaunchKernelEx(&config, kernel, std::forward<Arguments>(arguments)...);
  if (result == cudaSuccess) {
    result = cudaStreamSynchronize(nullptr);
  }
  cudaDeviceReset();
  return result;
}

// How many launches a bug may stay hidden for.
inline constexpr int kTries = 50;

}  // namespace cohort::emulator_test

#endif  // COHORT_TESTS_CUDA_EMULATOR_TEST_HARNESS_H_
