#include "tests/gpu/bench_setup.h"

#include <algorithm>
#include <random>

#include "kernels/bfloat16.h"
#include "kernels/check.h"
#include "runtime/published_configs.h"
#include "tests/gpu/measurement.h"

namespace cohort::gpu {

Flags WithCommonFlags(Flags flags) {
  flags.insert({{"device", "cuda"}, {"rounds", "7"}, {"persistent-step", "auto"}});
  return flags;
}

ModelConfig ConfigOf(const std::string& name) {
  for (const PublishedModel& model : PublishedModels()) {
    if (model.name == name) {
      auto config = ParseModelConfig(model.config_json, name);
      CHECK_OK(config.status());
      return *std::move(config);
    }
  }
  auto config = LoadModelConfig(name);
  CHECK_OK(config.status());
  return *std::move(config);
}

std::string ShortName(const std::string& model) { return model.substr(model.rfind('/') + 1); }

std::unique_ptr<Device> OpenDevice(const Flags& flags) {
  DeviceOptions options;
  options.kind = flags.at("device");
  options.threads = 2;  // of the CPU, where the programs are tried out
  const std::string& persistent = flags.at("persistent-step");
  CHECK(persistent == "auto" || persistent == "on" || persistent == "off")
      << "--persistent-step=" << persistent << " is neither auto nor on nor off";
  if (persistent != "auto") {
    options.persistent_steps = persistent == "on";
  }
  auto device = Device::Create(options);
  CHECK_OK(device.status());
  return *std::move(device);
}

Tensor Allocate(Device& device, Shape shape, DType dtype) {
  auto tensor = device.Allocate(shape, dtype);
  CHECK_OK(tensor.status());
  return *std::move(tensor);
}

Tensor RandomTensor(Device& device, Shape shape) {
  constexpr int64_t kPeriod = (int64_t{1} << 24) - 3;  // no multiple of any row
  static const std::vector<BFloat16> numbers = [] {
    std::minstd_rand random(1);
    std::vector<BFloat16> drawn(static_cast<size_t>(kPeriod));
    for (BFloat16& number : drawn) {
      const double uniform = static_cast<double>(random() % 65536) / 65536;
      number = BFloat16::FromFloat(static_cast<float>((uniform - 0.5) * 0.07));
    }
    return drawn;
  }();
  Tensor tensor = Allocate(device, shape, DType::kBF16);
  const int64_t elements = shape.elements();
  for (int64_t i = 0; i < elements; i += kPeriod) {
    const int64_t count = std::min(kPeriod, elements - i);
    device.CopyFromHost(numbers.data(),
                        TensorView(tensor.view().As<BFloat16>() + i, DType::kBF16, Shape{count}));
  }
  return tensor;
}

Tensor Integers(Device& device, Shape shape, const std::vector<int32_t>& numbers) {
  CHECK_EQ(shape.elements(), static_cast<int64_t>(numbers.size()));
  Tensor tensor = Allocate(device, shape, DType::kI32);
  device.CopyFromHost(numbers.data(), tensor.view());
  return tensor;
}

std::vector<double> SecondsPerCall(Device& device, int64_t calls, int64_t rounds,
                                   const std::function<void(int64_t)>& call) {
  const auto enqueue = [calls, &call] {
    for (int64_t i = 0; i < calls; ++i) {
      call(i);
    }
  };
  enqueue();  // loads kernels, chooses algorithms
  CHECK_OK(device.Synchronize());
  // One launch for all calls: otherwise the host's part of short ones would be measured.
  std::unique_ptr<Recording> recording;
  if (device.records_steps()) {
    auto recorded = device.Record(enqueue);
    CHECK_OK(recorded.status());
    recording = *std::move(recorded);
  }
  std::vector<double> seconds;
  for (int64_t round = -1; round < rounds; ++round) {  // the first one warms up
    const double begin = Now();
    recording != nullptr ? recording->Enqueue() : enqueue();
    CHECK_OK(device.Synchronize());
    if (round >= 0) {
      seconds.push_back((Now() - begin) / static_cast<double>(calls));
    }
  }
  return seconds;
}

}  // namespace cohort::gpu
