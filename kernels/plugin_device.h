// A CUDA device behind the plugin: the core's side of kernels/cuda_plugin.h. No CUDA header is
// needed to compile it and no CUDA library to start the program.
#ifndef COHORT_KERNELS_PLUGIN_DEVICE_H_
#define COHORT_KERNELS_PLUGIN_DEVICE_H_

#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "kernels/cuda_plugin.h"
#include "kernels/device.h"
#include "kernels/plugin_ops.h"

namespace cohort {

// OK when CUDA devices can be created here; otherwise FAILED_PRECONDITION, one line that says what
// is missing (the plugin, a library, the driver, a device, an operation) and the way out.
absl::Status PluginAvailable();

// How many devices this host shows. Fails as PluginAvailable() does.
absl::StatusOr<int> PluginDeviceCount();

// Bytes of the device of this host that has least, as the driver reports them; takes nothing of it.
absl::StatusOr<int64_t> PluginDeviceMemory();

// The device with ordinal `options.index`. Fails as PluginAvailable() does, and with
// INVALID_ARGUMENT for an index outside the devices present.
absl::StatusOr<std::unique_ptr<Device>> MakePluginDevice(const DeviceOptions& options);

class PluginDevice : public Device {
 public:
  // Takes `handle`, which `table` created for device `index`.
  PluginDevice(const CohortCudaTable* table, CohortCudaDevice* handle, int index,
               std::string description, bool records_steps = true,
               std::optional<bool> persistent_steps = {});
  ~PluginDevice() override;
  PluginDevice(const PluginDevice&) = delete;
  PluginDevice& operator=(const PluginDevice&) = delete;

  StringView kind() const override { return "cuda"; }
  std::string description() const override { return description_; }
  absl::StatusOr<Tensor> Allocate(Shape shape, DType dtype) override;
  void CopyFromHost(const void* source, TensorView destination) override;
  void CopyToHost(TensorView source, void* destination) override;
  absl::StatusOr<Tensor> AllocateHost(Shape shape, DType dtype) override;
  void EnqueueCopyFromHost(const void* source, TensorView destination) override;
  void EnqueueCopyToHost(TensorView source, void* destination) override;
  absl::StatusOr<std::unique_ptr<Mark>> CreateMark() override;
  absl::StatusOr<std::unique_ptr<CopyQueue>> CreateCopyQueue() override;
  absl::StatusOr<std::unique_ptr<PinnedHost>> PinHost(const void* begin, int64_t bytes) override;
  std::optional<int> host_node() const override;
  bool records_steps() const override;
  absl::StatusOr<std::unique_ptr<Recording>> Record(std::function<void()> work) override;
  absl::StatusOr<DeviceMemory> memory() const override;
  absl::Status Synchronize() override;
  Ops& ops() override { return ops_; }

  // For the communicator that works on this device's stream.
  const CohortCudaTable* table() const { return table_; }
  CohortCudaDevice* handle() const { return handle_; }

 private:
  const CohortCudaTable* table_;  // lives as long as the process
  CohortCudaDevice* handle_;      // owned
  int index_;
  std::string description_;
  bool records_steps_;
  PluginOps ops_;
};

}  // namespace cohort

#endif  // COHORT_KERNELS_PLUGIN_DEVICE_H_
