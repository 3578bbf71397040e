// A device that counts what is allocated on it, so that a worker can tell what it really took
// beside what was planned; the host's memory is not counted. Everything else is the other device's.
#ifndef COHORT_RUNTIME_METERED_DEVICE_H_
#define COHORT_RUNTIME_METERED_DEVICE_H_

#include <cstdint>
#include <utility>

#include "kernels/forwarding_device.h"

namespace cohort {

class MeteredDevice final : public ForwardingDevice {
 public:
  using ForwardingDevice::ForwardingDevice;

  // Bytes of all tensors allocated since the last call, freed or not.
  int64_t TakeBytes() { return std::exchange(bytes_, 0); }

  absl::StatusOr<Tensor> Allocate(Shape shape, DType dtype) override;

 private:
  int64_t bytes_ = 0;
};

}  // namespace cohort

#endif  // COHORT_RUNTIME_METERED_DEVICE_H_
