// How far a device's stream has come, as other threads may see it.
#ifndef COHORT_KERNELS_CUDA_PROGRESS_H_
#define COHORT_KERNELS_CUDA_PROGRESS_H_

#include <cuda_runtime_api.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <mutex>

namespace cohort::cuda {

// Counts what waits for other ranks (collectives, replayed recordings) and marks the stream where
// the device's thread is about to wait: no event is recorded between the kernels of a step, and
// nothing is asked of the stream itself, which a capture forbids.
class StreamProgress {
 public:
  cudaError_t Create();
  void Destroy();

  // The device's thread. Counts one piece of work that is now on the stream (or in a recording).
  void Submit();
  // The device's thread, outside of a capture, before a wait of the host.
  cudaError_t Mark(cudaStream_t stream);

  // Any thread. `finished` is a lower bound.
  cudaError_t Look(uint64_t* submitted, uint64_t* finished);

 private:
  static constexpr std::size_t kMarks = 4;
  struct Place {
    cudaEvent_t event = nullptr;
    uint64_t submitted = 0;
  };
  cudaError_t DropReached();  // with the mutex held

  std::mutex mutex_;  // guards what follows
  uint64_t submitted_ = 0;
  uint64_t finished_ = 0;
  std::array<Place, kMarks> marks_;  // the first `used_`, oldest first, are not known as reached
  std::size_t used_ = 0;
};

}  // namespace cohort::cuda

#endif  // COHORT_KERNELS_CUDA_PROGRESS_H_
