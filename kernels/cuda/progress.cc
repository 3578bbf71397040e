#include "kernels/cuda/progress.h"

#include <algorithm>

namespace cohort::cuda {

cudaError_t StreamProgress::Create() {
  for (Place& mark : marks_) {
    const cudaError_t result = cudaEventCreateWithFlags(&mark.event, cudaEventDisableTiming);
    if (result != cudaSuccess) {
      return result;
    }
  }
  return cudaSuccess;
}

void StreamProgress::Destroy() {
  for (Place& mark : marks_) {
    if (mark.event != nullptr) {
      cudaEventDestroy(mark.event);
    }
  }
}

void StreamProgress::Submit() {
  const std::lock_guard<std::mutex> lock(mutex_);
  ++submitted_;
}

cudaError_t StreamProgress::Mark(cudaStream_t stream) {
  const std::lock_guard<std::mutex> lock(mutex_);
  const uint64_t marked = used_ == 0 ? finished_ : marks_[used_ - 1].submitted;
  if (marked == submitted_) {
    return cudaSuccess;
  }
  cudaError_t result = DropReached();
  if (result != cudaSuccess) {
    return result;
  }
  // Of a full row the newest mark moves on; the oldest still shows progress.
  Place& mark = marks_[std::min(used_, kMarks - 1)];
  result = cudaEventRecord(mark.event, stream);
  if (result == cudaSuccess) {
    mark.submitted = submitted_;
    used_ = std::min(used_ + 1, kMarks);
  }
  return result;
}

cudaError_t StreamProgress::Look(uint64_t* submitted, uint64_t* finished) {
  const std::lock_guard<std::mutex> lock(mutex_);
  const cudaError_t result = DropReached();
  *submitted = submitted_;
  *finished = finished_;
  return result;
}

cudaError_t StreamProgress::DropReached() {
  while (used_ > 0) {
    const cudaError_t state = cudaEventQuery(marks_[0].event);
    if (state == cudaErrorNotReady) {
      cudaGetLastError();  // or the next launch would report it
      return cudaSuccess;
    }
    if (state != cudaSuccess) {
      return state;
    }
    finished_ = marks_[0].submitted;
    std::rotate(marks_.begin(), marks_.begin() + 1, marks_.begin() + used_);
    --used_;
  }
  return cudaSuccess;
}

}  // namespace cohort::cuda
