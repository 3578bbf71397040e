#include "kernels/device.h"

#include "kernels/cpu/device.h"
#include "kernels/plugin_device.h"

namespace cohort {
namespace {

absl::Status UnknownKind(StringView kind) {
  return absl::InvalidArgumentError(
      absl::StrCat("unknown device kind \"", kind, "\": expected cpu or cuda"));
}

}  // namespace

absl::StatusOr<std::unique_ptr<Device>> Device::Create(const DeviceOptions& options) {
  if (options.kind == "cpu") {
    return CpuDevice::Create(options);
  }
  if (options.kind == "cuda") {
    return MakePluginDevice(options);
  }
  return UnknownKind(options.kind);
}

absl::Status DeviceAvailable(StringView kind) {
  if (kind == "cpu") {
    return absl::OkStatus();
  }
  return kind == "cuda" ? PluginAvailable() : UnknownKind(kind);
}

}  // namespace cohort
