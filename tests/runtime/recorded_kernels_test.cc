// How a GPU starts the kernels of a recorded decode step: each before the one ahead of it has
// ended. An edge of the graph that is not programmatic costs a microsecond and is seen nowhere
// else.
#include <gtest/gtest.h>

#include <functional>
#include <memory>
#include <utility>
#include <vector>

#include "kernels/forwarding_device.h"
#include "parallel/communicator.h"
#include "runtime/worker.h"
#include "tests/runtime/checkpoint_writer.h"

namespace cohort {
namespace {

constexpr int64_t kRecordedPrompt = 3;

// Keeps how the kernels of everything recorded start.
class CountingDevice : public ForwardingDevice {
 public:
  CountingDevice(std::unique_ptr<Device> device, std::vector<Recording::Kernels>& recorded)
      : ForwardingDevice(std::move(device)), recorded_(recorded) {}

  absl::StatusOr<std::unique_ptr<Recording>> Record(std::function<void()> work) override {
    auto recording = ForwardingDevice::Record(std::move(work));
    if (recording.ok()) {
      recorded_.push_back((*recording)->kernels());
    }
    return recording;
  }

 private:
  std::vector<Recording::Kernels>& recorded_;
};

// Everything a multiple of what the kernels take, as in published models.
ModelConfig DenseConfig() {
  return TinyConfig(
      {.hidden = 128, .heads = 2, .kv_heads = 1, .ffn_columns = 64, .layers = 3, .vocabulary = 64});
}

WorkerOptions OptionsFor(const ModelConfig& config, int64_t sequences) {
  WorkerOptions options;
  options.dummy_weights = true;
  options.token_ids = config.vocabulary;
  options.dtype = DType::kBF16;
  options.kv_blocks = sequences;
  options.max_batch_tokens = sequences * kRecordedPrompt;
  options.max_running = sequences;
  options.max_model_len = options.block_size;
  return options;
}

StepPlan PlanFor(uint64_t step, int64_t sequences, const SamplingParameters& sampling) {
  StepPlan plan{.epoch = 1, .step = step, .admits = {}, .rows = {}, .releases = {}};
  for (uint32_t slot = 0; slot < sequences; ++slot) {
    SequenceRows& rows = plan.rows.emplace_back();
    rows.slot = slot;
    rows.sample = true;
    if (step == 1) {
      plan.admits.push_back({.slot = slot, .prompt_tokens = kRecordedPrompt, .sampling = sampling});
      rows.tokens.resize(kRecordedPrompt, {.id = 1});
      rows.appended_blocks = {static_cast<int32_t>(slot)};
    } else {
      rows.first_position = kRecordedPrompt + step - 2;
      rows.tokens = {{.sampled_in_step = step - 1}};
    }
  }
  return plan;
}

struct RecordedStep {
  Recording::Kernels kernels;
  std::vector<int32_t> tokens;  // of all steps
};

// The first step of a size is computed as it comes, the second is recorded.
RecordedStep RecordStep(const ModelConfig& config, int64_t sequences,
                        const SamplingParameters& sampling, bool persistent) {
  std::vector<Recording::Kernels> recorded;
  auto device = Device::Create({.kind = "cuda", .persistent_steps = persistent});
  CHECK_OK(device.status());
  auto worker =
      Worker::Create(config, OptionsFor(config, sequences),
                     std::make_unique<CountingDevice>(*std::move(device), recorded), nullptr);
  CHECK_OK(worker.status());
  CHECK_OK((*worker)->JoinEpoch(1, MakeSelfCommunicator()));
  RecordedStep result;
  for (uint64_t step = 1; step <= 5; ++step) {
    const auto answer = (*worker)->Run(PlanFor(step, sequences, sampling));
    CHECK_OK(answer.status());
    for (const auto& sequence : answer->sequences) {
      result.tokens.push_back(sequence.tokens.at(0));
    }
  }
  CHECK_EQ(recorded.size(), 1u);
  result.kernels = recorded.front();
  return result;
}

class RecordedKernelsTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!DeviceAvailable("cuda").ok()) {
      GTEST_SKIP() << DeviceAvailable("cuda");
    }
  }
};

// All kernels are ours up to 16 rows, and one starts behind the other.
TEST_F(RecordedKernelsTest, StartProgrammaticallyInADenseStep) {
  const SamplingParameters kinds[] = {{},
                                      {.temperature = 1, .top_p = 0.9f, .top_k = 20},
                                      {.temperature = 1},
                                      {.temperature = 1, .top_p = 0.9f}};
  for (const int64_t sequences : {1, 8, 16}) {
    for (const SamplingParameters& sampling : kinds) {
      SCOPED_TRACE(absl::StrCat(sequences, " rows at temperature ", sampling.temperature));
      const Recording::Kernels kernels =
          RecordStep(DenseConfig(), sequences, sampling, /*persistent=*/false).kernels;
      EXPECT_GE(kernels.count, 3 * 7);
      EXPECT_EQ(kernels.pairs, kernels.count - 1);
      EXPECT_EQ(kernels.programmatic, kernels.pairs);
    }
  }
}

// All layers in one kernel, up to 8 rows: the same tokens.
TEST_F(RecordedKernelsTest, AreFewerWithOneForAllLayers) {
  for (const int64_t sequences : {1, 8, 9}) {
    SCOPED_TRACE(absl::StrCat(sequences, " rows"));
    const SamplingParameters warm = {.temperature = 1, .top_k = 20};
    const RecordedStep one = RecordStep(DenseConfig(), sequences, warm, /*persistent=*/true);
    const RecordedStep many = RecordStep(DenseConfig(), sequences, warm, /*persistent=*/false);
    EXPECT_EQ(one.kernels.programmatic, one.kernels.count - 1);
    EXPECT_EQ(many.kernels.count - one.kernels.count, sequences <= 8 ? 3 * 7 : 0);
    EXPECT_EQ(one.tokens, many.tokens);
  }
}

}  // namespace
}  // namespace cohort
