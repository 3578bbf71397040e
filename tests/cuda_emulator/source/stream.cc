// Streams and events.
#include <utility>

#include "runtime.h"

namespace cuda_emulator {
namespace {

thread_local std::vector<CUstream_st*> captures_of_thread;  // begun by this thread, not yet ended

void Work(CUstream_st* stream) {
  cudaSetDevice(stream->device);
  std::unique_lock<std::mutex> lock(stream->mutex);
  while (true) {
    stream->changed.wait(lock, [&] { return stream->ends || !stream->queue.empty(); });
    if (stream->queue.empty()) {
      return;
    }
    Operation operation = std::move(stream->queue.front());
    stream->queue.pop_front();
    lock.unlock();
    Device& device = DeviceOf(stream->device);
    if (device.lost == cudaSuccess) {
      const cudaError_t result = operation.run();
      cudaError_t none = cudaSuccess;
      if (result != cudaSuccess) {
        device.lost.compare_exchange_strong(none, result);
      }
    }
    operation.run = nullptr;  // what it holds goes before anybody learns that it is done
    lock.lock();
    ++stream->finished;
    stream->changed.notify_all();
  }
}

// The streams' mutex is held.
CUstream_st* MakeStream(Device* device) {
  auto stream = std::make_shared<CUstream_st>();
  stream->device = device->index;
  stream->worker = std::thread(Work, stream.get());
  device->streams.push_back(stream);
  return stream.get();
}

}  // namespace

CUstream_st* Resolve(cudaStream_t stream) {
  if (stream != nullptr && stream != cudaStreamLegacy && stream != cudaStreamPerThread) {
    return stream;
  }
  Device& device = DeviceOf(CurrentDevice());
  const std::lock_guard<std::mutex> lock(device.streams_mutex);
  if (device.default_stream == nullptr) {
    device.default_stream = MakeStream(&device);
  }
  return device.default_stream;
}

cudaError_t SynchronizeDevice(int index) {
  Device& device = DeviceOf(index);
  std::vector<std::shared_ptr<CUstream_st>> streams;
  {
    const std::lock_guard<std::mutex> lock(device.streams_mutex);
    streams = device.streams;
  }
  for (const std::shared_ptr<CUstream_st>& stream : streams) {
    Synchronize(stream.get());
  }
  return device.lost;
}

cudaError_t Enqueue(cudaStream_t handle, Operation operation) {
  CUstream_st* stream = Resolve(handle);
  const std::lock_guard<std::mutex> lock(stream->mutex);
  if (stream->capture != nullptr) {
    if (stream->is_capture_invalid) {
      return cudaErrorStreamCaptureInvalidated;
    }
    auto node = std::make_shared<CUgraphNode_st>();
    node->operation = std::move(operation);
    stream->capture->nodes.push_back(std::move(node));
    return cudaSuccess;
  }
  if (const cudaError_t lost = DeviceOf(stream->device).lost; lost != cudaSuccess) {
    return lost;
  }
  stream->queue.push_back(std::move(operation));
  ++stream->enqueued;
  stream->changed.notify_all();
  return cudaSuccess;
}

cudaError_t Synchronize(CUstream_st* stream) {
  std::unique_lock<std::mutex> lock(stream->mutex);
  if (stream->capture != nullptr) {
    stream->is_capture_invalid = true;
    return cudaErrorStreamCaptureUnsupported;
  }
  stream->changed.wait(lock, [&, until = stream->enqueued] { return stream->finished >= until; });
  return DeviceOf(stream->device).lost;
}

bool IsForbiddenByCapture() {
  for (CUstream_st* stream : captures_of_thread) {
    if (stream->capture_mode != cudaStreamCaptureModeRelaxed) {
      const std::lock_guard<std::mutex> lock(stream->mutex);
      stream->is_capture_invalid = true;
      return true;
    }
  }
  return false;
}

}  // namespace cuda_emulator

using cuda_emulator::Return;

extern "C" {

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) {
  cuda_emulator::Device& device = cuda_emulator::DeviceOf(cuda_emulator::CurrentDevice());
  const std::lock_guard<std::mutex> lock(device.streams_mutex);
  *stream = cuda_emulator::MakeStream(&device);
  return cudaSuccess;
}

