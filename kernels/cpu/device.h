// The CPU as a device: host memory, a thread pool, operations that are done when they return.
#ifndef COHORT_KERNELS_CPU_DEVICE_H_
#define COHORT_KERNELS_CPU_DEVICE_H_

#include <memory>
#include <optional>
#include <string>

#include "kernels/cpu/ops.h"
#include "kernels/cpu/thread_pool.h"
#include "kernels/device.h"

namespace cohort {

class CpuDevice : public Device {
 public:
  static absl::StatusOr<std::unique_ptr<Device>> Create(const DeviceOptions& options);

  StringView kind() const override { return "cpu"; }
  std::string description() const override;
  absl::StatusOr<Tensor> Allocate(Shape shape, DType dtype) override;
  void CopyFromHost(const void* source, TensorView destination) override;
  void CopyToHost(TensorView source, void* destination) override;
  absl::StatusOr<Tensor> AllocateHost(Shape shape, DType dtype) override {
    return Allocate(shape, dtype);
  }
  void EnqueueCopyFromHost(const void* source, TensorView destination) override {
    CopyFromHost(source, destination);
  }
  void EnqueueCopyToHost(TensorView source, void* destination) override {
    CopyToHost(source, destination);
  }
  absl::StatusOr<std::unique_ptr<Mark>> CreateMark() override;
  absl::StatusOr<std::unique_ptr<CopyQueue>> CreateCopyQueue() override;
  absl::StatusOr<std::unique_ptr<PinnedHost>> PinHost(const void*, int64_t) override {
    return std::make_unique<PinnedHost>();
  }
  std::optional<int> host_node() const override { return std::nullopt; }
  bool records_steps() const override { return records_steps_; }
  absl::StatusOr<std::unique_ptr<Recording>> Record(std::function<void()> work) override;
  absl::StatusOr<DeviceMemory> memory() const override;
  absl::Status Synchronize() override { return absl::OkStatus(); }
  Ops& ops() override { return ops_; }

 private:
  CpuDevice(std::unique_ptr<ThreadPool> threads, InstructionSet instruction_set, bool records_steps)
      : threads_(std::move(threads)),
        instruction_set_(instruction_set),
        records_steps_(records_steps),
        ops_(threads_.get(), instruction_set) {}

  std::unique_ptr<ThreadPool> threads_;
  const InstructionSet instruction_set_;
  const bool records_steps_;
  CpuOps ops_;
};

}  // namespace cohort

#endif  // COHORT_KERNELS_CPU_DEVICE_H_
