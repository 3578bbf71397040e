// Measures what a rank's host pays for a recorded decode step: decoding the plan, Worker::Enqueue,
// Worker::Collect of the step before and encoding its result. The device does nothing for a
// recording, so nothing of the model's own time is in the figures. Prints one JSON object per line
// and number of sequences.
//
//   recorded_step_bench [STEPS [SEQUENCES...]]
#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "kernels/check.h"
#include "kernels/forwarding_device.h"
#include "runtime/worker.h"

namespace cohort {
namespace {

using Clock = std::chrono::steady_clock;

constexpr int64_t kPromptTokens = 64;
constexpr int64_t kBlockSize = 16;

constexpr char kConfig[] = R"({
  "architectures": ["Qwen2ForCausalLM"],
  "model_type": "qwen2",
  "hidden_act": "silu",
  "hidden_size": 8,
  "num_hidden_layers": 1,
  "num_attention_heads": 1,
  "num_key_value_heads": 1,
  "intermediate_size": 8,
  "vocab_size": 64,
  "max_position_embeddings": 32768,
  "rms_norm_eps": 1e-06,
  "rope_theta": 10000.0,
  "tie_word_embeddings": false,
  "use_sliding_window": false
})";

class EmptyRecording : public Recording {
 public:
  void Enqueue() override {}
};

// The CPU, whose recordings are empty: tokens stay what they were.
class IdleDevice : public ForwardingDevice {
 public:
  using ForwardingDevice::ForwardingDevice;

  bool records_steps() const override { return true; }
  absl::StatusOr<std::unique_ptr<Recording>> Record(std::function<void()>) override {
    return std::make_unique<EmptyRecording>();
  }
};

std::unique_ptr<Worker> MakeWorker(int64_t sequences, int64_t steps) {
  const auto config = ParseModelConfig(kConfig, "config.json");
  CHECK_OK(config.status());
  WorkerOptions options;
  options.dummy_weights = true;
  options.token_ids = config->vocabulary;
  options.dtype = DType::kF32;
  options.block_size = kBlockSize;
  options.max_model_len = kPromptTokens + steps + 4;
  options.kv_blocks = sequences * ((options.max_model_len + kBlockSize - 1) / kBlockSize);
  options.max_running = sequences;
  options.max_batch_tokens = sequences * kPromptTokens;
  auto cpu = Device::Create({});
  CHECK_OK(cpu.status());
  auto worker = Worker::Create(*config, options, std::make_unique<IdleDevice>(*std::move(cpu)),
                               /*progress=*/nullptr);
  CHECK_OK(worker.status());
  CHECK_OK((*worker)->JoinEpoch(1, MakeSelfCommunicator()));
  return *std::move(worker);
}

// Sequences begin a token apart, so that in every step some of them need another block.
int64_t PromptOf(int64_t slot) { return kPromptTokens - slot % kBlockSize; }

int64_t BlockOf(int64_t slot, int64_t position, int64_t steps) {
  return slot * ((kPromptTokens + steps + 4 + kBlockSize - 1) / kBlockSize) + position / kBlockSize;
}

std::string FirstPlan(int64_t sequences, int64_t steps) {
  StepPlan plan{.epoch = 1, .step = 1, .admits = {}, .rows = {}, .releases = {}};
  for (int64_t slot = 0; slot < sequences; ++slot) {
    plan.admits.push_back({.slot = static_cast<uint32_t>(slot),
                           .prompt_tokens = static_cast<uint64_t>(PromptOf(slot)),
                           .sampling = {.temperature = 1, .top_p = 0.9f, .top_k = 20}});
    SequenceRows& rows = plan.rows.emplace_back();
    rows.slot = static_cast<uint32_t>(slot);
    rows.sample = true;
    rows.tokens.resize(static_cast<size_t>(PromptOf(slot)), {.id = 1});
    for (int64_t position = 0; position < PromptOf(slot); position += kBlockSize) {
      rows.appended_blocks.push_back(static_cast<int32_t>(BlockOf(slot, position, steps)));
    }
  }
  return Encode(plan);
}

std::string DecodePlan(int64_t sequences, int64_t steps, uint64_t step) {
  StepPlan plan{.epoch = 1, .step = step, .admits = {}, .rows = {}, .releases = {}};
  for (int64_t slot = 0; slot < sequences; ++slot) {
    const int64_t position = PromptOf(slot) + static_cast<int64_t>(step) - 2;
    SequenceRows& rows = plan.rows.emplace_back();
    rows.slot = static_cast<uint32_t>(slot);
    rows.first_position = static_cast<uint64_t>(position);
    rows.tokens = {{.sampled_in_step = step - 1}};
    rows.sample = true;
    if (position % kBlockSize == 0) {
      rows.appended_blocks = {static_cast<int32_t>(BlockOf(slot, position, steps))};
    }
  }
  return Encode(plan);
}

// As StepLoop does, whose plan and result serve again.
void Enqueue(Worker& worker, const std::string& bytes) {
  static StepPlan plan;
  CHECK_OK(DecodeStepPlan(bytes, plan));
  CHECK(plan.step == 1 || worker.RunsAhead(plan)) << "step " << plan.step;
  CHECK_OK(worker.Enqueue(plan));
}

size_t Collect(Worker& worker) {
  static StepResult result;
  CHECK_OK(worker.Collect(result));
  return Encode(result).size();
}

void Measure(int64_t sequences, int64_t steps) {
  const std::unique_ptr<Worker> worker = MakeWorker(sequences, steps);
  std::vector<std::string> plans = {FirstPlan(sequences, steps)};
  for (int64_t i = 0; i < steps + 3; ++i) {
    plans.push_back(DecodePlan(sequences, steps, static_cast<uint64_t>(i) + 2));
  }
  Enqueue(*worker, plans[0]);
  Collect(*worker);
  // The first step of a size is computed, the second recorded.
  Enqueue(*worker, plans[1]);
  Collect(*worker);
  Enqueue(*worker, plans[2]);
  std::vector<double> microseconds;
  size_t bytes = 0;
  for (size_t i = 3; i < plans.size(); ++i) {
    const Clock::time_point start = Clock::now();
    Enqueue(*worker, plans[i]);
    bytes += Collect(*worker);
    microseconds.push_back(std::chrono::duration<double, std::micro>(Clock::now() - start).count());
  }
  std::sort(microseconds.begin(), microseconds.end());
  std::printf(
      "{\"sequences\": %lld, \"steps\": %zu, \"median_us\": %.2f, \"p99_us\": %.2f, "
      "\"result_bytes\": %zu}\n",
      static_cast<long long>(sequences), microseconds.size(), microseconds[microseconds.size() / 2],
      microseconds[microseconds.size() * 99 / 100], bytes / microseconds.size());
}

}  // namespace
}  // namespace cohort

int main(int argc, char** argv) {
  const int64_t steps = argc > 1 ? std::max(1LL, std::atoll(argv[1])) : 2000;
  std::vector<int64_t> sequences = {1, 8, 64, 256};
  if (argc > 2) {
    sequences.clear();
    for (int i = 2; i < argc; ++i) {
      sequences.push_back(std::max(1LL, std::atoll(argv[i])));
    }
  }
  for (const int64_t count : sequences) {
    cohort::Measure(count, steps);
  }
  return 0;
}
