#include "runtime/metered_device.h"

namespace cohort {

absl::StatusOr<Tensor> MeteredDevice::Allocate(Shape shape, DType dtype) {
  ASSIGN_OR_RETURN(Tensor tensor, ForwardingDevice::Allocate(shape, dtype));
  bytes_ += tensor.bytes();
  return tensor;
}

}  // namespace cohort
