// Marks in the stream, and work that is recorded once and enqueued as a graph.
#include <algorithm>
#include <chrono>
#include <cstddef>
#include <memory>
#include <thread>
#include <utility>
#include <vector>

#include "kernels/cuda/copy_queue.h"
#include "kernels/cuda/device.h"
#include "kernels/cuda/entries.h"

struct CohortCudaMark {
  CohortCudaDevice* device = nullptr;
  cudaStream_t stream = nullptr;
  cudaEvent_t event = nullptr;
};

struct CohortCudaRecording {
  CohortCudaDevice* device = nullptr;
  cudaGraphExec_t graph = nullptr;
  CohortCudaRecordedKernels kernels{};
};

namespace cohort::cuda {
namespace {

using Clock = std::chrono::steady_clock;

// So long a wait only yields: most steps of small models end within it.
constexpr std::chrono::microseconds kYieldTime{500};
constexpr std::chrono::microseconds kLookInterval{20};

bool IsKernel(cudaGraphNode_t node) {
  cudaGraphNodeType type{};
  return cudaGraphNodeGetType(node, &type) == cudaSuccess && type == cudaGraphNodeTypeKernel;
}

cudaError_t CountKernels(cudaGraph_t graph, CohortCudaRecordedKernels* kernels) {
  std::size_t count = 0;
  cudaError_t result = cudaGraphGetNodes(graph, nullptr, &count);
  std::vector<cudaGraphNode_t> nodes(count);
  if (result == cudaSuccess) {
    result = cudaGraphGetNodes(graph, nodes.data(), &count);
  }
  std::size_t edges = 0;
  if (result == cudaSuccess) {
    result = cudaGraphGetEdges(graph, nullptr, nullptr, nullptr, &edges);
  }
  std::vector<cudaGraphNode_t> from(edges);
  std::vector<cudaGraphNode_t> to(edges);
  std::vector<cudaGraphEdgeData> data(edges);
  if (result == cudaSuccess && edges > 0) {
    result = cudaGraphGetEdges(graph, from.data(), to.data(), data.data(), &edges);
  }
  if (result != cudaSuccess) {
    return result;
  }
  kernels->count = std::count_if(nodes.begin(), nodes.end(), IsKernel);
  for (std::size_t i = 0; i < edges; ++i) {
    if (IsKernel(from[i]) && IsKernel(to[i])) {
      ++kernels->pairs;
      kernels->programmatic += data[i].type == cudaGraphDependencyTypeProgrammatic ? 1 : 0;
    }
  }
  return cudaSuccess;
}

}  // namespace

CohortCudaError MarkCreate(CohortCudaDevice* device, CohortCudaCopyQueue* queue,
                           CohortCudaMark** mark) noexcept {
  *mark = nullptr;
  Activate(device);
  auto created = std::make_unique<CohortCudaMark>();
  created->device = device;
  created->stream = queue != nullptr ? queue->stream : device->stream;
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
  const cudaError_t result = cudaEventRecord(mark->event, mark->stream);
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
    if (result == cudaSuccess) {
      result = CountKernels(graph, &created->kernels);
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

void RecordingKernels(const CohortCudaRecording* recording,
                      CohortCudaRecordedKernels* kernels) noexcept {
  *kernels = recording->kernels;
}

void RecordingDestroy(CohortCudaRecording* recording) noexcept {
  const std::unique_ptr<CohortCudaRecording> owner(recording);
  Activate(recording->device);
  cudaGraphExecDestroy(recording->graph);  // once it has run, where it is under way
}

}  // namespace cohort::cuda
