// One accelerator (or the CPU with its threads) and its stream of work. Owned by one rank and used
// from that rank's worker thread only.
#ifndef COHORT_KERNELS_DEVICE_H_
#define COHORT_KERNELS_DEVICE_H_

#include <cstddef>
#include <memory>
#include <string>

#include "kernels/status.h"
#include "kernels/tensor.h"

namespace cohort {

class Ops;

struct DeviceOptions {
  std::string kind = "cpu";  // "cpu" or "cuda"
  int index = 0;             // ordinal of the accelerator; unused on the CPU
  int threads = 1;           // CPU: threads that compute, the caller included; at least 1
  // CPU: portable, avx2, avx512 or avx512_bf16; empty: the best that this machine has.
  std::string instruction_set;
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

  // Waits for everything enqueued; the first error since the last call.
  virtual absl::Status Synchronize() = 0;

  virtual Ops& ops() = 0;
};

// OK when `kind` can be created here; otherwise Device::Create's one-line reason.
absl::Status DeviceAvailable(StringView kind);

}  // namespace cohort

#endif  // COHORT_KERNELS_DEVICE_H_
