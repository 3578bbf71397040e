// What the emulated CUDA runtime is made of. One process has its devices, a device its streams, a
// stream a host thread that does its work in order.
#ifndef COHORT_TESTS_CUDA_EMULATOR_RUNTIME_H_
#define COHORT_TESTS_CUDA_EMULATOR_RUNTIME_H_

#include <cuda_runtime_api.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

namespace cuda_emulator {

// What a stream does in one step. An error loses the device.
struct Operation {
  cudaGraphNodeType type = cudaGraphNodeTypeHost;
  bool is_programmatic = false;  // a kernel that may start before the one ahead has ended
  std::function<cudaError_t()> run;
};

}  // namespace cuda_emulator

struct CUgraphNode_st {
  cuda_emulator::Operation operation;
};

// Nodes in the order in which they were captured, which is also the order of execution.
struct CUgraph_st {
  std::vector<std::shared_ptr<CUgraphNode_st>> nodes;
};

struct CUgraphExec_st {
  std::vector<std::shared_ptr<CUgraphNode_st>> nodes;
};

struct CUstream_st {
  int device = 0;
  std::thread worker;
  std::mutex mutex;  // guards what follows
  std::condition_variable changed;
  std::deque<cuda_emulator::Operation> queue;
  uint64_t enqueued = 0;
  uint64_t finished = 0;
  bool ends = false;
  // While it captures. Other streams that join share the graph.
  std::shared_ptr<CUgraph_st> capture;
  bool is_capture_origin = false;
  bool is_capture_invalid = false;
  cudaStreamCaptureMode capture_mode = cudaStreamCaptureModeGlobal;
};

namespace cuda_emulator {

// One recording of an event.
struct EventState {
  std::mutex mutex;
  std::condition_variable changed;
  bool has_happened = false;
  std::chrono::steady_clock::time_point time;
};

}  // namespace cuda_emulator

struct CUevent_st {
  std::mutex mutex;
  std::shared_ptr<cuda_emulator::EventState> state;  // of the last recording; null before
  std::shared_ptr<CUgraph_st> capture;               // when that was captured
};

namespace cuda_emulator {

struct Device {
  int index = 0;
  uint64_t total_bytes = 0;
  std::mutex mutex;
  uint64_t used_bytes = 0;                     // under mutex
  std::atomic<cudaError_t> lost{cudaSuccess};  // the error that every later call returns
  std::mutex streams_mutex;                    // guards what follows
  std::vector<std::shared_ptr<CUstream_st>> streams;
  CUstream_st* default_stream = nullptr;  // made when first used
};

int DeviceCount();
Device& DeviceOf(int index);
int CurrentDevice();

// Keeps an error for cudaGetLastError and passes it on.
cudaError_t Return(cudaError_t error);

// Null stands for the current device's default stream.
CUstream_st* Resolve(cudaStream_t stream);
// Onto the stream, or into the graph that it captures.
cudaError_t Enqueue(cudaStream_t stream, Operation operation);
cudaError_t Synchronize(CUstream_st* stream);
// All streams of the device.
cudaError_t SynchronizeDevice(int index);
// Whether a call that a capture does not allow (an allocation, a synchronisation) comes from a
// thread that captures; invalidates the capture.
bool IsForbiddenByCapture();

// What `address` lies in.
// kPeer: of another process' device.
enum class MemoryKind { kUnknown, kDevice, kPinned, kPeer };
struct MemoryRange {
  MemoryKind kind = MemoryKind::kUnknown;
  int device = -1;
  uint64_t begin = 0;
  uint64_t bytes = 0;
};
MemoryRange RangeOf(const void* address);
// Whether the bytes lie in one allocation, or in memory that the runtime does not know.
bool IsWholeRange(const void* address, std::size_t bytes);

// An environment variable as a number.
int64_t Setting(const char* name, int64_t otherwise);

}  // namespace cuda_emulator

#endif  // COHORT_TESTS_CUDA_EMULATOR_RUNTIME_H_
