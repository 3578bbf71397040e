#include "runtime/scheduler.h"

#include <gtest/gtest.h>

#include <ctime>
#include <limits>

#include "tests/runtime/scheduler_fixture.h"

namespace cohort {
namespace {

TEST(Scheduler, PlansPrefillThenDecodesUntilMaxTokens) {
  Scheduler scheduler(SmallOptions());
  scheduler.SetEpoch(5);
  ASSERT_TRUE(scheduler.Add(1, Generate({10, 11, 12, 13}, 2)).ok());

  StepPlan expected;
  expected.epoch = 5;
  expected.step = 1;
  expected.admits = {{.slot = 0, .prompt_tokens = 4, .sampling = {}}};
  expected.rows = {Rows(0, 0, {{.id = 10}, {.id = 11}, {.id = 12}, {.id = 13}}, {0}, true)};
  const StepPlan first = *scheduler.Next();
  EXPECT_EQ(first, expected);
  auto updates = scheduler.Commit(Answer(first, {{20}}));
  ASSERT_EQ(updates.size(), 1u);
  EXPECT_EQ(updates[0].id, 1u);
  EXPECT_TRUE(updates[0].scheduled);
  EXPECT_EQ(updates[0].first_index, 0);
  EXPECT_EQ(updates[0].tokens, (std::vector<int32_t>{20}));
  EXPECT_FALSE(updates[0].finish.has_value());

  expected.step = 2;
  expected.admits.clear();
  expected.rows = {Rows(0, 4, {{.id = 20}}, {1}, true)};
  const StepPlan second = *scheduler.Next();
  EXPECT_EQ(second, expected);
  updates = scheduler.Commit(Answer(second, {{21}}));
  ASSERT_EQ(updates.size(), 1u);
  EXPECT_FALSE(updates[0].scheduled);
  EXPECT_EQ(updates[0].first_index, 1);
  ASSERT_TRUE(updates[0].finish.has_value());
  EXPECT_EQ(updates[0].finish->reason, FinishReason::kLength);
  EXPECT_TRUE(updates[0].finish->status.ok());
  EXPECT_EQ(updates[0].finish->prompt_tokens, 4);
  EXPECT_EQ(updates[0].finish->completion_tokens, 2);
  EXPECT_TRUE(scheduler.idle());
  EXPECT_EQ(scheduler.blocks().used(), 0);
  EXPECT_EQ(scheduler.counts().prompt_tokens_computed, 4u);
  EXPECT_FALSE(scheduler.Next().has_value());
}

TEST(Scheduler, DecodesComeFirstAndPrefillFillsTheRestInChunks) {
  Scheduler scheduler(SmallOptions());
  ASSERT_TRUE(scheduler.Add(1, Generate({10}, 5)).ok());
  const StepPlan first = *scheduler.Next();
  scheduler.Commit(Answer(first, {{20}}));
  ASSERT_TRUE(scheduler.Add(2, Generate({30, 31, 32, 33, 34, 35, 36}, 2)).ok());

  StepPlan expected;
  expected.step = 2;
  expected.admits = {{.slot = 1, .prompt_tokens = 7, .sampling = {}}};
  expected.rows = {
      Rows(0, 1, {{.id = 20}}, {}, true),
      Rows(1, 0, {{.id = 30}, {.id = 31}, {.id = 32}, {.id = 33}, {.id = 34}}, {1, 2}, false)};
  const StepPlan second = *scheduler.Next();
  EXPECT_EQ(second, expected);
  scheduler.Commit(Answer(second, {{21}}));

  expected.step = 3;
  expected.admits.clear();
  expected.rows = {Rows(0, 2, {{.id = 21}}, {}, true),
                   Rows(1, 5, {{.id = 35}, {.id = 36}}, {}, true)};
  EXPECT_EQ(*scheduler.Next(), expected);
}

TEST(Scheduler, NextBeforeCommitNamesTheSampleOfTheStepInFlight) {
  Scheduler scheduler(SmallOptions());
  ASSERT_TRUE(scheduler.Add(1, Generate({10, 11}, 3)).ok());
  const StepPlan first = *scheduler.Next();
  const StepPlan second = *scheduler.Next();
  EXPECT_EQ(second.rows,
            (std::vector<SequenceRows>{Rows(0, 2, {{.sampled_in_step = 1}}, {}, true)}));
  const StepPlan third = *scheduler.Next();
  EXPECT_EQ(third.rows,
            (std::vector<SequenceRows>{Rows(0, 3, {{.sampled_in_step = 2}}, {}, true)}));
  EXPECT_FALSE(scheduler.Next().has_value()) << "three samples are all that was asked";
  EXPECT_EQ(scheduler.in_flight(), 3);
  scheduler.Commit(Answer(first, {{20}}));
  scheduler.Commit(Answer(second, {{21}}));
  EXPECT_EQ(scheduler.Commit(Answer(third, {{22}}))[0].finish->reason, FinishReason::kLength);
  EXPECT_TRUE(scheduler.idle());
}

TEST(Scheduler, AnEndTokenInFlightKeepsSlotAndBlocksUntilTheLastPlanIsCommitted) {
  Scheduler scheduler(SmallOptions());
  ASSERT_TRUE(scheduler.Add(1, Generate({10, 11, 12, 13}, 5)).ok());
  const StepPlan first = *scheduler.Next();
  const StepPlan second = *scheduler.Next();
  const auto updates = scheduler.Commit(Answer(first, {{kEos}}));
  EXPECT_EQ(updates[0].finish->reason, FinishReason::kStop);
  EXPECT_EQ(updates[0].tokens, (std::vector<int32_t>{kEos}));
  EXPECT_EQ(scheduler.blocks().used(), 2) << "the second plan still names them";
  EXPECT_FALSE(scheduler.idle());

  ASSERT_TRUE(scheduler.Add(2, Generate({14}, 1)).ok());
  const StepPlan third = *scheduler.Next();
  EXPECT_EQ(third.admits[0].slot, 1u) << "slot 0 is still named";
  EXPECT_EQ(third.rows[0].appended_blocks, (std::vector<int32_t>{2}));
  EXPECT_TRUE(third.releases.empty());
  EXPECT_TRUE(scheduler.Commit(Answer(second, {{15}})).empty());
  EXPECT_EQ(scheduler.blocks().used(), 1);
  scheduler.Commit(Answer(third, {{16}}));

  ASSERT_TRUE(scheduler.Add(3, Generate({17}, 1)).ok());
  const StepPlan fourth = *scheduler.Next();
  EXPECT_EQ(fourth.admits[0].slot, 1u) << "the last slot given back is taken first";
  EXPECT_EQ(fourth.releases, (std::vector<uint32_t>{0})) << "what an admission resets is not named";
}

TEST(Scheduler, StopIdsEndEvenWhenEndIdsAreIgnored) {
  Scheduler scheduler(SmallOptions());
  Request request = Generate({10}, 5);
  request.stopping.ignore_eos = true;
  request.stopping.stop_token_ids = {7};
  ASSERT_TRUE(scheduler.Add(1, request).ok());
  StepPlan plan = *scheduler.Next();
  EXPECT_FALSE(scheduler.Commit(Answer(plan, {{kEos}}))[0].finish.has_value());
  plan = *scheduler.Next();
  const auto updates = scheduler.Commit(Answer(plan, {{7}}));
  EXPECT_EQ(updates[0].finish->reason, FinishReason::kStop);
  EXPECT_EQ(updates[0].finish->completion_tokens, 2);
}

TEST(Scheduler, LogitsThatAreNotNumbersEndTheRequestWithAnErrorThatSaysSo) {
  Scheduler scheduler(SmallOptions());
  ASSERT_TRUE(scheduler.Add(1, Generate({10, 11}, 5)).ok());
  StepPlan plan = *scheduler.Next();
  scheduler.Commit(Answer(plan, {{20}}));
  plan = *scheduler.Next();
  const auto updates = scheduler.Commit(Answer(plan, {{-1}}));
  ASSERT_EQ(updates.size(), 1u);
  EXPECT_TRUE(updates[0].tokens.empty());
  EXPECT_EQ(updates[0].finish->reason, FinishReason::kError);
  EXPECT_EQ(updates[0].finish->status.code(), absl::StatusCode::kInternal);
  EXPECT_NE(updates[0].finish->status.message().find("generated token 1 (position 3)"),
            StringView::npos)
      << updates[0].finish->status;
  EXPECT_EQ(updates[0].finish->completion_tokens, 1);
  EXPECT_EQ(scheduler.blocks().used(), 0);
}

TEST(Scheduler, ARowWithoutAnIdToChooseNamesTheParameters) {
  Scheduler scheduler(SmallOptions());
  ASSERT_TRUE(scheduler.Add(1, Generate({10, 11}, 5)).ok());
  const auto updates = scheduler.Commit(Answer(*scheduler.Next(), {{kNothingAllowed}}));
  EXPECT_EQ(updates[0].finish->reason, FinishReason::kError);
  EXPECT_EQ(updates[0].finish->status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_NE(updates[0].finish->status.message().find("allowed_token_ids"), StringView::npos);
}

TEST(Scheduler, SeveralTokensOfOneResultAreAcceptedUpToTheEnd) {
  Scheduler scheduler(SmallOptions());
  ASSERT_TRUE(scheduler.Add(1, Generate({10}, 4)).ok());
  StepPlan plan = *scheduler.Next();
  EXPECT_EQ(scheduler.Commit(Answer(plan, {{20, 21}}))[0].tokens, (std::vector<int32_t>{20, 21}));
  plan = *scheduler.Next();  // what was accepted is computed like a prefill
  EXPECT_EQ(plan.rows, (std::vector<SequenceRows>{Rows(0, 1, {{.id = 20}, {.id = 21}}, {}, true)}));
  auto updates = scheduler.Commit(Answer(plan, {{22, 23, 24, 25}}));
  EXPECT_EQ(updates[0].tokens, (std::vector<int32_t>{22, 23}));
  EXPECT_EQ(updates[0].finish->reason, FinishReason::kLength);

  ASSERT_TRUE(scheduler.Add(2, Generate({10}, 4)).ok());
  plan = *scheduler.Next();
  updates = scheduler.Commit(Answer(plan, {{20, kEos, 22}}));
  EXPECT_EQ(updates[0].tokens, (std::vector<int32_t>{20, kEos}));
  EXPECT_EQ(updates[0].finish->reason, FinishReason::kStop);
}

TEST(Scheduler, TokensThatAnEarlierResultGaveAreNotTakenTwice) {
  Scheduler scheduler(SmallOptions());
  ASSERT_TRUE(scheduler.Add(1, Generate({10}, 6)).ok());
  const StepPlan first = *scheduler.Next();
  const StepPlan second = *scheduler.Next();  // position 1, the first token of step 1
  EXPECT_EQ(scheduler.Commit(Answer(first, {{20, 21}}))[0].tokens, (std::vector<int32_t>{20, 21}));
  EXPECT_EQ(scheduler.Commit(Answer(second, {{21, 22}}))[0].tokens, (std::vector<int32_t>{22}));
  EXPECT_EQ(scheduler.Next()->rows,
            (std::vector<SequenceRows>{Rows(0, 2, {{.id = 21}, {.id = 22}}, {}, true)}));
}

TEST(Scheduler, ScoreWalksThePromptWithTargetsAndReturnsTheirLogProbabilities) {
  Scheduler scheduler(SmallOptions());
  ASSERT_TRUE(scheduler.Add(1, Score({10, 11, 12, 13, 14, 15, 16, 17})).ok());
  StepPlan plan = *scheduler.Next();
  ASSERT_EQ(plan.rows.size(), 1u);
  EXPECT_EQ(plan.rows[0].score_targets, (std::vector<int32_t>{11, 12, 13, 14, 15, 16}));
  EXPECT_FALSE(plan.rows[0].sample);
  StepResult result{.epoch = 0, .step = 1, .digest = 0, .sequences = {}};
  result.sequences = {{.slot = 0, .tokens = {}, .logprobs = {-1, -2, -3, -4, -5, -6}}};
  EXPECT_FALSE(scheduler.Commit(result)[0].finish.has_value());

  plan = *scheduler.Next();
  EXPECT_EQ(plan.rows[0].score_targets, (std::vector<int32_t>{17, -1}));
  result = {.epoch = 0, .step = 2, .digest = 0, .sequences = {}};
  result.sequences = {{.slot = 0, .tokens = {}, .logprobs = {-7, 0}}};
  const auto updates = scheduler.Commit(result);
  EXPECT_EQ(updates[0].finish->reason, FinishReason::kStop);
  EXPECT_EQ(updates[0].finish->prompt_logprobs, (std::vector<float>{-1, -2, -3, -4, -5, -6, -7}));
  EXPECT_EQ(updates[0].finish->completion_tokens, 0);
  EXPECT_TRUE(scheduler.idle());
}

TEST(Scheduler, AScoreThatIsNotANumberIsAnError) {
  Scheduler scheduler(SmallOptions());
  ASSERT_TRUE(scheduler.Add(1, Score({10, 11, 12})).ok());
  scheduler.Next();
  StepResult result{.epoch = 0, .step = 1, .digest = 0, .sequences = {}};
  result.sequences = {
      {.slot = 0, .tokens = {}, .logprobs = {-1, std::numeric_limits<float>::quiet_NaN(), 0}}};
  const auto updates = scheduler.Commit(result);
  EXPECT_EQ(updates[0].finish->status.code(), absl::StatusCode::kInternal);
  EXPECT_NE(updates[0].finish->status.message().find("after position 1"), StringView::npos);
  EXPECT_TRUE(updates[0].finish->prompt_logprobs.empty());
}

TEST(Scheduler, ScoresOfOneTokenHaveNothingToSay) {
  Scheduler scheduler(SmallOptions());
  ASSERT_TRUE(scheduler.Add(1, Score({10})).ok());
  EXPECT_EQ(scheduler.Next()->rows[0].score_targets, (std::vector<int32_t>{-1}));
  StepResult result{.epoch = 0, .step = 1, .digest = 0, .sequences = {}};
  result.sequences = {{.slot = 0, .tokens = {}, .logprobs = {0}}};
  EXPECT_TRUE(scheduler.Commit(result)[0].finish->prompt_logprobs.empty());
}

TEST(Scheduler, ARequestWaitsUntilItsPromptAndTheNextBlocksOfTheOthersFit) {
  Scheduler scheduler(SmallOptions());  // 8 blocks of 4
  ASSERT_TRUE(scheduler.Add(1, Generate({10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21}, 5)).ok());
  ASSERT_TRUE(scheduler.Add(2, Generate({31, 32, 33, 34, 35, 36, 37, 38, 39, 40, 41, 42}, 5)).ok());
  ASSERT_TRUE(scheduler.Add(3, Generate({12}, 1)).ok());  // 1 block: fits, but came later
  EXPECT_EQ(scheduler.Next()->rows.size(), 1u);           // 6 of 12 rows
  EXPECT_EQ(scheduler.Next()->rows.size(), 1u);
  // The first has its four blocks, the second needs three and may reach a fourth: 8.
  const StepPlan third = *scheduler.Next();
  ASSERT_EQ(third.rows.size(), 2u);
  EXPECT_EQ(scheduler.running(), 2);
  EXPECT_EQ(scheduler.waiting(), 1);
  EXPECT_EQ(scheduler.blocks().used(), 6);
}

TEST(Scheduler, TheLastTokenNeedsNoBlock) {
  SchedulerOptions options = SmallOptions();
  options.blocks = 1;
  Scheduler scheduler(options);
  EXPECT_TRUE(scheduler.Add(1, Generate({10, 11}, 3)).ok());  // positions 0..3
  const absl::Status status = scheduler.Add(2, Generate({10, 11}, 4));
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_NE(status.message().find("needs 2 KV blocks of 4 tokens, but there are 1"),
            StringView::npos)
      << status;
  EXPECT_TRUE(scheduler.Add(3, Score({10, 11, 12, 13})).ok());
  EXPECT_FALSE(scheduler.Add(4, Score({10, 11, 12, 13, 14})).ok());
}

TEST(Scheduler, RequestsThatCanNeverRunAreRefusedWithValueAndLimit) {
  Scheduler scheduler(SmallOptions());
  EXPECT_EQ(scheduler.Add(1, Generate({}, 1)).code(), absl::StatusCode::kInvalidArgument);
  absl::Status status = scheduler.Add(1, Generate({10}, 0));
  EXPECT_NE(status.message().find("stopping.max_tokens is 0"), StringView::npos) << status;
  status = scheduler.Add(1, Generate({10}, std::numeric_limits<int64_t>::max()));
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_NE(status.message().find("limit of 32 tokens"), StringView::npos) << status;
  EXPECT_TRUE(scheduler.Add(1, Generate({10}, 31)).ok());
  EXPECT_FALSE(scheduler.Add(2, Generate({10}, 32)).ok());
}

TEST(Scheduler, AFullQueueIsExhausted) {
  Scheduler scheduler(SmallOptions());
  for (RequestId id = 1; id <= 4; ++id) {
    ASSERT_TRUE(scheduler.Add(id, Generate({10}, 1)).ok());
  }
  EXPECT_EQ(scheduler.Add(5, Generate({10}, 1)).code(), absl::StatusCode::kResourceExhausted);
}

TEST(Scheduler, TheQueueIsBoundedInTokensToo) {
  SchedulerOptions options = SmallOptions();
  options.max_waiting_tokens = 6;
  Scheduler scheduler(options);
  ASSERT_TRUE(scheduler.Add(1, Generate({1, 2, 3, 4, 5, 6, 7, 8}, 1)).ok()) << "one always fits";
  const absl::Status status = scheduler.Add(2, Generate({10}, 1));
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_NE(status.message().find("8 tokens are waiting, 1 more are over its limit of 6"),
            StringView::npos)
      << status;
  scheduler.Next();  // the first one runs
  EXPECT_TRUE(scheduler.Add(2, Generate({10, 11, 12, 13}, 1)).ok());
  EXPECT_TRUE(scheduler.Add(3, Generate({10, 11}, 1)).ok());
  EXPECT_FALSE(scheduler.Add(4, Generate({10}, 1)).ok());
  scheduler.Cancel(2, CancelledFinish());
  EXPECT_TRUE(scheduler.Add(4, Generate({10}, 1)).ok());
}

TEST(Scheduler, PrefillIsCappedInStepsThatDecode) {
  SchedulerOptions options = SmallOptions();
  options.max_prefill_tokens = 2;
  Scheduler scheduler(options);
  ASSERT_TRUE(scheduler.Add(1, Generate({10, 11, 12}, 3)).ok());
  const StepPlan first = *scheduler.Next();
  EXPECT_EQ(first.tokens(), 3) << "nobody waits for a token";
  ASSERT_TRUE(scheduler.Add(2, Generate({30, 31, 32, 33, 34}, 2)).ok());
  const StepPlan second = *scheduler.Next();
  EXPECT_EQ(second.rows,
            (std::vector<SequenceRows>{Rows(0, 3, {{.sampled_in_step = 1}}, {}, true),
                                       Rows(1, 0, {{.id = 30}, {.id = 31}}, {1}, false)}));
  scheduler.Commit(Answer(first, {{kEos}}));
  scheduler.Commit(Answer(second, {{20}}));
  EXPECT_EQ(scheduler.Next()->tokens(), 3) << "nobody decodes";
}

TEST(Scheduler, AnAdmissionSaysWhatTheChoiceNeeds) {
  Scheduler scheduler(SmallOptions());
  Request request = Generate({10, 11}, 5);
  request.sequence_index = 3;
  request.sampling.frequency_penalty = 1;
  request.stopping.min_tokens = 2;
  request.stopping.stop_token_ids = {7};
  ASSERT_TRUE(scheduler.Add(1, request).ok());
  request.stopping.ignore_eos = true;
  ASSERT_TRUE(scheduler.Add(2, request).ok());
  AdmitSequence expected = {.slot = 0,
                            .sequence_index = 3,
                            .prompt_tokens = 2,
                            .min_tokens = 2,
                            .held_back_ids = {7, kEos},
                            .sampling = request.sampling};
  const StepPlan plan = *scheduler.Next();
  EXPECT_EQ(plan.admits[0], expected);
  expected.slot = 1;
  expected.held_back_ids = {7};
  EXPECT_EQ(plan.admits[1], expected);
}

TEST(Scheduler, LogProbabilitiesComeWithTheTokensThatAreTaken) {
  Scheduler scheduler(SmallOptions());
  Request request = Generate({10}, 2);
  request.sampling.logprobs = 2;
  ASSERT_TRUE(scheduler.Add(1, request).ok());
  StepResult result = Answer(*scheduler.Next(), {{20, 21, 22}});
  result.sequences[0].token_logprobs = {-1, -2, -3};
  result.sequences[0].token_top = {{20, -1}, {1, -4}, {21, -2}, {1, -5}, {22, -3}, {1, -6}};
  const auto updates = scheduler.Commit(result);
  EXPECT_EQ(updates[0].tokens, (std::vector<int32_t>{20, 21}));
  EXPECT_EQ(updates[0].logprobs, (std::vector<float>{-1, -2}));
  EXPECT_EQ(updates[0].top, (std::vector<TokenLogprob>{{20, -1}, {1, -4}, {21, -2}, {1, -5}}));
}

TEST(Scheduler, AGenerationMayHaveItsPromptScoredToo) {
  Scheduler scheduler(SmallOptions());
  Request request = Generate({10, 11, 12, 13, 14, 15, 16}, 1);
  request.prompt_logprobs = 1;
  ASSERT_TRUE(scheduler.Add(1, request).ok());
  StepPlan plan = *scheduler.Next();
  EXPECT_EQ(plan.rows[0].score_targets, (std::vector<int32_t>{11, 12, 13, 14, 15, 16}));
  EXPECT_EQ(plan.rows[0].score_top, 1u);
  EXPECT_FALSE(plan.rows[0].sample);
  StepResult result{.epoch = 0, .step = 1, .digest = 0, .sequences = {}};
  result.sequences = {{.slot = 0,
                       .logprobs = {-1, -2, -3, -4, -5, -6},
                       .score_top = {{1, -1}, {2, -1}, {3, -1}, {4, -1}, {5, -1}, {6, -1}}}};
  EXPECT_FALSE(scheduler.Commit(result)[0].finish.has_value());
  plan = *scheduler.Next();
  EXPECT_TRUE(plan.rows[0].score_targets.empty()) << "nothing of the prompt follows";
  const auto updates = scheduler.Commit(Answer(plan, {{20}}));
  EXPECT_EQ(updates[0].finish->reason, FinishReason::kLength);
  EXPECT_EQ(updates[0].finish->prompt_logprobs, (std::vector<float>{-1, -2, -3, -4, -5, -6}));
  EXPECT_EQ(updates[0].finish->prompt_top,
            (std::vector<TokenLogprob>{{1, -1}, {2, -1}, {3, -1}, {4, -1}, {5, -1}, {6, -1}}));
}

TEST(Scheduler, CancelWorksInEveryStateAndOnlyOnce) {
  Scheduler scheduler(SmallOptions());
  ASSERT_TRUE(scheduler.Add(1, Generate({10}, 5)).ok());
  ASSERT_TRUE(scheduler.Add(2, Generate({11}, 5)).ok());
  EXPECT_FALSE(scheduler.Cancel(3, CancelledFinish()).has_value());
  const auto waiting = scheduler.Cancel(2, CancelledFinish());
  ASSERT_TRUE(waiting.has_value());
  EXPECT_EQ(waiting->finish->reason, FinishReason::kCancelled);
  EXPECT_EQ(waiting->finish->prompt_tokens, 1);

  StepPlan plan = *scheduler.Next();
  scheduler.Commit(Answer(plan, {{20}}));
  plan = *scheduler.Next();
  const auto in_flight = scheduler.Cancel(1, CancelledFinish());
  EXPECT_EQ(in_flight->first_index, 1);
  EXPECT_EQ(in_flight->finish->completion_tokens, 1);
  EXPECT_EQ(scheduler.blocks().used(), 1);
  EXPECT_EQ(scheduler.running(), 0);
  EXPECT_FALSE(scheduler.Cancel(1, CancelledFinish()).has_value());
  EXPECT_TRUE(scheduler.Commit(Answer(plan, {{21}})).empty());
  EXPECT_EQ(scheduler.blocks().used(), 0);

  ASSERT_TRUE(scheduler.Add(4, Generate({10}, 5)).ok());
  plan = *scheduler.Next();
  scheduler.Commit(Answer(plan, {{20}}));
  EXPECT_TRUE(scheduler.Cancel(4, CancelledFinish()).has_value());  // running, nothing in flight
  EXPECT_EQ(scheduler.blocks().used(), 0);
  EXPECT_TRUE(scheduler.idle());
}

TEST(Scheduler, RequeueStartsEverythingAgainFromWhatItHadGenerated) {
  Scheduler scheduler(SmallOptions());
  scheduler.SetEpoch(1);
  ASSERT_TRUE(scheduler.Add(1, Generate({10, 11}, 3)).ok());
  StepPlan plan = *scheduler.Next();
  scheduler.Commit(Answer(plan, {{20}}));
  ASSERT_TRUE(scheduler.Add(2, Generate({12}, 3)).ok());
  scheduler.Next();
  scheduler.Next();
  ASSERT_TRUE(scheduler.Add(3, Generate({13}, 1)).ok());
  scheduler.Requeue(2);
  EXPECT_EQ(scheduler.unfinished(), (std::vector<RequestId>{1, 2, 3}));
  EXPECT_EQ(scheduler.blocks().used(), 0);
  EXPECT_EQ(scheduler.in_flight(), 0);
  EXPECT_EQ(scheduler.running(), 0);

  StepPlan expected;
  expected.epoch = 2;
  expected.step = 1;
  expected.admits = {{.slot = 0, .prompt_tokens = 2, .sampling = {}},
                     {.slot = 1, .prompt_tokens = 1, .sampling = {}},
                     {.slot = 2, .prompt_tokens = 1, .sampling = {}}};
  expected.rows = {Rows(0, 0, {{.id = 10}, {.id = 11}, {.id = 20}}, {0}, true),
                   Rows(1, 0, {{.id = 12}}, {1}, true), Rows(2, 0, {{.id = 13}}, {2}, true)};
  plan = *scheduler.Next();
  EXPECT_EQ(plan, expected);
  const auto updates = scheduler.Commit(Answer(plan, {{21}, {22}, {23}}));
  EXPECT_EQ(updates[0].first_index, 1);
  EXPECT_FALSE(updates[0].scheduled) << "it was told before";
  EXPECT_TRUE(updates[1].scheduled);
  EXPECT_EQ(scheduler.Next()->rows.size(), 2u) << "both still have a token to come";
}

TEST(Scheduler, NoMoreSequencesRunThanRowsFit) {
  SchedulerOptions options = SmallOptions();
  options.max_running = 100;
  EXPECT_EQ(Scheduler(options).options().max_running, 6);
}

// Seconds of processor time that the scheduler takes for 20 rounds of Next and Commit with
// `sequences` decoding.
double RoundsWith(int64_t sequences) {
  SchedulerOptions options;
  options.blocks = sequences * 4;
  options.max_running = options.max_batch_tokens = options.max_waiting = sequences;
  options.max_model_len = 64;
  Scheduler scheduler(options);
  for (RequestId id = 1; id <= static_cast<RequestId>(sequences); ++id) {
    EXPECT_TRUE(scheduler.Add(id, Generate({10}, 63)).ok());
  }
  std::clock_t spent = 0;
  const std::vector<std::vector<int32_t>> tokens(static_cast<size_t>(sequences), {20});
  for (int round = 0; round < 20; ++round) {
    std::clock_t start = std::clock();
    const StepPlan plan = *scheduler.Next();
    spent += std::clock() - start;
    EXPECT_EQ(plan.tokens(), sequences);
    const StepResult result = Answer(plan, tokens);
    start = std::clock();
    scheduler.Commit(result);
    spent += std::clock() - start;
  }
  return static_cast<double>(spent) / CLOCKS_PER_SEC;
}

// Sixteen times as many cost 16 times as much when the work is linear, 256 times when quadratic.
TEST(Scheduler, WorkPerStepIsLinearInTheSequences) {
  double few = RoundsWith(128);
  double many = RoundsWith(2048);
  for (int repeat = 0; repeat < 3; ++repeat) {
    few = std::min(few, RoundsWith(128));
    many = std::min(many, RoundsWith(2048));
  }
  EXPECT_LT(many, 64 * few) << few << " s, " << many << " s";
}

}  // namespace
}  // namespace cohort
