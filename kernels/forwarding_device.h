// A device that hands everything to another one. Derived classes change what they are about.
#ifndef COHORT_KERNELS_FORWARDING_DEVICE_H_
#define COHORT_KERNELS_FORWARDING_DEVICE_H_

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "kernels/device.h"

namespace cohort {

class ForwardingDevice : public Device {
 public:
  explicit ForwardingDevice(std::unique_ptr<Device> device) : device_(std::move(device)) {}

  StringView kind() const override { return device_->kind(); }
  std::string description() const override { return device_->description(); }
  absl::StatusOr<Tensor> Allocate(Shape shape, DType dtype) override {
    return device_->Allocate(shape, dtype);
  }
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
  absl::StatusOr<std::unique_ptr<CopyQueue>> CreateCopyQueue() override {
    return device_->CreateCopyQueue();
  }
  absl::StatusOr<std::unique_ptr<PinnedHost>> PinHost(const void* begin, int64_t bytes) override {
    return device_->PinHost(begin, bytes);
  }
  std::optional<int> host_node() const override { return device_->host_node(); }
  bool records_steps() const override { return device_->records_steps(); }
  absl::StatusOr<std::unique_ptr<Recording>> Record(std::function<void()> work) override {
    return device_->Record(std::move(work));
  }
  absl::StatusOr<DeviceMemory> memory() const override { return device_->memory(); }
  absl::Status Synchronize() override { return device_->Synchronize(); }
  Ops& ops() override { return device_->ops(); }

 private:
  std::unique_ptr<Device> device_;
};

}  // namespace cohort

#endif  // COHORT_KERNELS_FORWARDING_DEVICE_H_
