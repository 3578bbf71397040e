// Speed of the experts of one layer, random rows sent to random experts: the shapes are those of
// Qwen2-57B-A14B, and a few layers take turns so that no cache holds them. Prints for every batch
// the bytes of the distinct chosen experts read per second as a part of the read bandwidth measured
// in turn with them; then the same for the whole layer, with router and shared expert.
//
//   kernel_expert_bench [--threads=2] [--instruction-set=] [--layers=2] [--rounds=7]
//                       [--batches=1,2,4,8,16,64] [--clock=wall]
#include <algorithm>
#include <cstdio>
#include <cstring>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "kernels/check.h"
#include "kernels/ops.h"
#include "tests/bench/flags.h"
#include "tests/bench/kernel_bandwidth.h"

namespace cohort {
namespace {

constexpr int64_t kHidden = 3584;
constexpr int64_t kExperts = 64;
constexpr int64_t kChosen = 8;
constexpr int64_t kColumns = 2560;
constexpr int64_t kSharedColumns = 20480;

// Random numbers of the deviation of trained weights, repeated: their bytes are what is measured.
Tensor RandomTensor(Device& device, Shape shape) {
  constexpr int64_t kPeriod = 65537;
  static const std::vector<BFloat16> numbers = [] {
    std::mt19937 random(1);
    std::normal_distribution<float> normal(0, 0.02f);
    std::vector<BFloat16> drawn(kPeriod);
    for (BFloat16& number : drawn) number = BFloat16::FromFloat(normal(random));
    return drawn;
  }();
  auto tensor = device.Allocate(shape, DType::kBF16);
  CHECK_OK(tensor.status());
  BFloat16* const data = tensor->view().As<BFloat16>();
  for (int64_t i = 0; i < shape.elements(); i += kPeriod) {
    const int64_t count = std::min(kPeriod, shape.elements() - i);
    std::memcpy(static_cast<void*>(data + i), numbers.data(),
                static_cast<size_t>(count) * sizeof(BFloat16));
  }
  return *std::move(tensor);
}

Tensor Memory(Device& device, Shape shape, DType dtype) {
  auto tensor = device.Allocate(shape, dtype);
  CHECK_OK(tensor.status());
  std::memset(tensor->view().data, 0, static_cast<size_t>(tensor->bytes()));
  return *std::move(tensor);
}

struct Layer {
  Tensor gate_up, down, shared_gate_up, shared_down, router;

  explicit Layer(Device& device)
      : gate_up(RandomTensor(device, {kExperts, 2 * kColumns, kHidden})),
        down(RandomTensor(device, {kExperts, kHidden, kColumns})),
        shared_gate_up(RandomTensor(device, {2 * kSharedColumns, kHidden})),
        shared_down(RandomTensor(device, {kHidden, kSharedColumns})),
        router(RandomTensor(device, {kExperts + 1, kHidden})) {}

  double shared_bytes() const {
    return static_cast<double>(shared_gate_up.bytes() + shared_down.bytes() + router.bytes());
  }
};

// Everything that a step of `batch` rows passes through.
class Step {
 public:
  Step(Device& device, int64_t batch)
      : device_(device),
        x_(Memory(device, {batch, kHidden}, DType::kBF16)),
        logits_(Memory(device, {batch, kExperts + 1}, DType::kBF16)),
        ids_(Memory(device, {batch, kChosen}, DType::kI32)),
        weights_(Memory(device, {batch, kChosen}, DType::kF32)),
        gate_up_(Memory(device, {batch * kChosen, 2 * kColumns}, DType::kBF16)),
        activated_(Memory(device, {batch * kChosen, kColumns}, DType::kBF16)),
        shared_gate_up_(Memory(device, {batch, 2 * kSharedColumns}, DType::kBF16)),
        shared_activated_(Memory(device, {batch, kSharedColumns}, DType::kBF16)),
        shared_(Memory(device, {batch, kHidden}, DType::kF32)),
        out_(Memory(device, {batch, kHidden}, DType::kF32)) {}

