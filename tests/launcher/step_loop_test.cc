#include "launcher/step_loop.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <thread>
#include <vector>

#include "absl/time/clock.h"
#include "launcher/ring_step_link.h"
#include "parallel/communicator.h"

namespace cohort {
namespace {

constexpr char kTinyConfig[] = R"({
  "architectures": ["Qwen2ForCausalLM"],
  "model_type": "qwen2",
  "hidden_act": "silu",
  "hidden_size": 24,
  "num_hidden_layers": 2,
  "num_attention_heads": 3,
  "num_key_value_heads": 1,
  "intermediate_size": 10,
  "vocab_size": 19,
  "max_position_embeddings": 128,
  "rms_norm_eps": 1e-06,
  "rope_theta": 10000.0,
  "tie_word_embeddings": false,
  "use_sliding_window": false
})";

absl::Time InAMinute() { return absl::Now() + absl::Minutes(1); }

// A worker of a tiny model behind its loop on a thread, and the coordinator's end of its rings.
class LoopTest : public testing::TestWithParam<bool> {
 protected:
  void SetUp() override {
    WorkerOptions options;
    options.dummy_weights = true;
    options.dtype = DType::kF32;
    options.kv_blocks = 20;
    options.block_size = 4;
    options.max_batch_tokens = 16;
    options.max_running = 2;
    options.max_model_len = 40;
    auto device = Device::Create({.record_steps = GetParam()});
    ASSERT_TRUE(device.ok()) << device.status();
    const auto config = ParseModelConfig(kTinyConfig, "config.json");
    ASSERT_TRUE(config.ok()) << config.status();
    auto worker = Worker::Create(*config, options, *std::move(device), nullptr);
    ASSERT_TRUE(worker.ok()) << worker.status();
    worker_ = *std::move(worker);
    ASSERT_TRUE(worker_->JoinEpoch(1, MakeSelfCommunicator()).ok());
    const FileDescriptor plans = CreateByteRing(1 << 16).value();
    const FileDescriptor outcomes = CreateByteRing(1 << 16).value();
    link_ = RingStepLink::Map("rank 0", plans.get(), outcomes.get(), 0).value();
    plans_ = ByteRingReader::Map(plans.get(), 0).value();
    outcomes_ = ByteRingWriter::Map(outcomes.get(), 0).value();
  }
  void TearDown() override {
    plans_->Abort(absl::UnavailableError("the test has ended"));
    if (loop_.joinable()) loop_.join();
  }

  void Start() {
    loop_ = std::thread(
        [this] { status_ = StepLoop(*worker_, *plans_, *outcomes_, absl::Seconds(60)).Run(); });
  }
  absl::Status Finished() {
    loop_.join();
    return status_;
  }

  // Prefills three ids, or decodes what the step before sampled.
  static StepPlan Plan(uint64_t step) {
    StepPlan plan;
    plan.epoch = 1;
    plan.step = step;
    plan.rows.emplace_back();
    SequenceRows& rows = plan.rows[0];
    rows.sample = true;
    if (step == 1) {
      plan.admits.push_back({.prompt_tokens = 3, .sampling = {}});
      rows.tokens = {{.id = 3}, {.id = 1}, {.id = 4}};
      rows.appended_blocks = {4, 3, 2, 1, 0, 9, 8, 7, 6, 5};
    } else {
      rows.first_position = step + 1;
      rows.tokens = {{.sampled_in_step = step - 1}};
    }
    return plan;
  }
  void Send(const StepPlan& plan) { ASSERT_TRUE(link_->Send(Encode(plan), InAMinute()).ok()); }
  absl::StatusOr<StepResult> Receive() {
    ASSIGN_OR_RETURN(const std::string bytes, link_->Receive(InAMinute()));
    return DecodeStepResult(bytes);
  }

  std::unique_ptr<Worker> worker_;
  std::unique_ptr<RingStepLink> link_;
  std::unique_ptr<ByteRingReader> plans_;
  std::unique_ptr<ByteRingWriter> outcomes_;
  std::thread loop_;
  absl::Status status_;
};

TEST_P(LoopTest, AnswersEveryPlanInOrderWhateverIsAhead) {
  constexpr uint64_t kSteps = 20;
  // Up to this many plans lie in the ring before the loop looks.
  for (uint64_t step = 1; step <= 5; ++step) Send(Plan(step));
  Start();
  std::vector<int32_t> tokens;
  for (uint64_t step = 1; step <= kSteps; ++step) {
    const auto result = Receive();
    ASSERT_TRUE(result.ok()) << result.status();
    EXPECT_EQ(result->step, step);
    tokens.push_back(result->sequences.at(0).tokens.at(0));
    if (step + 5 <= kSteps) Send(Plan(step + 5));
  }
  // One at a time gives the same.
  plans_->Abort(absl::UnavailableError("the epoch has ended"));
  EXPECT_TRUE(absl::IsUnavailable(Finished()));
  ASSERT_TRUE(worker_->JoinEpoch(1, MakeSelfCommunicator()).ok());
  for (uint64_t step = 1; step <= kSteps; ++step) {
    const auto result = worker_->Run(Plan(step));
    ASSERT_TRUE(result.ok()) << result.status();
    EXPECT_EQ(result->sequences.at(0).tokens.at(0), tokens[step - 1]);
  }
}

TEST_P(LoopTest, AFailedStepComesAfterTheAnswersBeforeIt) {
  for (uint64_t step = 1; step <= 4; ++step) Send(Plan(step));
  Send(Plan(4));
  Start();
  for (uint64_t step = 1; step <= 4; ++step) {
    const auto result = Receive();
    ASSERT_TRUE(result.ok()) << result.status();
    EXPECT_EQ(result->step, step);
  }
  EXPECT_TRUE(absl::IsFailedPrecondition(Receive().status()));
  EXPECT_TRUE(absl::IsFailedPrecondition(Finished()));
}

TEST_P(LoopTest, BytesThatAreNoPlanAreAnError) {
  Send(Plan(1));
  ASSERT_TRUE(link_->Send("no plan", InAMinute()).ok());
  Start();
  EXPECT_TRUE(Receive().ok());
  EXPECT_TRUE(absl::IsInvalidArgument(Receive().status()));
  EXPECT_TRUE(absl::IsInvalidArgument(Finished()));
}

INSTANTIATE_TEST_SUITE_P(StepLoop, LoopTest, testing::Bool(),
                         [](const auto& test) { return test.param ? "Recorded" : "AsTheyCome"; });

}  // namespace
}  // namespace cohort
