#include "runtime/step_link.h"

#include <gtest/gtest.h>

#include <deque>
#include <thread>
#include <utility>

#include "absl/time/clock.h"
#include "tests/runtime/hash_group.h"

namespace cohort {
namespace {

// The far side answers what the test wrote down.
class WrittenLink : public StepLink {
 public:
  WrittenLink(std::string name, std::deque<absl::StatusOr<std::string>> answers)
      : name_(std::move(name)), answers_(std::move(answers)) {}
  std::string name() const override { return name_; }
  absl::Status Send(StringView, absl::Time) override { return send_status; }
  absl::StatusOr<std::string> Receive(absl::Time) override {
    absl::StatusOr<std::string> answer = std::move(answers_.front());
    answers_.pop_front();
    return answer;
  }
  void Abort(absl::Status) override {}

  absl::Status send_status = absl::OkStatus();

 private:
  std::string name_;
  std::deque<absl::StatusOr<std::string>> answers_;
};

StepPlan PlanWithOneSample() {
  StepPlan plan;
  plan.epoch = 4;
  plan.step = 1;
  plan.rows = {{.slot = 2,
                .first_position = 0,
                .tokens = {{.id = 5}},
                .appended_blocks = {0},
                .sample = true,
                .score_targets = {}}};
  return plan;
}

StepResult GoodResult() {
  return {.epoch = 4,
          .step = 1,
          .digest = 77,
          .sequences = {{.slot = 2, .tokens = {6}, .logprobs = {}}}};
}

// Sends the plan to ranks that give these answers and returns what the executor makes of them.
absl::StatusOr<StepResult> ReceiveOf(std::vector<absl::StatusOr<std::string>> answers,
                                     const StepPlan& plan = PlanWithOneSample(),
                                     int data_parallel = 1) {
  std::vector<std::unique_ptr<StepLink>> links;
  for (size_t rank = 0; rank < answers.size(); ++rank) {
    links.push_back(std::make_unique<WrittenLink>(
        absl::StrCat("rank ", rank),
        std::deque<absl::StatusOr<std::string>>{std::move(answers[rank])}));
  }
  Executor executor(4, std::move(links), absl::Seconds(10), data_parallel);
  EXPECT_TRUE(executor.Send(plan).ok());
  return executor.Receive();
}

void ExpectFailure(const absl::StatusOr<StepResult>& result, absl::StatusCode code,
                   const std::vector<std::string>& parts) {
  EXPECT_EQ(result.status().code(), code) << result.status();
  for (const std::string& part : parts) {
    EXPECT_NE(result.status().message().find(part), StringView::npos)
        << part << " in " << result.status();
  }
}

TEST(Executor, ReturnsTheFirstRanksResultWhenAllAgree) {
  StepResult other = GoodResult();
  other.sequences.clear();
  const auto result = ReceiveOf({Encode(GoodResult()), Encode(other), Encode(other)});
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(*result, GoodResult());
}

TEST(Executor, NamesTheRanksWhoseDigestsDiffer) {
  StepResult other = GoodResult();
  other.digest = 78;
  ExpectFailure(
      ReceiveOf({Encode(GoodResult()), Encode(GoodResult()), Encode(other)}),
      absl::StatusCode::kInternal,
      {"step 1 of epoch 4", "rank 0 has 0x000000000000004d", "rank 2 has 0x000000000000004e"});
}

TEST(Executor, NamesEveryRankThatFailedAndKeepsTheFirstCode) {
  ExpectFailure(ReceiveOf({Encode(GoodResult()), absl::AbortedError("no peer"),
                           absl::DataLossError("bad memory")}),
                absl::StatusCode::kAborted,
                {"step 1 of epoch 4", "rank 1: no peer", "rank 2: bad memory"});
}

TEST(Executor, RefusesAnswersThatAreNotAboutTheStep) {
  StepResult other = GoodResult();
  other.step = 2;
  ExpectFailure(ReceiveOf({Encode(GoodResult()), Encode(other)}), absl::StatusCode::kInternal,
                {"rank 1: answered step 2 of epoch 4"});
  ExpectFailure(ReceiveOf({std::string("nonsense")}), absl::StatusCode::kInvalidArgument,
                {"rank 0: step result: "});
}

TEST(Executor, RefusesAnswersThatDoNotHoldWhatWasAsked) {
  StepResult result = GoodResult();
  result.sequences[0].slot = 3;
  ExpectFailure(ReceiveOf({Encode(result)}), absl::StatusCode::kInternal,
                {"rank 0: step 1: asked slot 2 for tokens", "slot 3 answered 1"});
  result = GoodResult();
  result.sequences[0].tokens.clear();
  ExpectFailure(ReceiveOf({Encode(result)}), absl::StatusCode::kInternal, {"answered 0"});
  result = GoodResult();
  result.sequences.clear();
  ExpectFailure(ReceiveOf({Encode(result)}), absl::StatusCode::kInternal,
                {"0 sequences answered, 1 asked"});
}

TEST(Executor, ChecksThatEveryLogprobAskedForCame) {
  StepPlan plan = PlanWithOneSample();
  plan.admits = {{.slot = 2, .sampling = {.logprobs = 2}}};
  plan.rows[0].score_targets = {3};
  plan.rows[0].score_top = 1;
  StepResult good = GoodResult();
  SequenceResult& answer = good.sequences[0];
  answer.token_logprobs = {-1};
  answer.token_top.resize(2);
  answer.logprobs = {-2};
  answer.score_top.resize(1);
  EXPECT_TRUE(ReceiveOf({Encode(good)}, plan).ok());
  ExpectFailure(ReceiveOf({Encode(good)}), absl::StatusCode::kInternal, {"asked slot 2"});
  const auto expect_refused = [&](auto change) {
    StepResult bad = good;
    change(bad.sequences[0]);
    ExpectFailure(ReceiveOf({Encode(bad)}, plan), absl::StatusCode::kInternal,
                  {"with 2 alternatives", "slot 2 answered 1 tokens"});
  };
  expect_refused([](SequenceResult& r) { r.token_logprobs.clear(); });
  expect_refused([](SequenceResult& r) { r.token_top.pop_back(); });
  expect_refused([](SequenceResult& r) { r.logprobs.push_back(0); });
  expect_refused([](SequenceResult& r) { r.score_top.clear(); });
}

// Slot 2 is of the first group, slot 5 of the second.
StepPlan PlanOfTwoGroups() {
  StepPlan plan = PlanWithOneSample();
  plan.rows.push_back(plan.rows[0]);
  plan.rows[1].slot = 5;
  return plan;
}

StepResult ResultOfSlot(uint32_t slot, uint64_t digest) {
  StepResult result = GoodResult();
  result.digest = digest;
  result.sequences[0].slot = slot;
  return result;
}

TEST(Executor, JoinsWhatTheFirstRankOfEveryGroupAnswers) {
  StepResult silent = GoodResult();
  silent.sequences.clear();
  StepResult other_silent = silent;
  other_silent.digest = 78;  // of another group: its tokens are others
  const auto result = ReceiveOf({Encode(ResultOfSlot(2, 77)), Encode(silent),
                                 Encode(ResultOfSlot(5, 78)), Encode(other_silent)},
                                PlanOfTwoGroups(), 2);
  ASSERT_TRUE(result.ok()) << result.status();
  ASSERT_EQ(result->sequences.size(), 2u);
  EXPECT_EQ(result->sequences[0].slot, 2u);
  EXPECT_EQ(result->sequences[1].slot, 5u);
}

TEST(Executor, AddsUpTheGroupsRowsOfEveryExpert) {
  StepResult first = ResultOfSlot(2, 77);
  StepResult second = ResultOfSlot(5, 78);
  first.expert_hits = {1, 2};
  second.expert_hits = {10, 0};
  const auto result = ReceiveOf({Encode(first), Encode(second)}, PlanOfTwoGroups(), 2);
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(result->expert_hits, (std::vector<int32_t>{11, 2}));
  second.expert_hits = {10};
  ExpectFailure(ReceiveOf({Encode(first), Encode(second)}, PlanOfTwoGroups(), 2),
                absl::StatusCode::kInternal, {"rank 1 counted 1 experts, rank 0 2"});
}

TEST(Executor, ComparesDigestsInsideAGroup) {
  const std::string first = Encode(ResultOfSlot(2, 77));
  ExpectFailure(ReceiveOf({first, first, Encode(ResultOfSlot(5, 78)), Encode(ResultOfSlot(5, 79))},
                          PlanOfTwoGroups(), 2),
                absl::StatusCode::kInternal, {"rank 2 has 0x", "4e, rank 3 has 0x"});
}

TEST(Executor, NamesTheFirstRanksWhenTheirAnswersAreNotWhatWasAsked) {
  ExpectFailure(
      ReceiveOf({Encode(ResultOfSlot(2, 77)), Encode(ResultOfSlot(6, 78))}, PlanOfTwoGroups(), 2),
      absl::StatusCode::kInternal, {"rank 0, rank 1: step 1: asked slot 5"});
}

TEST(Executor, ASendThatFailsNamesItsRank) {
  std::vector<std::unique_ptr<StepLink>> links;
  auto link =
      std::make_unique<WrittenLink>("rank 0 (pid 4711)", std::deque<absl::StatusOr<std::string>>());
  link->send_status = absl::DeadlineExceededError("the ring stays full");
  links.push_back(std::move(link));
  Executor executor(4, std::move(links), absl::Seconds(10));
  const absl::Status status = executor.Send(PlanWithOneSample());
  EXPECT_EQ(status.code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_EQ(status.message(), "rank 0 (pid 4711): sending step 1: the ring stays full");
}

SchedulerOptions SmallOptions() {
  SchedulerOptions options;
  options.blocks = 8;
  options.max_model_len = 64;
  return options;
}

StepPlan FirstPlan() {
  Scheduler scheduler(SmallOptions());
  scheduler.SetEpoch(4);
  Request request;
  request.prompt = {1, 2, 3};
  request.stopping.max_tokens = 2;
  EXPECT_TRUE(scheduler.Add(1, request).ok());
  return *scheduler.Next();
}

TEST(Executor, AbortWakesAReceiveFromAnotherThread) {
  HashGroupOptions options;
  options.scheduler = SmallOptions();
  options.gate->HoldBefore(1);
  const std::unique_ptr<Executor> executor = MakeHashGroup(4, options);
  ASSERT_TRUE(executor->Send(FirstPlan()).ok());
  std::thread aborter([&] {
    options.gate->WaitUntilHeld();
    executor->Abort(absl::UnavailableError("node 7 is gone"));
  });
  const auto result = executor->Receive();
  aborter.join();
  ExpectFailure(result, absl::StatusCode::kUnavailable, {"rank 0: node 7 is gone"});
  EXPECT_EQ(executor->Send(FirstPlan()).code(), absl::StatusCode::kUnavailable);
}

TEST(Executor, AStepThatTakesTooLongNamesTheRankThatIsMissing) {
  HashGroupOptions options;
  options.scheduler = SmallOptions();
  options.ranks = 3;
  options.is_silent_at_step = 1;
  options.step_timeout = absl::Milliseconds(500);
  const std::unique_ptr<Executor> executor = MakeHashGroup(4, options);
  ASSERT_TRUE(executor->Send(FirstPlan()).ok());
  ExpectFailure(executor->Receive(), absl::StatusCode::kDeadlineExceeded,
                {"step 1 of epoch 4: rank 2: no result of the step in time"});
}

}  // namespace
}  // namespace cohort
