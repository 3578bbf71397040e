// Steps that the device repeats from a recording, one enqueued before the one ahead is read.
#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "parallel/communicator.h"
#include "runtime/worker.h"
#include "tests/runtime/checkpoint_writer.h"
#include "tests/runtime/worker_ranks.h"

namespace cohort {
namespace {

constexpr TinyShape kShape = {.hidden = 40, .heads = 5, .kv_heads = 1, .vocabulary = 50};
const SamplingParameters kWarm = {.temperature = 2.0f, .top_p = 0.95f, .top_k = 40, .seed = 9};
// All ids but the rarest, by their masses.
// Where a rank has them all.
const SamplingParameters kTopP = {.temperature = 3, .top_p = 0.98f, .seed = 5};
const SamplingParameters kFlat = {.temperature = 1.5f, .min_p = 0.001f, .seed = 4};

// Blocks of four tokens; steps are of 1, 2, 4, 8 or 9 rows.
WorkerOptions TinyOptions(int tp = 1) {
  WorkerOptions options;
  options.dummy_weights = true;
  options.token_ids = kShape.vocabulary;
  options.dtype = DType::kF32;
  options.parallelism.tp = tp;
  options.kv_blocks = 90;
  options.block_size = 4;
  options.max_batch_tokens = 32;
  options.max_running = 9;
  options.max_model_len = 40;
  return options;
}

// The devices that can record steps.
std::vector<std::string> Kinds() {
  std::vector<std::string> kinds = {"cpu"};
  const auto cuda = Device::Create({.kind = "cuda"});
  if (cuda.ok() && (*cuda)->records_steps()) {
    kinds.push_back("cuda");
  }
  return kinds;
}

std::unique_ptr<Worker> MakeWorker(bool records_steps, const std::string& kind = "cpu",
                                   int64_t max_model_len = 40) {
  auto device = Device::Create({.kind = kind, .record_steps = records_steps});
  CHECK_OK(device.status());
  WorkerOptions options = TinyOptions();
  options.max_model_len = max_model_len;
  TinyShape shape = kShape;
  shape.positions = std::max(shape.positions, max_model_len);
  auto worker = Worker::Create(TinyConfig(shape), options, *std::move(device), nullptr);
  CHECK_OK(worker.status());
  CHECK_OK((*worker)->JoinEpoch(1, MakeSelfCommunicator()));
  return *std::move(worker);
}

// Sequences of one worker that decode together. Slot s has the blocks from 10 s on, each once it is
// needed.
class Decoding {
 public:
  explicit Decoding(Worker& worker) : worker_(worker) {}

  // Prefills prompts of 2, 3, 4, ... tokens and samples the first token of each.
  void Begin(const std::vector<SamplingParameters>& sampling) {
    StepPlan plan = NextPlan();
    for (uint32_t slot = 0; slot < sampling.size(); ++slot) {
      const uint64_t length = lengths_.emplace_back(2 + slot % 3);
      plan.admits.push_back({.slot = slot,
                             .sequence_index = slot,
                             .prompt_tokens = length,
                             .sampling = sampling[slot]});
      SequenceRows& rows = plan.rows.emplace_back();
      rows.slot = slot;
      rows.sample = true;
      for (uint64_t position = 0; position < length; ++position) {
        rows.tokens.push_back({.id = static_cast<int32_t>((slot * 7 + position * 3) % 50)});
      }
      rows.appended_blocks = {static_cast<int32_t>(slot) * 10};
    }
    Check(worker_.Run(plan));
    tokens_.resize(sampling.size());
  }

  // Every slot's next token, named by the step before.
  StepPlan Next() {
    StepPlan plan = NextPlan();
    for (uint32_t slot = 0; slot < lengths_.size(); ++slot) {
      SequenceRows& rows = plan.rows.emplace_back();
      rows.slot = slot;
      rows.first_position = lengths_[slot]++;
      if (rows.first_position % 4 == 0) {
        rows.appended_blocks = {static_cast<int32_t>(slot * 10 + rows.first_position / 4)};
      }
      rows.tokens = {{.sampled_in_step = plan.step - 1}};
      rows.sample = true;
    }
    return plan;
  }

  void Enqueue(const StepPlan& plan) { CHECK_OK(worker_.Enqueue(plan)); }
  void Collect() {
    const auto result = worker_.Collect();
    CHECK_OK(result.status());
    EXPECT_EQ(result->step, ++collected_);
    ASSERT_EQ(result->sequences.size(), lengths_.size());
    for (size_t slot = 0; slot < lengths_.size(); ++slot) {
      EXPECT_EQ(result->sequences[slot].slot, slot);
      tokens_[slot].push_back(result->sequences[slot].tokens.at(0));
    }
  }

