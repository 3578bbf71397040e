#include "runtime/worker.h"

#include <gtest/gtest.h>

#include <limits>
#include <thread>

#include "parallel/silent_communicator.h"
#include "parallel/thread_communicator.h"
#include "tests/runtime/checkpoint_writer.h"
#include "tests/runtime/worker_ranks.h"

namespace cohort {
namespace {

constexpr TinyShape kShape = {.hidden = 40, .heads = 5, .kv_heads = 1, .vocabulary = 50};

// Dummy weights; blocks of four tokens.
WorkerOptions TinyOptions(int tp = 1) {
  WorkerOptions options;
  options.dummy_weights = true;
  options.token_ids = kShape.vocabulary;
  options.dtype = DType::kF32;
  options.parallelism.tp = tp;
  options.kv_blocks = 16;
  options.block_size = 4;
  options.max_batch_tokens = 24;
  options.max_running = 3;
  options.max_model_len = 40;
  return options;
}

std::unique_ptr<Device> Cpu() {
  auto device = Device::Create(DeviceOptions{});
  CHECK_OK(device.status());
  return *std::move(device);
}

std::unique_ptr<WorkerRanks> MakeRanks(const WorkerOptions& options) {
  auto ranks = WorkerRanks::Create(TinyConfig(kShape), options);
  CHECK_OK(ranks.status());
  return *std::move(ranks);
}

absl::Status CreateStatus(const WorkerOptions& options) {
  return Worker::Create(TinyConfig(kShape), options, Cpu(), nullptr).status();
}

SequenceRows Rows(uint32_t slot, uint64_t first_position, const std::vector<int32_t>& ids,
                  const std::vector<int32_t>& blocks) {
  SequenceRows rows;
  rows.slot = slot;
  rows.first_position = first_position;
  for (const int32_t id : ids) {
    rows.tokens.push_back({.id = id});
  }
  rows.appended_blocks = blocks;
  return rows;
}

AdmitSequence Admit(uint32_t slot, const SamplingParameters& sampling = {}) {
  return {.slot = slot, .sequence_index = 0, .sampling = sampling};
}

// Slot 0 prefills two tokens into block 7.
StepPlan FirstPlan() {
  StepPlan plan;
  plan.epoch = 1;
  plan.step = 1;
  plan.admits = {Admit(0)};
  plan.rows = {Rows(0, 0, {3, 4}, {7})};
  return plan;
}

const SamplingParameters kWarm = {.temperature = 2.0f, .top_p = 0.95f, .top_k = 40, .seed = 9};

TEST(Worker, GeneratesTheSameAtEveryDegreeAndChunk) {
  const std::vector<int32_t> prompt = {5, 1, 17, 33, 8, 2, 40};
  const auto alone = MakeRanks(TinyOptions());
  const std::vector<int32_t> greedy = alone->Generate(prompt, 9, 24, {});
  const std::vector<int32_t> sampled = alone->Generate(prompt, 9, 24, kWarm);
  EXPECT_NE(greedy, sampled);
  for (const int tp : {2, 3, 5}) {
    const auto ranks = MakeRanks(TinyOptions(tp));
    EXPECT_EQ(ranks->Generate(prompt, 9, 3, {}), greedy) << "tp " << tp;
    EXPECT_EQ(ranks->Generate(prompt, 9, 24, kWarm), sampled) << "tp " << tp;
  }
}

TEST(Worker, ASequenceGetsTheSameAloneAndInABatch) {
  const std::vector<int32_t> prompt = {5, 1, 17};
  const std::vector<int32_t> expected = MakeRanks(TinyOptions())->Generate(prompt, 2, 24, kWarm);
  const auto ranks = MakeRanks(TinyOptions(2));
  // Slot 1 prefills in two chunks and decodes, among another's scored prefill.
  StepPlan plan;
  plan.epoch = 1;
  plan.step = 1;
  plan.admits = {Admit(2), Admit(1, kWarm)};
  plan.rows = {Rows(2, 0, {9, 8, 7, 6, 5}, {3, 0}), Rows(1, 0, {5, 1}, {15})};
  plan.rows[0].score_targets = {8, -1, 6, 5, -1};
  auto result = ranks->Run(plan);
  ASSERT_TRUE(result.ok()) << result.status();
  ASSERT_EQ(result->sequences.size(), 1u);
  EXPECT_EQ(result->sequences[0].slot, 2u);
  EXPECT_EQ(result->sequences[0].logprobs.size(), 5u);
  EXPECT_LT(result->sequences[0].logprobs[2], 0);
  plan.step = 2;
  plan.admits = {Admit(0)};
  plan.rows = {Rows(0, 0, {30, 31}, {4}), Rows(1, 2, {17}, {})};
  plan.rows[0].sample = plan.rows[1].sample = true;
  result = ranks->Run(plan);
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(result->sequences[1].tokens, std::vector<int32_t>{expected[0]});
  plan.step = 3;
  plan.admits = {};
  plan.rows = {Rows(1, 3, {}, {})};
  plan.rows[0].tokens = {{.sampled_in_step = 2}};
  plan.rows[0].sample = true;
  result = ranks->Run(plan);
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(result->sequences[0].tokens, std::vector<int32_t>{expected[1]});
}

TEST(Worker, ScoresMoreRowsThanOneChunkOfLogits) {
  WorkerOptions options = TinyOptions(2);
  options.max_batch_tokens = 70;
  options.max_model_len = 70;
  options.kv_blocks = 18;
  const auto ranks = MakeRanks(options);
  std::vector<int32_t> ids;
  for (int32_t i = 0; i < 70; ++i) {
    ids.push_back(i * 7 % 50);
  }
  EXPECT_EQ(ranks->Score(ids, 70), ranks->Score(ids, 11));
}

TEST(Worker, IdsWithoutATokenAreScoredButNeverChosen) {
  WorkerOptions options = TinyOptions();
  options.token_ids = 2;
  const SamplingParameters hot = {.temperature = 100.0f, .seed = 3};
  for (const int32_t id : MakeRanks(options)->Generate({5, 49}, 30, 24, hot)) {
    EXPECT_LT(id, 2);
  }
  const auto unmasked = MakeRanks(TinyOptions());
  EXPECT_EQ(MakeRanks(options)->Score({5, 49, 6}, 24), unmasked->Score({5, 49, 6}, 24));
  options.mask_padding = false;
  EXPECT_EQ(MakeRanks(options)->Generate({5, 49}, 30, 24, hot),
            unmasked->Generate({5, 49}, 30, 24, hot));
}

TEST(Worker, MarksLogitsThatAreNotNumbers) {
  const TemporaryDirectory directory;
  std::vector<WrittenTensor> tensors = TensorsOf(TinyConfig(kShape), "F32");
  const float nan = std::numeric_limits<float>::quiet_NaN();
  WrittenTensor& norm = tensors[tensors.size() - 2];
  ASSERT_EQ(norm.name, "model.norm.weight");
  norm.bytes.replace(0, sizeof(nan), reinterpret_cast<const char*>(&nan), sizeof(nan));
  directory.Write("model.safetensors", SafetensorsFile(tensors));
  WorkerOptions options = TinyOptions(2);
  options.dummy_weights = false;
  options.model_dir = directory.path();
  // The second token follows the first, whatever that was.
  for (const SamplingParameters& sampling : {SamplingParameters{}, kWarm}) {
    EXPECT_EQ(MakeRanks(options)->Generate({1, 2}, 2, 24, sampling),
              (std::vector<int32_t>{kNotANumber, kNotANumber}));
  }
}

TEST(Worker, RefusesAnotherEpochAndAGapInTheSteps) {
  const auto ranks = MakeRanks(TinyOptions());
  StepPlan plan = FirstPlan();
  plan.epoch = 2;
  EXPECT_TRUE(absl::IsFailedPrecondition(ranks->Run(plan).status()));
  plan = FirstPlan();
  plan.step = 2;
  EXPECT_TRUE(absl::IsFailedPrecondition(ranks->Run(plan).status()));
  EXPECT_TRUE(ranks->Run(FirstPlan()).ok());
  EXPECT_TRUE(absl::IsFailedPrecondition(ranks->Run(FirstPlan()).status()));
  ranks->worker(0).LeaveEpoch();
  ranks->worker(0).LeaveEpoch();
  plan = FirstPlan();
  plan.step = 2;
  EXPECT_TRUE(absl::IsFailedPrecondition(ranks->Run(plan).status()));
}

TEST(Worker, ANewEpochForgetsSequencesAndKeepsTheWeights) {
  const auto ranks = MakeRanks(TinyOptions(2));
  const std::vector<int32_t> tokens = ranks->Generate({1, 2, 3}, 3, 24, {});
  ASSERT_TRUE(ranks->Join(7).ok());
  EXPECT_EQ(ranks->Generate({1, 2, 3}, 3, 24, {}), tokens);
  ASSERT_TRUE(ranks->Join(8).ok());
  StepPlan plan = FirstPlan();
  plan.epoch = 8;
  plan.admits.clear();
  EXPECT_TRUE(absl::IsInternal(ranks->Run(plan).status()));
}

// The first plan is changed by each case into one that no scheduler writes.
TEST(Worker, RefusesPlansThatContradictWhatItHolds) {
  const std::pair<StringView, void (*)(StepPlan&)> cases[] = {
      {"slot 3", [](StepPlan& plan) { plan.admits[0].slot = 3; }},
      {"slot 3", [](StepPlan& plan) { plan.rows[0].slot = 3; }},
      {"never admitted", [](StepPlan& plan) { plan.admits.clear(); }},
      {"no rows", [](StepPlan& plan) { plan.rows[0].tokens.clear(); }},
      {"position 1", [](StepPlan& plan) { plan.rows[0].first_position = 1; }},
      {"40 positions",
       [](StepPlan& plan) { plan.rows.push_back(Rows(0, 2, std::vector<int32_t>(39), {})); }},
      {"0 blocks", [](StepPlan& plan) { plan.rows[0].appended_blocks.clear(); }},
      {"block 16", [](StepPlan& plan) { plan.rows[0].appended_blocks = {16}; }},
      {"block -1", [](StepPlan& plan) { plan.rows[0].appended_blocks = {-1}; }},
      {"11 blocks", [](StepPlan& plan) { plan.rows[0].appended_blocks.resize(11); }},
      {"id 50", [](StepPlan& plan) { plan.rows[0].tokens[0].id = 50; }},
      {"id -1", [](StepPlan& plan) { plan.rows[0].tokens[0].id = -1; }},
      {"step 5", [](StepPlan& plan) { plan.rows[0].tokens[0].sampled_in_step = 5; }},
      {"1 score targets", [](StepPlan& plan) { plan.rows[0].score_targets = {1}; }},
      {"scores id 50",
       [](StepPlan& plan) {
         plan.rows[0].score_targets = {1, 50};
       }},
      {"21 most probable", [](StepPlan& plan) { plan.rows[0].score_top = 21; }},
      {"25 rows", [](StepPlan& plan) { plan.rows[0].tokens.resize(25); }},
      {"slot 9", [](StepPlan& plan) { plan.releases = {9}; }},
  };
  for (const auto& [part, change] : cases) {
    WorkerOptions options = TinyOptions();
    options.max_batch_tokens = part == "40 positions" ? 64 : options.max_batch_tokens;
    StepPlan plan = FirstPlan();
    change(plan);
    const absl::Status status = MakeRanks(options)->Run(plan).status();
    EXPECT_TRUE(absl::IsInternal(status)) << part << ": " << status;
    EXPECT_NE(status.message().find(part), StringView::npos) << status << " lacks " << part;
  }
}

TEST(Worker, AReleasedSlotIsForgotten) {
  const auto ranks = MakeRanks(TinyOptions());
  StepPlan plan = FirstPlan();
  plan.releases = {0};
  ASSERT_TRUE(ranks->Run(plan).ok());
  plan.step = 2;
  plan.admits = {};
  plan.rows = {Rows(0, 2, {1}, {})};
  plan.releases = {};
  EXPECT_TRUE(absl::IsInternal(ranks->Run(plan).status()));
}

TEST(Worker, AbortWakesARankThatWaitsForOthers) {
  const auto ranks = MakeRanks(TinyOptions(2));
  absl::Status status;
  std::thread rank([&] { status = ranks->worker(0).Run(FirstPlan()).status(); });
  ranks->worker(0).Abort();
  rank.join();
  EXPECT_TRUE(absl::IsAborted(status)) << status;
  ASSERT_TRUE(ranks->Join(2).ok());
  EXPECT_EQ(ranks->Generate({1}, 2, 24, {}).size(), 2u);
}

TEST(Worker, ARankThatWaitsTooLongSaysWhereItWas) {
  const auto ranks = MakeRanks(TinyOptions(2));
  ASSERT_TRUE(ranks->Join(1, absl::Milliseconds(20)).ok());
  const absl::Status status = ranks->worker(0).Run(FirstPlan()).status();
  EXPECT_TRUE(absl::IsDeadlineExceeded(status)) << status;
  EXPECT_EQ(status.message().find("rank 0, epoch 1, step 1: "), 0u) << status;
}

TEST(Worker, JoinsOnlyWithItsOwnCommunicator) {
  const auto ranks = MakeRanks(TinyOptions(2));
  auto communicators = MakeThreadCommunicators(2, absl::Seconds(1));
  EXPECT_TRUE(absl::IsInvalidArgument(ranks->worker(0).JoinEpoch(2, std::move(communicators[1]))));
  EXPECT_TRUE(absl::IsInvalidArgument(ranks->worker(0).JoinEpoch(2, MakeSelfCommunicator())));
  EXPECT_TRUE(absl::IsInvalidArgument(ranks->worker(0).JoinEpoch(2, nullptr)));
}

// Its slices are those of the group's rank; its tokens mean nothing.
TEST(Worker, ASimulatedRankAnswersForItsGroup) {
  for (const bool records_steps : {false, true}) {
    WorkerOptions options = TinyOptions(5);
    options.rank = 3;
    options.is_simulated = true;
    auto device = Device::Create({.record_steps = records_steps});
    ASSERT_TRUE(device.ok()) << device.status();
    Device& computer = **device;
    const auto worker = Worker::Create(TinyConfig(kShape), options, *std::move(device), nullptr);
    ASSERT_TRUE(worker.ok()) << worker.status();
    const auto plan = ShardPlan::Make(TinyConfig(kShape).Dims(DType::kF32), {.tp = 5}, 3);
    EXPECT_EQ((*worker)->weight_bytes(), plan->weight_bytes());
    auto silent = MakeSilentCommunicator(computer, 3, 5, 256);
    ASSERT_TRUE(silent.ok()) << silent.status();
    ASSERT_TRUE((*worker)->JoinEpoch(1, *std::move(silent)).ok());
    StepPlan step = FirstPlan();
    step.rows[0].sample = true;
    for (; step.step < 6; ++step.step) {
      const auto result = (*worker)->Run(step);
      ASSERT_TRUE(result.ok()) << result.status();
      ASSERT_EQ(result->sequences.size(), 1u);
      EXPECT_LT(result->sequences[0].tokens.at(0), kShape.vocabulary);
      step.admits.clear();
      step.rows = {Rows(0, step.step + 1, {0},
                        step.step == 1 ? std::vector<int32_t>{5, 6} : std::vector<int32_t>{})};
      step.rows[0].tokens[0] = {.sampled_in_step = step.step};
      step.rows[0].sample = true;
    }
  }
}

TEST(Worker, TellsWhatItHolds) {
  const auto ranks = MakeRanks(TinyOptions(5));
  for (int rank = 0; rank < 5; ++rank) {
    const auto plan = ShardPlan::Make(TinyConfig(kShape).Dims(DType::kF32), {.tp = 5}, rank);
    EXPECT_EQ(ranks->worker(rank).weight_bytes(), plan->weight_bytes());
    EXPECT_EQ(ranks->worker(rank).kv_bytes(), 16 * 4 * plan->kv_bytes_per_token());
    EXPECT_EQ(ranks->worker(rank).allocated_memory(), ranks->worker(rank).planned_memory());
    EXPECT_EQ(ranks->worker(rank).planned_memory().weights, plan->weight_bytes());
    EXPECT_TRUE(ranks->worker(rank).warnings().empty());
  }
}

TEST(Worker, WarnsOnceOfEachExtraTensor) {
  const TemporaryDirectory directory;
  std::vector<WrittenTensor> tensors = TensorsOf(TinyConfig(kShape), "BF16");
  tensors.push_back({"z.extra", "I8", {1}, "x"});
  tensors.push_back({"a.extra", "I8", {1}, "x"});
  directory.Write("model.safetensors", SafetensorsFile(tensors));
  WorkerOptions options = TinyOptions();
  options.dummy_weights = false;
  options.model_dir = directory.path();
  const auto worker = Worker::Create(TinyConfig(kShape), options, Cpu(), nullptr);
  ASSERT_TRUE(worker.ok()) << worker.status();
  const std::vector<std::string> warnings = (*worker)->warnings();
  ASSERT_EQ(warnings.size(), 2u);
  EXPECT_NE(warnings[0].find("z.extra"), std::string::npos);
  EXPECT_NE(warnings[1].find("a.extra"), std::string::npos);
}

TEST(Worker, RefusesOptionsThatMakeNoSense) {
  const std::pair<StringView, void (*)(WorkerOptions&)> cases[] = {
      {"dtype", [](WorkerOptions& options) { options.dtype = DType::kI32; }},
      {"kv_blocks", [](WorkerOptions& options) { options.kv_blocks = 0; }},
      {"block_size", [](WorkerOptions& options) { options.block_size = 0; }},
      {"max_batch_tokens", [](WorkerOptions& options) { options.max_batch_tokens = -1; }},
      {"max_running", [](WorkerOptions& options) { options.max_running = 0; }},
      {"max_model_len is 129", [](WorkerOptions& options) { options.max_model_len = 129; }},
      {"token_ids", [](WorkerOptions& options) { options.token_ids = -1; }},
      {"6", [](WorkerOptions& options) { options.parallelism.tp = 6; }},
      {"rank", [](WorkerOptions& options) { options.rank = 1; }},
  };
  for (const auto& [part, change] : cases) {
    WorkerOptions options = TinyOptions();
    change(options);
    const absl::Status status = CreateStatus(options);
    EXPECT_TRUE(absl::IsInvalidArgument(status)) << part << ": " << status;
    EXPECT_NE(status.message().find(part), StringView::npos) << status << " lacks " << part;
  }
  EXPECT_FALSE(Worker::Create(TinyConfig(kShape), TinyOptions(), nullptr, nullptr).ok());
}

TEST(Worker, RefusesMoreMemoryThanThereIsBeforeItTakesAny) {
  WorkerOptions options = TinyOptions();
  options.kv_blocks = std::numeric_limits<int32_t>::max();
  options.block_size = 1 << 16;
  const absl::Status status = CreateStatus(options);
  EXPECT_TRUE(absl::IsResourceExhausted(status)) << status;
}

TEST(Worker, NamesADirectoryWithoutACheckpoint) {
  const TemporaryDirectory directory;
  WorkerOptions options = TinyOptions();
  options.dummy_weights = false;
  options.model_dir = directory.path();
  const absl::Status status = CreateStatus(options);
  EXPECT_TRUE(absl::IsNotFound(status)) << status;
  EXPECT_NE(status.message().find(directory.path()), StringView::npos) << status;
}

}  // namespace
}  // namespace cohort