  // New rows: independent normal numbers send them to any experts.
  void Draw(std::mt19937& random) {
    std::normal_distribution<float> normal;
    BFloat16* const x = x_.view().As<BFloat16>();
    for (int64_t i = 0; i < x_.view().shape.elements(); ++i) {
      x[i] = BFloat16::FromFloat(normal(random));
    }
  }
  void Route(const Layer& layer) {
    device_.ops().MatMul(x_.view(), {layer.router.view()}, nullptr, logits_.view());
    device_.ops().RouteTopK(logits_.view().Columns(0, kExperts), false, routing());
  }
  void Routed(const Layer& layer) {
    device_.ops().RoutedFfn(x_.view(), routing(), {layer.gate_up.view(), layer.down.view(), 0},
                            {gate_up_.view(), activated_.view()}, out_.view());
  }
  void Shared(const Layer& layer) {
    device_.ops().ProjectGateUp(x_.view(), {layer.shared_gate_up.view()}, shared_gate_up_.view(),
                                shared_activated_.view());
    device_.ops().MatMul(shared_activated_.view(), {layer.shared_down.view()}, nullptr,
                         shared_.view());
    device_.ops().AddGated(shared_.view(), logits_.view().Columns(kExperts, 1), out_.view());
  }
  int64_t DistinctExperts() const {
    const int32_t* const ids = ids_.view().As<int32_t>();
    return static_cast<int64_t>(std::set<int32_t>(ids, ids + ids_.view().shape.elements()).size());
  }

 private:
  Routing routing() const { return {ids_.view(), weights_.view()}; }

  Device& device_;
  Tensor x_, logits_, ids_, weights_, gate_up_, activated_, shared_gate_up_, shared_activated_,
      shared_, out_;
};

void Report(const char* what, int64_t batch, double distinct, const std::vector<double>& speeds,
            const std::vector<double>& fractions) {
  std::printf(
      "%-7s batch %3ld  %4.1f experts  %6.1f GB/s  %.2f of the read bandwidth (best %.2f)\n", what,
      batch, distinct, Median(speeds) / 1e9, Median(fractions),
      *std::max_element(fractions.begin(), fractions.end()));
  std::fflush(stdout);
}

void Measure(Device& device, const std::vector<Layer>& layers, int64_t batch, int64_t rounds,
             Clock clock, ReadBandwidth& memory) {
  constexpr double kExpertBytes = 2.0 * 3 * kHidden * kColumns;
  Step step(device, batch);
  std::mt19937 random(static_cast<uint32_t>(batch));
  std::vector<double> routed, routed_fractions, whole, whole_fractions;
  double distinct = 0;
  for (int64_t round = 0; round < rounds; ++round) {
    double routed_bytes = 0, whole_bytes = 0, routed_seconds = 0, whole_seconds = 0;
    for (const Layer& layer : layers) {
      step.Draw(random);
      const double start = clock();
      step.Route(layer);
      const double begin = clock();
      step.Routed(layer);
      routed_seconds += clock() - begin;
      step.Shared(layer);
      whole_seconds += clock() - start;
      const double experts = static_cast<double>(step.DistinctExperts());
      distinct += experts / static_cast<double>(rounds * static_cast<int64_t>(layers.size()));
      routed_bytes += experts * kExpertBytes;
      whole_bytes += experts * kExpertBytes + layer.shared_bytes();
    }
    const double bandwidth = memory.Measure();
    routed.push_back(routed_bytes / routed_seconds);
    routed_fractions.push_back(routed.back() / bandwidth);
    whole.push_back(whole_bytes / whole_seconds);
    whole_fractions.push_back(whole.back() / bandwidth);
  }
  Report("routed", batch, distinct, routed, routed_fractions);
  Report("layer", batch, distinct, whole, whole_fractions);
}

Flags Defaults() {
  return {{"threads", "2"}, {"instruction-set", ""},      {"layers", "2"},
          {"rounds", "7"},  {"batches", "1,2,4,8,16,64"}, {"clock", "wall"}};
}

void Main(const Flags& flags) {
  DeviceOptions options;
  options.threads = static_cast<int>(Number(flags, "threads"));
  options.instruction_set = flags.at("instruction-set");
  auto device = Device::Create(options);
  CHECK_OK(device.status());
  std::printf("%s\n", (*device)->description().c_str());
  const Clock clock = flags.at("clock") == "cpu" ? CpuSeconds : WallSeconds;
  std::vector<Layer> layers;
  for (int64_t layer = 0; layer < Number(flags, "layers"); ++layer) {
    layers.emplace_back(**device);
  }
  ReadBandwidth memory(options.threads, clock);
  for (const int64_t batch : Numbers(flags, "batches")) {
    Measure(**device, layers, batch, Number(flags, "rounds"), clock, memory);
  }
}

}  // namespace
}  // namespace cohort

int main(int argc, char** argv) {
  cohort::Main(cohort::ParseFlags(argc, argv, cohort::Defaults()));
}