  const std::vector<std::vector<int32_t>>& tokens() const { return tokens_; }

 private:
  StepPlan NextPlan() {
    StepPlan plan;
    plan.epoch = 1;
    plan.step = ++last_step_;
    return plan;
  }
  void Check(const absl::StatusOr<StepResult>& result) {
    CHECK_OK(result.status());
    ++collected_;
  }

  Worker& worker_;
  uint64_t last_step_ = 0;
  uint64_t collected_ = 0;
  std::vector<uint64_t> lengths_;
  std::vector<std::vector<int32_t>> tokens_;  // per slot
};

// Greedy ones among such with a few ids to choose from, the fifth with all of them.
std::vector<SamplingParameters> Mixed(size_t sequences) {
  std::vector<SamplingParameters> sampling(sequences);
  if (sequences > 4) {
    sampling[2] = kTopP;
    sampling[4] = kFlat;
  }
  for (size_t i = 1; i < sequences; i += 2) {
    sampling[i] = kWarm;
    sampling[i].top_k = static_cast<int32_t>(3 + 4 * i);
  }
  return sampling;
}

std::vector<std::vector<int32_t>> OneByOne(const std::vector<SamplingParameters>& sampling,
                                           int steps, const std::string& kind = "cpu") {
  const auto worker = MakeWorker(/*records_steps=*/false, kind);
  Decoding decoding(*worker);
  decoding.Begin(sampling);
  for (int i = 0; i < steps; ++i) {
    const StepPlan plan = decoding.Next();
    EXPECT_FALSE(worker->RunsAhead(plan));
    decoding.Enqueue(plan);
    EXPECT_TRUE(worker->IsDone());
    decoding.Collect();
  }
  return decoding.tokens();
}

std::vector<std::pair<std::string, size_t>> Cases() {
  std::vector<std::pair<std::string, size_t>> cases;
  for (const std::string& kind : Kinds()) {
    for (const size_t sequences : {1, 3, 5, 9}) {
      cases.emplace_back(kind, sequences);
    }
  }
  return cases;
}

TEST(WorkerRecorded, TokensStayOnTheDeviceForTheStepAhead) {
  for (const auto& [kind, sequences] : Cases()) {
    SCOPED_TRACE(absl::StrCat(sequences, " on ", kind));
    const std::vector<SamplingParameters> sampling = Mixed(sequences);
    const auto worker = MakeWorker(/*records_steps=*/true, kind);
    Decoding decoding(*worker);
    decoding.Begin(sampling);
    decoding.Enqueue(decoding.Next());
    for (int i = 1; i < 20; ++i) {
      const StepPlan plan = decoding.Next();
      EXPECT_TRUE(worker->RunsAhead(plan));
      decoding.Enqueue(plan);
      EXPECT_EQ(worker->outstanding(), 2u);
      decoding.Collect();
    }
    decoding.Collect();
    EXPECT_EQ(worker->outstanding(), 0u);
    EXPECT_EQ(decoding.tokens(), OneByOne(sampling, 20, kind));
  }
}

// Tables of so many positions are kept on the device from step to step, by the sizes 8 and 9.
TEST(WorkerRecorded, TablesStayOnTheDeviceToo) {
  for (const std::string& kind : Kinds()) {
    SCOPED_TRACE(kind);
    const auto worker = MakeWorker(/*records_steps=*/true, kind, /*max_model_len=*/12000);
    EXPECT_EQ(worker->allocated_memory(), worker->planned_memory());
    for (const size_t sequences : {9, 3, 7}) {
      const std::vector<SamplingParameters> sampling = Mixed(sequences);
      ASSERT_TRUE(worker->JoinEpoch(1, MakeSelfCommunicator()).ok());
      Decoding decoding(*worker);
      decoding.Begin(sampling);
      for (int i = 0; i < 17; ++i) {
        decoding.Enqueue(decoding.Next());
        if (i > 0) {
          decoding.Collect();
        }
      }
      decoding.Collect();
      EXPECT_EQ(decoding.tokens(), OneByOne(sampling, 17, kind));
    }
  }
}

// Another slot is admitted while a recorded step is under way, and the sequences go on after it.
TEST(WorkerRecorded, OtherPlansComeAfterWhatIsUnderWay) {
  const std::vector<SamplingParameters> sampling = Mixed(3);
  const auto worker = MakeWorker(/*records_steps=*/true);
  Decoding decoding(*worker);
  decoding.Begin(sampling);
  for (int i = 0; i < 4; ++i) {
    decoding.Enqueue(decoding.Next());
    StepPlan scored = decoding.Next();
    scored.rows[1].score_targets = {5};
    EXPECT_FALSE(worker->RunsAhead(scored));
    decoding.Enqueue(scored);
    EXPECT_EQ(worker->outstanding(), 2u);
    EXPECT_TRUE(worker->IsDone());
    decoding.Collect();
    decoding.Collect();
  }
  EXPECT_EQ(decoding.tokens(), OneByOne(sampling, 8));
}

TEST(WorkerRecorded, NoMoreThanTwoStepsAreUnderWay) {
  const auto worker = MakeWorker(/*records_steps=*/true);
  Decoding decoding(*worker);
  decoding.Begin(Mixed(2));
  decoding.Enqueue(decoding.Next());
  decoding.Enqueue(decoding.Next());
  const StepPlan third = decoding.Next();
  EXPECT_FALSE(worker->RunsAhead(third));
  decoding.Collect();
  EXPECT_TRUE(worker->RunsAhead(third));
}

TEST(WorkerRecorded, WhatRecordsDoNotTellRunsAtOnce) {
  const SamplingParameters kinds[] = {{.repetition_penalty = 1.3f}, {.logprobs = 2}};
  for (const SamplingParameters& sampling : kinds) {
    const auto worker = MakeWorker(/*records_steps=*/true);
    Decoding decoding(*worker);
    decoding.Begin({SamplingParameters{}, sampling});
    EXPECT_FALSE(worker->RunsAhead(decoding.Next()));
  }
}

TEST(WorkerRecorded, IdsAreHeldBackUntilEnoughAreGenerated) {
  const auto worker = MakeWorker(/*records_steps=*/true);
  StepPlan plan;
  plan.epoch = 1;
  plan.step = 1;
  plan.admits = {{.slot = 0, .prompt_tokens = 1, .min_tokens = 2, .sampling = {}}};
  plan.admits[0].held_back_ids = {4};
  plan.rows.emplace_back();
  plan.rows[0].tokens = {{.id = 7}};
  plan.rows[0].appended_blocks = {0};
  plan.rows[0].sample = true;
  ASSERT_TRUE(worker->Run(plan).ok());
  plan.admits.clear();
  plan.rows[0].appended_blocks.clear();
  for (plan.step = 2; plan.step <= 3; ++plan.step) {
    plan.rows[0].first_position = plan.step - 1;
    plan.rows[0].tokens = {{.sampled_in_step = plan.step - 1}};
    EXPECT_EQ(worker->RunsAhead(plan), plan.step == 3) << plan.step;
    ASSERT_TRUE(worker->Run(plan).ok());
  }
}

TEST(WorkerRecorded, ANewEpochForgetsWhatWasUnderWay) {
  const auto worker = MakeWorker(/*records_steps=*/true);
  std::vector<std::vector<int32_t>> tokens[2];
  for (int epoch = 0; epoch < 2; ++epoch) {
    Decoding decoding(*worker);
    decoding.Begin(Mixed(3));
    for (int i = 0; i < 5; ++i) {
      decoding.Enqueue(decoding.Next());
      decoding.Collect();
    }
    tokens[epoch] = decoding.tokens();
    decoding.Enqueue(decoding.Next());
    ASSERT_TRUE(worker->JoinEpoch(1, MakeSelfCommunicator()).ok());
    EXPECT_EQ(worker->outstanding(), 0u);
  }
  EXPECT_EQ(tokens[0], tokens[1]);
}

TEST(WorkerRecorded, EveryDegreeGivesTheSame) {
  const std::vector<int32_t> prompt = {5, 1, 17, 33, 8, 2, 40};
  const auto plain = WorkerRanks::Create(TinyConfig(kShape), TinyOptions());
  ASSERT_TRUE(plain.ok()) << plain.status();
  for (const SamplingParameters& sampling : {SamplingParameters{}, kWarm, kFlat, kTopP}) {
    const std::vector<int32_t> expected = (*plain)->Generate(prompt, 9, 24, sampling);
    for (const int tp : {1, 2, 5}) {
      const auto ranks =
          WorkerRanks::Create(TinyConfig(kShape), TinyOptions(tp), {.record_steps = true});
      ASSERT_TRUE(ranks.ok()) << ranks.status();
      EXPECT_EQ((*ranks)->Generate(prompt, 9, 24, sampling), expected) << "tp " << tp;
      for (int rank = 0; rank < tp; ++rank) {
        const Worker& worker = (*ranks)->worker(rank);
        EXPECT_EQ(worker.allocated_memory(), worker.planned_memory());
      }
    }
  }
}

}  // namespace
}  // namespace cohort
