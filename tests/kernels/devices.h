// The devices every kernel test runs on, and tensors on them.
#ifndef COHORT_TESTS_KERNELS_DEVICES_H_
#define COHORT_TESTS_KERNELS_DEVICES_H_

#include <gtest/gtest.h>

#include <memory>
#include <vector>

#include "kernels/device.h"
#include "kernels/ops.h"
#include "tests/kernels/host_tensor.h"

namespace cohort {

// The CPU with each instruction set it has on three threads, the best one on one thread, and CUDA
// where it is there; of one kind only where COHORT_TEST_DEVICE names it.
std::vector<DeviceOptions> TestDevices();

// Runs `body(Device&)` on each of them.
template <class Body>
void OnEachDevice(Body body) {
  for (const DeviceOptions& options : TestDevices()) {
    absl::StatusOr<std::unique_ptr<Device>> device = Device::Create(options);
    ASSERT_TRUE(device.ok()) << device.status();
    SCOPED_TRACE((*device)->description());
    body(**device);
    EXPECT_TRUE((*device)->Synchronize().ok());
  }
}

// A host tensor's copy on a device. With `padding`, each row is followed by that many elements of
// poison.
class DeviceTensor {
 public:
  DeviceTensor(Device& device, const HostTensor& host, int64_t padding = 0);

  TensorView view() const;
  // What the tensor holds now; the padding must still be poison.
  HostTensor Read() const;

 private:
  Device& device_;
  DType dtype_;
  Shape shape_;
  int64_t padding_;
  Tensor storage_;  // [rows, columns + padding]
};

}  // namespace cohort

#endif  // COHORT_TESTS_KERNELS_DEVICES_H_
