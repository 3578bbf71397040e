// The state behind CohortCudaDevice and the plugin's way to report errors.
#ifndef COHORT_KERNELS_CUDA_DEVICE_H_
#define COHORT_KERNELS_CUDA_DEVICE_H_

#include <cublasLt.h>
#include <cuda_runtime_api.h>

#include <cstddef>
#include <map>
#include <memory>
#include <unordered_map>
#include <utility>
#include <vector>

#include "kernels/cuda/progress.h"
#include "kernels/cuda/stream_plan.h"
#include "kernels/cuda/stream_wide_plan.h"
#include "kernels/cuda_plugin.h"

namespace cohort::cuda {

class MatMulPlans;

struct MatMulPlansDeleter {
  void operator()(MatMulPlans* plans) const;
};
using MatMulPlansPointer = std::unique_ptr<MatMulPlans, MatMulPlansDeleter>;
MatMulPlansPointer MakeMatMulPlans();  // matmul_plans.cc

class SamplingMemory;

struct SamplingMemoryDeleter {
  void operator()(SamplingMemory* memory) const;
};
using SamplingMemoryPointer = std::unique_ptr<SamplingMemory, SamplingMemoryDeleter>;
// Of the current device. (candidates_batch.cu)
SamplingMemoryPointer MakeSamplingMemory(cudaStream_t stream, cudaError_t* result);

// Scratch of the products, allocated with the device so that no operation allocates.
inline constexpr std::size_t kWorkspaceBytes = std::size_t{32} << 20;
inline constexpr int kStreamArrivals = 4096;

// An error from a printf format; newlines of the libraries' texts become blanks.
[[gnu::format(printf, 2, 3)]] CohortCudaError MakeError(int32_t code, const char* format, ...);
CohortCudaError Ok();

// kCohortCudaFailed (or the code that fits) for an error of CUDA in `what`.
CohortCudaError FromCuda(cudaError_t result, const char* what);

}  // namespace cohort::cuda

// Used from one thread, but for what Initialize sets, which never changes.
struct CohortCudaDevice {
  int index = 0;
  // 90 is compute capability 9.0: the device's, or that of the code that runs on it where this is
  // less. An instruction that came with 9.0 is there from 90 on.
  int compute = 0;
  bool has_wgmma = false;  // the code is sm_90a's: wgmma and setmaxnreg are there
  int multiprocessors = 0;
  cudaStream_t stream = nullptr;
  cublasLtHandle_t blas = nullptr;
  void* workspace = nullptr;            // kWorkspaceBytes
  uint32_t* stream_arrivals = nullptr;  // kStreamArrivals, zeros between kernels (stream.cuh)
  uint32_t* step_counters = nullptr;    // kStepCounters, persistent_step.h; as stream_arrivals
  void* attention_workspace = nullptr;  // AttentionWorkspaceBytes(multiprocessors), attention.h
  cohort::cuda::MatMulPlansPointer plans;
  // By units and columns.
  std::map<std::pair<int, int>, cohort::cuda::StreamPlan> stream_plans;
  std::map<std::pair<int, int>, cohort::cuda::WidePlan> wide_plans;
  CohortCudaNextWeights next_weights{};  // for the next attention; then forgotten
  cohort::cuda::SamplingMemoryPointer sampling;
  // The limit of dynamic shared memory of the kernels that have a raised one (launch.h).
  std::unordered_map<const void*, std::size_t> shared_bytes_of_kernel;
  std::vector<void*> free_peer_buffers;   // peers.cc; kPeerBufferBytes each
  cohort::cuda::StreamProgress progress;  // for the watch over collectives
  CohortCudaError first_error{};          // since the last Synchronize or MarkWait
};

namespace cohort::cuda {

// Keeps `error` if it is the first.
void Stick(CohortCudaDevice* device, const CohortCudaError& error);

// To be called before every wait of the host for the stream: what the stream has done by then
// becomes known to the watch over collectives.
void MarkProgress(CohortCudaDevice* device);

// Makes the device current for the calling thread: every entry's first line.
void Activate(CohortCudaDevice* device);

}  // namespace cohort::cuda

#endif  // COHORT_KERNELS_CUDA_DEVICE_H_
