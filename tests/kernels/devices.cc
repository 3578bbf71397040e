#include "tests/kernels/devices.h"

#include <cstdlib>

#include "kernels/cpu/instruction_set.h"

namespace cohort {

std::vector<DeviceOptions> TestDevices() {
  std::vector<DeviceOptions> devices;
  const char* only = std::getenv("COHORT_TEST_DEVICE");
  const auto is_wanted = [&](StringView kind) { return only == nullptr || kind == only; };
  if (is_wanted("cpu")) {
    for (const InstructionSet set : SupportedInstructionSets()) {
      DeviceOptions options;
      options.threads = 3;
      options.instruction_set = std::string(NameOf(set));
      devices.push_back(options);
    }
    devices.push_back(DeviceOptions());
  }
  // Where it is asked for by name it must be there.
  if (is_wanted("cuda") && (only != nullptr || DeviceAvailable("cuda").ok())) {
    DeviceOptions options;
    options.kind = "cuda";
    devices.push_back(options);
  }
  return devices;
}

DeviceTensor::DeviceTensor(Device& device, const HostTensor& host, int64_t padding)
    : device_(device), dtype_(host.dtype), shape_(host.shape), padding_(padding) {
  const int64_t width = host.columns() + padding;
  HostTensor padded = Poison(host.dtype, Shape{host.rows(), width});
  for (int64_t row = 0; row < host.rows(); ++row) {
    for (int64_t column = 0; column < host.columns(); ++column) {
      padded.At(row, column) = host.At(row, column);
    }
  }
  absl::StatusOr<Tensor> tensor = device.Allocate(padded.shape, host.dtype);
  CHECK_OK(tensor.status());
  storage_ = std::move(*tensor);
  const std::vector<uint8_t> bytes = Encode(padded);
  device.CopyFromHost(bytes.data(), storage_.view());
}

TensorView DeviceTensor::view() const {
  return TensorView(storage_.view().data, dtype_, shape_, storage_.view().columns());
}

HostTensor DeviceTensor::Read() const {
  std::vector<uint8_t> bytes(static_cast<size_t>(storage_.bytes()));
  device_.CopyToHost(storage_.view(), bytes.data());
  const HostTensor padded = Decode(bytes, dtype_, storage_.view().shape);
  HostTensor result = Filled(dtype_, shape_, 0);
  const int64_t columns = result.columns();
  for (int64_t row = 0; row < result.rows(); ++row) {
    for (int64_t column = 0; column < columns; ++column) {
      result.At(row, column) = padded.At(row, column);
    }
    const std::vector<double> gap(padded.values.begin() + row * padded.columns() + columns,
                                  padded.values.begin() + (row + 1) * padded.columns());
    ExpectSame({dtype_, Shape{padding_}, gap}, Poison(dtype_, Shape{padding_}));
  }
  return result;
}

}  // namespace cohort
