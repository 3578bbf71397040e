// One accelerator (or the CPU with its threads) and its stream of work. Owned by one rank and used
// from that rank's worker thread only.
#ifndef COHORT_KERNELS_DEVICE_H_
#define COHORT_KERNELS_DEVICE_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "absl/time/time.h"
#include "kernels/status.h"
#include "kernels/tensor.h"

namespace cohort {

class Ops;

struct DeviceOptions {
  std::string kind = "cpu";  // "cpu" or "cuda"
  int index = 0;             // ordinal of the accelerator; unused on the CPU
  int threads = 1;           // CPU: threads that compute, the caller included; at least 1
  // CPU: portable, avx2, avx512 or avx512_bf16; empty: the best that this machine has.
  std::string instruction_set = {};
  // Whether steps that repeat are recorded; by default where that is of use. The CPU gains nothing
  // by it, but the same code of the runtime runs.
  std::optional<bool> record_steps = {};
  // Whether Ops::DenseLayers is one kernel for the whole step, where the device has one that takes
  // the step's shape; by default where that is expected to be faster.
  std::optional<bool> persistent_steps = {};
};

// Bytes of a device's memory, whoever uses them.
struct DeviceMemory {
  int64_t free = 0;
  int64_t total = 0;
};

// A place in a device's stream that the host can wait for. Must not outlive its device.
class Mark {
 public:
  virtual ~Mark() = default;
  // Moves it behind everything enqueued so far.
  virtual void Set() = 0;
  // Waits until the device has come to where the mark was set last. DEADLINE_EXCEEDED when it has
  // not within `timeout`, which may be zero; else as Device::Synchronize(): the first error since
  // the last call of either.
  virtual absl::Status Wait(absl::Duration timeout) = 0;
};

// Work that can be enqueued again and again: the same operations with the same shapes on the same
// memory, which holds other numbers each time. Must not outlive its device.
class Recording {
 public:
  // How a device starts what it repeats.
  struct Kernels {
    int64_t count = 0;
    int64_t pairs = 0;         // of kernels one of which waits for the other
    int64_t programmatic = 0;  // of these, pairs whose second may start before the first has ended
  };

  virtual ~Recording() = default;
  virtual void Enqueue() = 0;
  virtual Kernels kernels() const { return {}; }  // none where a device has no such thing
};

// Copies to a device beside its stream and beside other queues. Must not outlive its device; waits
// for its copies at its end.
class CopyQueue {
 public:
  virtual ~CopyQueue() = default;
  // As Device::EnqueueCopyFromHost, in order with this queue's own copies alone; `source` may also
  // lie in memory pinned by Device::PinHost.
  virtual void EnqueueCopyFromHost(const void* source, TensorView destination) = 0;
  virtual absl::StatusOr<std::unique_ptr<Mark>> CreateMark() = 0;  // in this queue
};

// Memory of the host that stays where it is while this lives. May outlive the device.
class PinnedHost {
 public:
  virtual ~PinnedHost() = default;
};

class Device {
 public:
  // FAILED_PRECONDITION, in one line that says what is missing, when `kind` is "cuda" and the
  // plugin, the driver or the accelerator is absent, or the machine lacks the instruction set;
  // INVALID_ARGUMENT for an unknown kind or set.
  static absl::StatusOr<std::unique_ptr<Device>> Create(const DeviceOptions& options);

  virtual ~Device() = default;
  virtual StringView kind() const = 0;
  virtual std::string description() const = 0;  // one line for status and logs

  // Uninitialised memory, aligned to 64 bytes at least. RESOURCE_EXHAUSTED names the bytes asked
  // for.
  virtual absl::StatusOr<Tensor> Allocate(Shape shape, DType dtype) = 0;

  // Copies between host and device memory, ordered with the operations of ops(). Both views are
  // dense and of equal size. CopyToHost returns once the data is there.
  virtual void CopyFromHost(const void* source, TensorView destination) = 0;
  virtual void CopyToHost(TensorView source, void* destination) = 0;

  // Memory of the host that copies use beside the host's own work, and that operations can read as
  // if it were the device's, if slowly.
  virtual absl::StatusOr<Tensor> AllocateHost(Shape shape, DType dtype) = 0;
  // Copies that only enqueue: the host's side lies in AllocateHost() memory, which is left alone
  // until a mark set afterwards is reached.
  virtual void EnqueueCopyFromHost(const void* source, TensorView destination) = 0;
  virtual void EnqueueCopyToHost(TensorView source, void* destination) = 0;

  virtual absl::StatusOr<std::unique_ptr<Mark>> CreateMark() = 0;

  virtual absl::StatusOr<std::unique_ptr<CopyQueue>> CreateCopyQueue() = 0;
  // Makes memory that is not the device's AllocateHost() fit for queues to copy from: whole pages,
  // none of them pinned already, which may be only readable. Any thread.
  virtual absl::StatusOr<std::unique_ptr<PinnedHost>> PinHost(const void* begin, int64_t bytes) = 0;
  // The host's NUMA node that is nearest to the device, where there is such a one.
  virtual std::optional<int> host_node() const = 0;

  // Whether steps that repeat are worth recording, and all operations for that are there.
  virtual bool records_steps() const = 0;
  // Records what `work` enqueues; nothing is computed before Recording::Enqueue(). `work` may be
  // kept and called again, so what it refers to must outlive the recording. It has run as plain
  // work before, waits for nothing, copies nothing to or from the host and allocates nothing.
  virtual absl::StatusOr<std::unique_ptr<Recording>> Record(std::function<void()> work) = 0;

  virtual absl::StatusOr<DeviceMemory> memory() const = 0;

  // Waits for everything enqueued; the first error since the last call.
  virtual absl::Status Synchronize() = 0;

  virtual Ops& ops() = 0;
};

// OK when `kind` can be created here; otherwise Device::Create's one-line reason.
absl::Status DeviceAvailable(StringView kind);

}  // namespace cohort

#endif  // COHORT_KERNELS_DEVICE_H_
