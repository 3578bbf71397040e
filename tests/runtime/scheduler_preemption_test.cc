// Who is admitted, who gives way and who goes on when slots and KV blocks are short.
#include <gtest/gtest.h>

#include <deque>

#include "tests/runtime/scheduler_fixture.h"

namespace cohort {
namespace {

// Blocks of 4 tokens.
SchedulerOptions Options(int64_t blocks) {
  SchedulerOptions options = SmallOptions();
  options.blocks = blocks;
  options.max_batch_tokens = 12;
  options.prefix_caching = false;
  return options;
}

Request Urgent(std::vector<int32_t> prompt, int64_t max_tokens, int32_t priority) {
  Request request = Generate(std::move(prompt), max_tokens);
  request.priority = priority;
  return request;
}

StepResult AnswerAll(const StepPlan& plan, int32_t token = 20) {
  std::vector<std::vector<int32_t>> tokens;
  for (const SequenceRows& rows : plan.rows) {
    if (rows.sample) {
      tokens.push_back({token});
    }
  }
  return Answer(plan, tokens);
}

TEST(SchedulerPreemption, TheYoungestGivesWayAndGoesOnFromWhatItHad) {
  Scheduler scheduler(Options(4));
  ASSERT_TRUE(scheduler.Add(1, Generate({10, 11, 12, 13}, 9)).ok());
  ASSERT_TRUE(scheduler.Add(2, Generate({30, 31, 32, 33}, 9)).ok());
  StepPlan plan = *scheduler.Next();
  ASSERT_EQ(plan.rows.size(), 2u);
  scheduler.Commit(AnswerAll(plan));
  for (int step = 0; step < 4; ++step) {  // positions 4..7 of both fill the four blocks
    plan = *scheduler.Next();
    ASSERT_EQ(plan.rows.size(), 2u) << step;
    scheduler.Commit(AnswerAll(plan));
  }
  EXPECT_EQ(scheduler.blocks().available(), 0);
  plan = *scheduler.Next();
  EXPECT_EQ(plan.rows, (std::vector<SequenceRows>{Rows(0, 8, {{.id = 20}}, {1}, true)}))
      << "the second gave its blocks";
  EXPECT_EQ(plan.releases, (std::vector<uint32_t>{1}));
  EXPECT_EQ(scheduler.counts().preemptions, 1u);
  EXPECT_EQ(scheduler.running(), 1);
  EXPECT_EQ(scheduler.waiting(), 1);
  scheduler.Commit(AnswerAll(plan));
  for (int step = 0; step < 3; ++step) {
    scheduler.Commit(AnswerAll(*scheduler.Next()));
  }
  plan = *scheduler.Next();  // the first has ended with its ninth token
  ASSERT_EQ(plan.admits.size(), 1u);
  EXPECT_EQ(plan.admits[0].prompt_tokens, 4u);
  EXPECT_EQ(plan.rows[0].tokens.size(), 9u) << "four of the prompt and five generated ones";
  const auto updates = scheduler.Commit(AnswerAll(plan, 21));
  EXPECT_EQ(updates[0].first_index, 5);
  EXPECT_EQ(updates[0].tokens, (std::vector<int32_t>{21}));
  EXPECT_FALSE(updates[0].scheduled);
}

TEST(SchedulerPreemption, WhatAPlanInFlightNamesIsGivenUpWithItsCommit) {
  Scheduler scheduler(Options(5));
  ASSERT_TRUE(scheduler.Add(1, Generate({10, 11, 12, 13, 14, 15, 16}, 9)).ok());
  ASSERT_TRUE(scheduler.Add(2, Generate({30, 31, 32}, 9)).ok());
  std::deque<StepPlan> in_flight;
  for (int step = 1; step <= 6; ++step) {  // positions 11 and 7 fill the five blocks
    in_flight.push_back(*scheduler.Next());
    ASSERT_EQ(in_flight.back().rows.size(), 2u) << step;
    if (in_flight.size() == 3) {
      scheduler.Commit(AnswerAll(in_flight.front()));
      in_flight.pop_front();
    }
  }
  EXPECT_FALSE(scheduler.Next().has_value()) << "the first waits for blocks, the second gives way";
  EXPECT_EQ(scheduler.counts().preemptions, 1u);
  EXPECT_EQ(scheduler.running(), 2);
  EXPECT_EQ(scheduler.Commit(AnswerAll(in_flight.front())).size(), 2u) << "tokens still come";
  EXPECT_FALSE(scheduler.Next().has_value());
  EXPECT_EQ(scheduler.Commit(AnswerAll(in_flight.back())).size(), 2u);
  EXPECT_EQ(scheduler.running(), 1);
  EXPECT_EQ(scheduler.waiting(), 1);
  const StepPlan plan = *scheduler.Next();
  EXPECT_EQ(plan.rows, (std::vector<SequenceRows>{Rows(0, 12, {{.id = 20}}, {2}, true)}));
  EXPECT_EQ(plan.releases, (std::vector<uint32_t>{1}));
  EXPECT_EQ(scheduler.counts().preemptions, 1u);
}

TEST(SchedulerPreemption, LargerPrioritiesGoFirstAndEqualOnesInOrderOfArrival) {
  SchedulerOptions options = Options(8);
  options.max_running = 1;
  Scheduler scheduler(options);
  ASSERT_TRUE(scheduler.Add(1, Urgent({10}, 1, 0)).ok());
  ASSERT_TRUE(scheduler.Add(2, Urgent({11}, 1, 5)).ok());
  ASSERT_TRUE(scheduler.Add(3, Urgent({12}, 1, -1)).ok());
  ASSERT_TRUE(scheduler.Add(4, Urgent({13}, 1, 5)).ok());
  std::vector<RequestId> order;
  while (!scheduler.idle()) {
    order.push_back(scheduler.Commit(AnswerAll(*scheduler.Next()))[0].id);
  }
  EXPECT_EQ(order, (std::vector<RequestId>{2, 4, 1, 3}));
  EXPECT_EQ(scheduler.counts().preemptions, 0u);
}

TEST(SchedulerPreemption, AMoreUrgentRequestTakesTheSlotOfTheLeastUrgentOne) {
  SchedulerOptions options = Options(8);
  options.max_running = 2;
  Scheduler scheduler(options);
  ASSERT_TRUE(scheduler.Add(1, Urgent({10}, 5, 1)).ok());
  ASSERT_TRUE(scheduler.Add(2, Urgent({11}, 5, 0)).ok());
  const StepPlan first = *scheduler.Next();
  ASSERT_TRUE(scheduler.Add(3, Urgent({12}, 5, 1)).ok());
  const StepPlan second = *scheduler.Next();
  EXPECT_TRUE(second.admits.empty()) << "slot 1 is still named";
  EXPECT_EQ(second.rows.size(), 2u) << "the plan had its rows before it was chosen";
  EXPECT_EQ(scheduler.counts().preemptions, 1u);
  EXPECT_EQ(scheduler.Commit(AnswerAll(first)).size(), 2u) << "its tokens still come";
  const StepPlan third = *scheduler.Next();
  EXPECT_TRUE(third.admits.empty());
  EXPECT_EQ(third.rows.size(), 1u) << "it is planned no more";
  scheduler.Commit(AnswerAll(second));
  const StepPlan fourth = *scheduler.Next();
  ASSERT_EQ(fourth.admits.size(), 1u);
  EXPECT_EQ(fourth.admits[0].slot, 1u);
  EXPECT_EQ(scheduler.waiting(), 1);
}

TEST(SchedulerPreemption, EqualsDoNotDisplaceEachOther) {
  SchedulerOptions options = Options(8);
  options.max_running = 1;
  Scheduler scheduler(options);
  ASSERT_TRUE(scheduler.Add(1, Urgent({10}, 5, 1)).ok());
  scheduler.Commit(AnswerAll(*scheduler.Next()));
  ASSERT_TRUE(scheduler.Add(2, Urgent({11}, 5, 1)).ok());
  EXPECT_TRUE(scheduler.Next()->admits.empty());
  EXPECT_EQ(scheduler.counts().preemptions, 0u);
}

TEST(SchedulerPreemption, AMoreUrgentRequestTakesBlocksOnlyWhereTheySuffice) {
  Scheduler scheduler(Options(6));
  ASSERT_TRUE(
      scheduler.Add(1, Urgent({10, 11, 12, 13, 14, 15, 16, 17, 18}, 1, 9)).ok());  // 3 blocks
  const StepPlan first = *scheduler.Next();
  ASSERT_TRUE(
      scheduler.Add(2, Urgent({30, 31, 32, 33, 34, 35, 36, 37, 38}, 3, 0)).ok());  // 3 blocks
  const StepPlan second = *scheduler.Next();
  ASSERT_EQ(second.admits.size(), 1u);
  std::vector<int32_t> prompt(17, 40);  // 5 blocks
  ASSERT_TRUE(scheduler.Add(3, Urgent(prompt, 1, 5)).ok());
  EXPECT_TRUE(scheduler.Next()->admits.empty());
  EXPECT_EQ(scheduler.counts().preemptions, 0u) << "3 of the other and none free are too few";
  EXPECT_EQ(scheduler.Cancel(1, CancelledFinish())->id, 1u);
  scheduler.Next();
  EXPECT_EQ(scheduler.counts().preemptions, 1u) << "with those that come back they suffice";
}

TEST(SchedulerPreemption, PausedSequencesStandStillAndGiveWayFirst) {
  Scheduler scheduler(Options(4));
  ASSERT_TRUE(scheduler.Add(1, Generate({10, 11, 12, 13}, 9)).ok());
  ASSERT_TRUE(scheduler.Add(2, Generate({30, 31, 32, 33}, 9)).ok());
  scheduler.Commit(AnswerAll(*scheduler.Next()));
  scheduler.SetPaused(1, true);
  EXPECT_EQ(scheduler.paused(), 1);
  for (int step = 0; step < 8; ++step) {
    const StepPlan plan = *scheduler.Next();
    ASSERT_EQ(plan.rows.size(), 1u);
    EXPECT_EQ(plan.rows[0].slot, 1u);
    scheduler.Commit(AnswerAll(plan));
  }
  EXPECT_EQ(scheduler.counts().preemptions, 0u) << "three blocks and one were enough";
  EXPECT_EQ(scheduler.running(), 1);
  EXPECT_FALSE(scheduler.Next().has_value());
  EXPECT_FALSE(scheduler.idle());

  ASSERT_TRUE(scheduler.Add(3, Generate({40, 41, 42, 43, 44, 45, 46, 47, 48, 49, 50, 51}, 2)).ok());
  EXPECT_EQ(scheduler.Next()->rows.size(), 1u) << "who waits does not wait for a slow reader";
  EXPECT_EQ(scheduler.counts().preemptions, 1u);
  EXPECT_EQ(scheduler.paused(), 1);
  EXPECT_EQ(scheduler.Cancel(1, CancelledFinish())->finish->completion_tokens, 1);
  EXPECT_EQ(scheduler.paused(), 0);
}

TEST(SchedulerPreemption, PausedRequestsDoNotHoldBackTheQueue) {
  SchedulerOptions options = Options(8);
  options.max_running = 1;
  Scheduler scheduler(options);
  ASSERT_TRUE(scheduler.Add(1, Generate({10}, 1)).ok());
  ASSERT_TRUE(scheduler.Add(2, Generate({11}, 1)).ok());
  scheduler.SetPaused(1, true);
  scheduler.SetPaused(77, true);
  EXPECT_EQ(scheduler.waiting(), 2);
  EXPECT_EQ(scheduler.Commit(AnswerAll(*scheduler.Next()))[0].id, 2u);
  EXPECT_FALSE(scheduler.Next().has_value());
  scheduler.SetPaused(1, false);
  EXPECT_EQ(scheduler.Commit(AnswerAll(*scheduler.Next()))[0].id, 1u);
  EXPECT_TRUE(scheduler.idle());
}

TEST(SchedulerPreemption, BlocksThatWereGivenUpAreFoundAgain) {
  SchedulerOptions options = Options(8);
  options.prefix_caching = true;
  options.max_running = 1;
  Scheduler scheduler(options);
  ASSERT_TRUE(scheduler.Add(1, Urgent({10, 11, 12, 13, 14, 15, 16, 17}, 4, 0)).ok());
  scheduler.Commit(AnswerAll(*scheduler.Next()));
  ASSERT_TRUE(scheduler.Add(2, Urgent({40}, 1, 1)).ok());
  const StepPlan plan = *scheduler.Next();
  scheduler.Commit(AnswerAll(plan));
  scheduler.Commit(AnswerAll(*scheduler.Next()));  // the urgent one
  const StepPlan again = *scheduler.Next();
  ASSERT_EQ(again.admits.size(), 1u);
  EXPECT_EQ(again.admits[0].first_position, 8u);
  EXPECT_EQ(again.admits[0].prompt_tokens, 8u);
  EXPECT_EQ(again.rows[0].tokens.size(), 2u) << "positions 8 and 9: what it had generated";
}

TEST(SchedulerPreemption, HalfTheScoresOfAPromptAreComputedAgain) {
  SchedulerOptions options = Options(8);
  options.max_running = 1;
  options.max_batch_tokens = 6;
  Scheduler scheduler(options);
  ASSERT_TRUE(scheduler.Add(1, Score({10, 11, 12, 13, 14, 15, 16, 17})).ok());
  const auto commit = [&](const StepPlan& plan) {
    StepResult result{.epoch = 0, .step = plan.step, .digest = 0, .sequences = {}};
    for (const SequenceRows& rows : plan.rows) {
      result.sequences.push_back({.slot = rows.slot});
      for (const int32_t target : rows.score_targets) {
        result.sequences.back().logprobs.push_back(static_cast<float>(-target));
      }
      if (rows.sample) {
        result.sequences.back().tokens = {20};
      }
    }
    return scheduler.Commit(result);
  };
  commit(*scheduler.Next());
  scheduler.SetPaused(1, true);
  ASSERT_TRUE(scheduler.Add(2, Generate({40}, 1)).ok());
  commit(*scheduler.Next());
  scheduler.SetPaused(1, false);
  EXPECT_EQ(scheduler.Next()->rows[0].first_position, 0u);
}

}  // namespace
}  // namespace cohort