cudaError_t cudaStreamCreate(cudaStream_t* stream) {
  return cudaStreamCreateWithFlags(stream, cudaStreamDefault);
}

cudaError_t cudaStreamCreateWithPriority(cudaStream_t* stream, unsigned flags, int) {
  return cudaStreamCreateWithFlags(stream, flags);
}

cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  {
    const std::lock_guard<std::mutex> lock(stream->mutex);
    stream->ends = true;
    stream->changed.notify_all();
  }
  stream->worker.join();
  cuda_emulator::Device& device = cuda_emulator::DeviceOf(stream->device);
  const std::lock_guard<std::mutex> lock(device.streams_mutex);
  std::erase_if(device.streams, [&](const auto& known) { return known.get() == stream; });
  return cudaSuccess;
}

cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  return Return(cuda_emulator::Synchronize(cuda_emulator::Resolve(stream)));
}

cudaError_t cudaStreamQuery(cudaStream_t handle) {
  CUstream_st* stream = cuda_emulator::Resolve(handle);
  const std::lock_guard<std::mutex> lock(stream->mutex);
  if (stream->capture != nullptr) {
    stream->is_capture_invalid = true;
    return Return(cudaErrorStreamCaptureUnsupported);
  }
  const cudaError_t lost = cuda_emulator::DeviceOf(stream->device).lost;
  return Return(lost != cudaSuccess                    ? lost
                : stream->finished == stream->enqueued ? cudaSuccess
                                                       : cudaErrorNotReady);
}

cudaError_t cudaStreamGetDevice(cudaStream_t stream, int* device) {
  *device = cuda_emulator::Resolve(stream)->device;
  return cudaSuccess;
}

cudaError_t cudaLaunchHostFunc(cudaStream_t stream, cudaHostFn_t function, void* data) {
  return Return(cuda_emulator::Enqueue(stream, {cudaGraphNodeTypeHost, false, [=] {
                                                  function(data);
                                                  return cudaSuccess;
                                                }}));
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned) {
  *event = new CUevent_st;
  return cudaSuccess;
}

cudaError_t cudaEventCreate(cudaEvent_t* event) { return cudaEventCreateWithFlags(event, 0); }

cudaError_t cudaEventDestroy(cudaEvent_t event) {
  delete event;
  return cudaSuccess;
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t handle) {
  CUstream_st* stream = cuda_emulator::Resolve(handle);
  std::shared_ptr<CUgraph_st> capture;
  {
    const std::lock_guard<std::mutex> lock(stream->mutex);
    capture = stream->capture;
  }
  auto state = std::make_shared<cuda_emulator::EventState>();
  {
    const std::lock_guard<std::mutex> lock(event->mutex);
    event->state = state;
    event->capture = capture;
  }
  if (capture != nullptr) {
    return cudaSuccess;  // only orders what the capture holds, which is in order
  }
  return Return(cuda_emulator::Enqueue(stream, {cudaGraphNodeTypeEventRecord, false, [state] {
                                                  const std::lock_guard<std::mutex> lock(
                                                      state->mutex);
                                                  state->has_happened = true;
                                                  state->time = std::chrono::steady_clock::now();
                                                  state->changed.notify_all();
                                                  return cudaSuccess;
                                                }}));
}

cudaError_t cudaEventRecordWithFlags(cudaEvent_t event, cudaStream_t stream, unsigned) {
  return cudaEventRecord(event, stream);
}

cudaError_t cudaEventQuery(cudaEvent_t event) {
  std::shared_ptr<cuda_emulator::EventState> state;
  {
    const std::lock_guard<std::mutex> lock(event->mutex);
    if (event->capture != nullptr) {
      return Return(cudaErrorStreamCaptureUnsupported);
    }
    state = event->state;
  }
  if (const cudaError_t lost = cuda_emulator::DeviceOf(cuda_emulator::CurrentDevice()).lost;
      lost != cudaSuccess) {
    return Return(lost);
  }
  if (state == nullptr) {
    return cudaSuccess;
  }
  const std::lock_guard<std::mutex> lock(state->mutex);
  return Return(state->has_happened ? cudaSuccess : cudaErrorNotReady);
}

cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  while (true) {
    const cudaError_t result = cudaEventQuery(event);
    if (result != cudaErrorNotReady) {
      return result;
    }
    cudaGetLastError();
    const std::shared_ptr<cuda_emulator::EventState> state = event->state;
    std::unique_lock<std::mutex> lock(state->mutex);
    // Looks up now and then: the operation is skipped when the device is lost.
    state->changed.wait_for(lock, std::chrono::milliseconds(20),
                            [&] { return state->has_happened; });
  }
}

cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t begin, cudaEvent_t end) {
  for (const cudaEvent_t event : {begin, end}) {
    if (event->state == nullptr) {
      return Return(cudaErrorInvalidResourceHandle);
    }
    if (const cudaError_t result = cudaEventQuery(event); result != cudaSuccess) {
      return result;
    }
  }
  *milliseconds =
      std::chrono::duration<float, std::milli>(end->state->time - begin->state->time).count();
  return cudaSuccess;
}

cudaError_t cudaStreamWaitEvent(cudaStream_t handle, cudaEvent_t event, unsigned) {
  CUstream_st* stream = cuda_emulator::Resolve(handle);
  std::shared_ptr<cuda_emulator::EventState> state;
  {
    const std::lock_guard<std::mutex> lock(event->mutex);
    if (event->capture != nullptr) {
      const std::lock_guard<std::mutex> stream_lock(stream->mutex);
      stream->capture = event->capture;  // joins, or is already there
      return cudaSuccess;
    }
    state = event->state;
  }
  if (state == nullptr) {
    return cudaSuccess;
  }
  return Return(cuda_emulator::Enqueue(
      stream, {cudaGraphNodeTypeWaitEvent, false, [state, stream] {
                 std::unique_lock<std::mutex> lock(state->mutex);
                 while (!state->has_happened &&
                        cuda_emulator::DeviceOf(stream->device).lost == cudaSuccess) {
                   state->changed.wait_for(lock, std::chrono::milliseconds(20));
                 }
                 return cudaSuccess;
               }}));
}

// --- Capture; see graph.cc for what becomes of it ---

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode mode) {
  if (stream == nullptr) {
    return Return(cudaErrorStreamCaptureUnsupported);
  }
  const std::lock_guard<std::mutex> lock(stream->mutex);
  if (stream->capture != nullptr) {
    return Return(cudaErrorIllegalState);
  }
  stream->capture = std::make_shared<CUgraph_st>();
  stream->is_capture_origin = true;
  stream->is_capture_invalid = false;
  stream->capture_mode = mode;
  cuda_emulator::captures_of_thread.push_back(stream);
  return cudaSuccess;
}

cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph) {
  *graph = nullptr;
  const std::lock_guard<std::mutex> lock(stream->mutex);
  if (stream->capture == nullptr || !stream->is_capture_origin) {
    return Return(cudaErrorIllegalState);
  }
  std::erase(cuda_emulator::captures_of_thread, stream);
  const std::shared_ptr<CUgraph_st> captured = std::move(stream->capture);
  stream->capture = nullptr;
  stream->is_capture_origin = false;
  if (stream->is_capture_invalid) {
    return Return(cudaErrorStreamCaptureInvalidated);
  }
  *graph = new CUgraph_st(*captured);
  return cudaSuccess;
}

cudaError_t cudaStreamIsCapturing(cudaStream_t handle, cudaStreamCaptureStatus* status) {
  CUstream_st* stream = cuda_emulator::Resolve(handle);
  const std::lock_guard<std::mutex> lock(stream->mutex);
  *status = stream->capture == nullptr   ? cudaStreamCaptureStatusNone
            : stream->is_capture_invalid ? cudaStreamCaptureStatusInvalidated
                                         : cudaStreamCaptureStatusActive;
  return cudaSuccess;
}

cudaError_t cudaThreadExchangeStreamCaptureMode(cudaStreamCaptureMode* mode) {
  thread_local cudaStreamCaptureMode of_thread = cudaStreamCaptureModeGlobal;
  std::swap(*mode, of_thread);
  return cudaSuccess;
}

}  // extern "C"
