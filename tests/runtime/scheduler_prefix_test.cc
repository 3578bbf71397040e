// Plans of schedulers that find prefixes.
#include <gtest/gtest.h>

#include "tests/runtime/scheduler_fixture.h"

namespace cohort {
namespace {

SchedulerOptions Options() {
  SchedulerOptions options = SmallOptions();  // 8 blocks of 4 tokens
  options.max_batch_tokens = 12;
  return options;
}

// Plans, answers `token` to whoever samples, commits; the number of rows that it took.
int64_t Step(Scheduler& scheduler, int32_t token = 20) {
  const StepPlan plan = *scheduler.Next();
  std::vector<std::vector<int32_t>> tokens;
  for (const SequenceRows& rows : plan.rows) {
    if (rows.sample) {
      tokens.push_back({token});
    }
  }
  scheduler.Commit(Answer(plan, tokens));
  return plan.tokens();
}

TEST(SchedulerPrefix, ASecondPromptBeginsAfterTheBlocksOfTheFirst) {
  Scheduler scheduler(Options());
  ASSERT_TRUE(scheduler.Add(1, Generate({10, 11, 12, 13, 14, 15, 16, 17, 18}, 1)).ok());
  EXPECT_EQ(Step(scheduler), 9);
  EXPECT_EQ(scheduler.blocks().used(), 0);
  EXPECT_EQ(scheduler.blocks().cached(), 2) << "whole blocks only";

  Request request = Generate({10, 11, 12, 13, 14, 15, 16, 17, 30}, 2);
  request.sampling.repetition_penalty = 2;
  ASSERT_TRUE(scheduler.Add(2, request).ok());
  StepPlan expected;
  expected.step = 2;
  expected.admits = {{.slot = 0,
                      .first_position = 8,
                      .prompt_tokens = 9,
                      .history = {10, 11, 12, 13, 14, 15, 16, 17},
                      .sampling = request.sampling}};
  expected.rows = {Rows(0, 8, {{.id = 30}}, {0, 1, 2}, true)};
  const StepPlan plan = *scheduler.Next();
  EXPECT_EQ(plan, expected);
  scheduler.Commit(Answer(plan, {{20}}));
  const StepPlan last = *scheduler.Next();
  EXPECT_EQ(scheduler.Commit(Answer(last, {{21}}))[0].finish->cached_tokens, 8);
  EXPECT_EQ(scheduler.counts().prefix_queried_tokens, 18u);
  EXPECT_EQ(scheduler.counts().prefix_hit_tokens, 8u);
  EXPECT_EQ(scheduler.counts().prompt_tokens_computed, 10u);
}

TEST(SchedulerPrefix, TheLastTokenOfAPromptIsAlwaysComputed) {
  Scheduler scheduler(Options());
  ASSERT_TRUE(scheduler.Add(1, Generate({10, 11, 12, 13, 14, 15, 16, 17}, 1)).ok());
  Step(scheduler);
  ASSERT_TRUE(scheduler.Add(2, Generate({10, 11, 12, 13, 14, 15, 16, 17}, 1)).ok());
  const StepPlan plan = *scheduler.Next();
  EXPECT_EQ(plan.admits[0].first_position, 4u);
  EXPECT_EQ(plan.rows[0].appended_blocks, (std::vector<int32_t>{0, 2}))
      << "what is written goes to a block of its own";
  scheduler.Commit(Answer(plan, {{20}}));
  EXPECT_EQ(scheduler.blocks().cached(), 2) << "the second copy of the second block is of no use";
}

TEST(SchedulerPrefix, GeneratedTokensAreFoundToo) {
  Scheduler scheduler(Options());
  ASSERT_TRUE(scheduler.Add(1, Generate({10, 11, 12}, 6)).ok());
  for (int step = 0; step < 6; ++step) {
    Step(scheduler);
  }
  ASSERT_TRUE(scheduler.idle());  // positions 0..7 were computed
  ASSERT_TRUE(scheduler.Add(2, Generate({10, 11, 12, 20, 20, 20, 20, 20, 20, 31}, 1)).ok());
  EXPECT_EQ(scheduler.Next()->admits[0].first_position, 8u);
}

TEST(SchedulerPrefix, BlocksAreSharedFromThePlanAfterTheOneThatWritesThem) {
  Scheduler scheduler(Options());
  const std::vector<int32_t> prompt = {10, 11, 12, 13, 14, 15, 16, 17, 18};
  for (RequestId id = 1; id <= 3; ++id) {
    ASSERT_TRUE(scheduler.Add(id, Generate(prompt, 2)).ok());
  }
  ASSERT_TRUE(scheduler.Add(4, Generate({40, 41}, 2)).ok());
  const StepPlan first = *scheduler.Next();
  ASSERT_EQ(first.rows.size(), 2u) << "two wait for the prefix, and another prompt passes them";
  EXPECT_EQ(first.rows[0].tokens.size(), 9u);
  EXPECT_EQ(first.rows[1].tokens.size(), 2u);
  const StepPlan second = *scheduler.Next();  // before any commit: ranks compute plans in order
  ASSERT_EQ(second.admits.size(), 2u);
  for (const size_t sibling : {0u, 1u}) {
    EXPECT_EQ(second.admits[sibling].first_position, 8u);
    const std::vector<int32_t>& blocks = second.rows[2 + sibling].appended_blocks;
    ASSERT_EQ(blocks.size(), 3u);
    EXPECT_EQ(blocks[0], 0);
    EXPECT_EQ(blocks[1], 1);
  }
  EXPECT_EQ(scheduler.blocks().used(), 6);  // two shared, three last ones and that of the other
}

TEST(SchedulerPrefix, ALongPrefixIsWaitedForChunkByChunk) {
  SchedulerOptions options = Options();
  options.max_batch_tokens = 6;
  Scheduler scheduler(options);
  const std::vector<int32_t> prompt = {10, 11, 12, 13, 14, 15, 16, 17, 18, 19};
  ASSERT_TRUE(scheduler.Add(1, Generate(prompt, 1)).ok());
  ASSERT_TRUE(scheduler.Add(2, Generate(prompt, 1)).ok());
  EXPECT_EQ(Step(scheduler), 6);
  EXPECT_EQ(Step(scheduler), 4) << "2 rows are left, but the second would compute what is coming";
  EXPECT_EQ(Step(scheduler), 2);
  EXPECT_TRUE(scheduler.idle());
}

TEST(SchedulerPrefix, OtherSaltsBypassAndScoresComputeEverything) {
  Scheduler scheduler(Options());
  const std::vector<int32_t> prompt = {10, 11, 12, 13, 14, 15};
  ASSERT_TRUE(scheduler.Add(1, Generate(prompt, 1)).ok());
  EXPECT_EQ(Step(scheduler), 6);

  Request request = Generate(prompt, 1);
  request.cache_salt = "mine";
  ASSERT_TRUE(scheduler.Add(2, request).ok());
  EXPECT_EQ(Step(scheduler), 6);
  ASSERT_TRUE(scheduler.Add(3, request).ok());
  EXPECT_EQ(Step(scheduler), 2) << "its own salt is found";

  request = Generate(prompt, 1);
  request.bypass_prefix_cache = true;
  ASSERT_TRUE(scheduler.Add(4, request).ok());
  EXPECT_EQ(Step(scheduler), 6);
  ASSERT_TRUE(scheduler.Add(5, Score(prompt)).ok());
  EXPECT_EQ(scheduler.Next()->tokens(), 6);
}

// What decides is the prompt and max_tokens together, once and for all.
TEST(SchedulerPrefix, ShortRequestsHavePlainRopeAndPrefixesOfTheirOwn) {
  SchedulerOptions options = Options();
  options.plain_rope_positions = 12;
  Scheduler scheduler(options);
  const std::vector<int32_t> prompt = {10, 11, 12, 13, 14, 15, 16, 17, 18};
  const auto admitted = [&](RequestId id, int64_t max_tokens) {
    EXPECT_TRUE(scheduler.Add(id, Generate(prompt, max_tokens)).ok());
    const StepPlan plan = *scheduler.Next();
    scheduler.Commit(Answer(plan, {{kEos}}));
    return plan.admits.at(0);
  };
  EXPECT_TRUE(admitted(1, 3).plain_rope);
  AdmitSequence longer = admitted(2, 4);
  EXPECT_FALSE(longer.plain_rope);
  EXPECT_EQ(longer.first_position, 0u) << "the short one's keys are rotated otherwise";
  longer = admitted(3, 5);
  EXPECT_FALSE(longer.plain_rope);
  EXPECT_EQ(longer.first_position, 8u);
  const AdmitSequence shorter = admitted(4, 1);
  EXPECT_TRUE(shorter.plain_rope);
  EXPECT_EQ(shorter.first_position, 8u);
  ASSERT_TRUE(scheduler.Add(5, Score(prompt)).ok());
  EXPECT_TRUE(scheduler.Next()->admits.at(0).plain_rope);
}

TEST(SchedulerPrefix, LongPromptsShareOnlyWithPromptsOfTheirLengthWhereItCounts) {
  SchedulerOptions options = Options();
  options.unscaled_positions = 6;
  Scheduler scheduler(options);
  const auto begins_at = [&](RequestId id, std::vector<int32_t> prompt) {
    EXPECT_TRUE(scheduler.Add(id, Generate(std::move(prompt), 1)).ok());
    const StepPlan plan = *scheduler.Next();
    scheduler.Commit(Answer(plan, {{kEos}}));
    return plan.admits.at(0).first_position;
  };
  EXPECT_EQ(begins_at(1, {10, 11, 12, 13, 14, 15}), 0u);
  EXPECT_EQ(begins_at(2, {10, 11, 12, 13, 20}), 4u) << "short ones are alike";
  EXPECT_EQ(begins_at(3, {10, 11, 12, 13, 14, 15, 16}), 0u);
  EXPECT_EQ(begins_at(4, {10, 11, 12, 13, 14, 15, 17, 18}), 0u) << "another length";
  EXPECT_EQ(begins_at(5, {10, 11, 12, 13, 14, 15, 19}), 4u) << "the same length";
}

TEST(SchedulerPrefix, NothingIsFoundWhereItIsSwitchedOff) {
  SchedulerOptions options = Options();
  options.prefix_caching = false;
  Scheduler scheduler(options);
  for (RequestId id = 1; id <= 2; ++id) {
    ASSERT_TRUE(scheduler.Add(id, Generate({10, 11, 12, 13, 14}, 1)).ok());
    EXPECT_EQ(Step(scheduler), 5);
    EXPECT_EQ(scheduler.blocks().cached(), 0);
  }
  EXPECT_EQ(scheduler.counts().prefix_queried_tokens, 0u);
}

TEST(SchedulerPrefix, TheOldestAndTheEndsOfPrefixesAreEvictedFirst) {
  Scheduler scheduler(Options());
  for (const int32_t first : {10, 50}) {  // two prompts of 13 tokens, 3 whole blocks each
    std::vector<int32_t> prompt;
    for (int32_t i = 0; i < 12; ++i) {
      prompt.push_back(first + i);
    }
    ASSERT_TRUE(scheduler.Add(static_cast<RequestId>(first), Generate(prompt, 1)).ok());
    Step(scheduler);
  }
  EXPECT_EQ(scheduler.blocks().cached(), 6);
  ASSERT_TRUE(scheduler.Add(1, Generate({1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12}, 1)).ok());
  Step(scheduler);  // takes the two free ones and one of the cached
  ASSERT_TRUE(
      scheduler.Add(2, Generate({10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22}, 1)).ok());
  EXPECT_EQ(scheduler.Next()->admits[0].first_position, 8u) << "its third block is gone";
}

TEST(SchedulerPrefix, BlocksOfLogitsThatAreNotNumbersAreNotTrusted) {
  Scheduler scheduler(Options());
  const std::vector<int32_t> prompt = {10, 11, 12, 13, 14};
  ASSERT_TRUE(scheduler.Add(1, Generate(prompt, 1)).ok());
  Step(scheduler, -1);
  EXPECT_EQ(scheduler.blocks().cached(), 0);
  ASSERT_TRUE(scheduler.Add(2, Generate(prompt, 1)).ok());
  EXPECT_EQ(scheduler.Next()->admits[0].first_position, 0u);
}

TEST(SchedulerPrefix, AnotherEpochFindsNothing) {
  Scheduler scheduler(Options());
  ASSERT_TRUE(scheduler.Add(1, Generate({10, 11, 12, 13, 14}, 1)).ok());
  Step(scheduler);
  scheduler.Requeue(2);
  EXPECT_EQ(scheduler.blocks().cached(), 0);
  ASSERT_TRUE(scheduler.Add(2, Generate({10, 11, 12, 13, 14}, 1)).ok());
  EXPECT_EQ(scheduler.Next()->admits[0].first_position, 0u);
}

}  // namespace
}  // namespace cohort
