// A device that counts what is allocated on it, so that a worker can tell what it really took
// beside what was planned; the host's memory is not counted. Everything else is the other device's.
#ifndef COHORT_RUNTIME_METERED_DEVICE_H_
#define COHORT_RUNTIME_METERED_DEVICE_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <utility>

#include "kernels/device.h"

namespace cohort {

class MeteredDevice final : public Device {
 public:
  explicit MeteredDevice(std::unique_ptr<Device> device) : device_(std::move(device)) {}

  // Bytes of all tensors allocated since the last call, freed or not.
  int64_t TakeBytes() { return std::exchange(bytes_, 0); }

  StringView kind() const override { return device_->kind(); }
  std::string description() const override { return device_->description(); }
  absl::StatusOr<Tensor> Allocate(Shape shape, DType dtype) override;
  void CopyFromHost(const void* source, TensorView destination) override {
    device_->CopyFromHost(source, destination);
  }
  void CopyToHost(TensorView source, void* destination) override {
    device_->CopyToHost(source, destination);
  }
  absl::StatusOr<Tensor> AllocateHost(Shape shape, DType dtype) override {
    return device_->AllocateHost(shape, dtype);
  }
  void EnqueueCopyFromHost(const void* source, TensorView destination) override {
    device_->EnqueueCopyFromHost(source, destination);
  }
  void EnqueueCopyToHost(TensorView source, void* destination) override {
    device_->EnqueueCopyToHost(source, destination);
  }
  absl::StatusOr<std::unique_ptr<Mark>> CreateMark() override { return device_->CreateMark(); }
  bool records_steps() const override { return device_->records_steps(); }
  absl::StatusOr<std::unique_ptr<Recording>> Record(std::function<void()> work) override {
    return device_->Record(std::move(work));
  }
  absl::StatusOr<DeviceMemory> memory() const override { return device_->memory(); }
  absl::Status Synchronize() override { return device_->Synchronize(); }
  Ops& ops() override { return device_->ops(); }

 private:
  std::unique_ptr<Device> device_;
  int64_t bytes_ = 0;
};

}  // namespace cohort

#endif  // COHORT_RUNTIME_METERED_DEVICE_H_
