// Marks in the stream, and work that is recorded once and enqueued as a graph.
#include <chrono>
#include <memory>
#include <thread>
#include <utility>

#include "kernels/cuda/device.h"
#include "kernels/cuda/entries.h"

struct CohortCudaMark {
  CohortCudaDevice* device = nullptr;
  cudaEvent_t event = nullptr;
};

struct CohortCudaRecording {
  CohortCudaDevice* device = nullptr;
  cudaGraphExec_t graph = nullptr;
};

namespace cohort::cuda {
namespace {

using Clock = std::chrono::steady_clock;

// So long a wait only yields: most steps of small models end within it.
constexpr std::chrono::microseconds kYieldTime{500};
constexpr std::chrono::microseconds kLookInterval{20};

}  // namespace

CohortCudaError MarkCreate(CohortCudaDevice* device, CohortCudaMark** mark) noexcept {
  *mark = nullptr;
  Activate(device);
  auto created = std::make_unique<CohortCudaMark>();
  created->device = device;
  const cudaError_t result = cudaEventCreateWithFlags(&created->event, cudaEventDisableTiming);
  if (result == cudaSuccess) {
    *mark = created.release();
  }
  return FromCuda(result, "cudaEventCreate");
}

void MarkDestroy(CohortCudaMark* mark) noexcept {
  const std::unique_ptr<CohortCudaMark> owner(mark);
  cudaEventDestroy(mark->event);
}

void MarkSet(CohortCudaMark* mark) noexcept {
  Activate(mark->device);
  const cudaError_t result = cudaEventRecord(mark->event, mark->device->stream);
  if (result != cudaSuccess) {
    Stick(mark->device, FromCuda(result, "cudaEventRecord"));
  }
}

CohortCudaError MarkWait(CohortCudaMark* mark, int64_t timeout_us) noexcept {
  CohortCudaDevice* device = mark->device;
  Activate(device);
  MarkProgress(device);
  const Clock::time_point begin = Clock::now();
  const Clock::time_point deadline = begin + std::chrono::microseconds(timeout_us);
  cudaError_t state = cudaEventQuery(mark->event);
  while (state == cudaErrorNotReady) {
    cudaGetLastError();  // or the next launch would report it
    const Clock::time_point now = Clock::now();
    if (now >= deadline) {
      return MakeError(kCohortCudaDeadline, "the device was not done within %lld us",
                       static_cast<long long>(timeout_us));
    }
    if (now - begin < kYieldTime) {
      std::this_thread::yield();
    } else {
      std::this_thread::sleep_for(kLookInterval);
    }
    state = cudaEventQuery(mark->event);
  }
  if (state != cudaSuccess) {
    Stick(device, FromCuda(state, "cudaEventQuery"));
  }
  return std::exchange(device->first_error, Ok());
}

CohortCudaError RecordingBegin(CohortCudaDevice* device) noexcept {
  Activate(device);
  if (device->first_error.code != kCohortCudaOk) {
    return std::exchange(device->first_error, Ok());
  }
  // Other threads may go on calling CUDA: what watches a communicator does.
  const cudaError_t result =
      cudaStreamBeginCapture(device->stream, cudaStreamCaptureModeThreadLocal);
  return FromCuda(result, "cudaStreamBeginCapture");
}

CohortCudaError RecordingEnd(CohortCudaDevice* device, CohortCudaRecording** recording) noexcept {
  *recording = nullptr;
  cudaGraph_t graph = nullptr;
  cudaError_t result = cudaStreamEndCapture(device->stream, &graph);
  if (result != cudaSuccess) {
    Stick(device, FromCuda(result, "cudaStreamEndCapture"));
  }
  auto created = std::make_unique<CohortCudaRecording>();
  created->device = device;
  if (device->first_error.code == kCohortCudaOk) {
    result = cudaGraphInstantiate(&created->graph, graph, 0);
    if (result == cudaSuccess) {
      result = cudaGraphUpload(created->graph, device->stream);
    }
    if (result != cudaSuccess) {
      Stick(device, FromCuda(result, "cudaGraphInstantiate"));
    }
  }
  if (graph != nullptr) {
    cudaGraphDestroy(graph);
  }
  const CohortCudaError error = std::exchange(device->first_error, Ok());
  if (error.code == kCohortCudaOk) {
    *recording = created.release();
  } else if (created->graph != nullptr) {
    cudaGraphExecDestroy(created->graph);
  }
  return error;
}

void RecordingEnqueue(CohortCudaRecording* recording) noexcept {
  CohortCudaDevice* device = recording->device;
  Activate(device);
  const cudaError_t result = cudaGraphLaunch(recording->graph, device->stream);
  if (result != cudaSuccess) {
    Stick(device, FromCuda(result, "cudaGraphLaunch"));
  }
  device->progress.Submit();
}

void RecordingDestroy(CohortCudaRecording* recording) noexcept {
  const std::unique_ptr<CohortCudaRecording> owner(recording);
  Activate(recording->device);
  cudaGraphExecDestroy(recording->graph);  // once it has run, where it is under way
}

}  // namespace cohort::cuda
