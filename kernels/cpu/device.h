// The CPU as a device: host memory, a thread pool, operations that are done when they return.
#ifndef COHORT_KERNELS_CPU_DEVICE_H_
#define COHORT_KERNELS_CPU_DEVICE_H_

#include <memory>
#include <string>

#include "kernels/cpu/ops.h"
#include "kernels/cpu/thread_pool.h"
#include "kernels/device.h"

namespace cohort {

class CpuDevice : public Device {
 public:
  static absl::StatusOr<std::unique_ptr<Device>> Create(int threads, StringView instruction_set);

  StringView kind() const override { return "cpu"; }
  std::string description() const override;
  absl::StatusOr<Tensor> Allocate(Shape shape, DType dtype) override;
  void CopyFromHost(const void* source, TensorView destination) override;
  void CopyToHost(TensorView source, void* destination) override;
  absl::Status Synchronize() override { return absl::OkStatus(); }
  Ops& ops() override { return ops_; }

 private:
  CpuDevice(std::unique_ptr<ThreadPool> threads, InstructionSet instruction_set)
      : threads_(std::move(threads)),
        instruction_set_(instruction_set),
        ops_(threads_.get(), instruction_set) {}

  std::unique_ptr<ThreadPool> threads_;
  const InstructionSet instruction_set_;
  CpuOps ops_;
};

}  // namespace cohort

#endif  // COHORT_KERNELS_CPU_DEVICE_H_
