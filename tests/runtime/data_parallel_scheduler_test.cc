#include "runtime/data_parallel_scheduler.h"

#include <gtest/gtest.h>

#include <deque>
#include <functional>
#include <map>
#include <numeric>
#include <random>

#include "runtime/plan_parts.h"
#include "tests/runtime/paged_rank.h"
#include "tests/runtime/scheduler_fixture.h"

namespace cohort {
namespace {

// A prompt of `length` ids from `first` on.
std::vector<int32_t> Ids(int32_t first, size_t length) {
  std::vector<int32_t> ids(length);
  std::iota(ids.begin(), ids.end(), first);
  return ids;
}

// The group of each sequence of the plan, in its order.
std::vector<uint32_t> GroupsOf(const StepPlan& plan) {
  std::vector<uint32_t> groups;
  for (const SequenceRows& rows : plan.rows) {
    groups.push_back(rows.slot / static_cast<uint32_t>(SmallOptions().max_running));
  }
  return groups;
}

std::vector<int64_t> TokensComputed(const DataParallelScheduler& scheduler) {
  std::vector<int64_t> tokens;
  for (const SchedulerLoad& load : scheduler.loads()) {
    tokens.push_back(static_cast<int64_t>(load.counts.prompt_tokens_computed));
  }
  return tokens;
}

// Every sequence's sample is token 20.
std::vector<RequestUpdate> AnswerAll(DataParallelScheduler& scheduler, const StepPlan& plan) {
  std::vector<std::vector<int32_t>> tokens;
  for (const SequenceRows& rows : plan.rows) {
    if (rows.sample) {
      tokens.push_back({20});
    }
  }
  return scheduler.Commit(Answer(plan, tokens));
}

void RunUntilDone(DataParallelScheduler& scheduler) {
  while (const std::optional<StepPlan> plan = scheduler.Next()) {
    AnswerAll(scheduler, *plan);
  }
  EXPECT_TRUE(scheduler.unfinished().empty());
}

TEST(DataParallelScheduler, OneStepHasTheRowsOfAllGroupsWithSlotsOfTheirOwn) {
  DataParallelScheduler scheduler(SmallOptions(), 2);
  scheduler.SetEpoch(5);
  ASSERT_TRUE(scheduler.Add(1, Generate({10, 11}, 2)).ok());
  ASSERT_TRUE(scheduler.Add(2, Generate({12, 13, 14}, 2)).ok());

  StepPlan expected;
  expected.epoch = 5;
  expected.step = 1;
  expected.admits = {{.slot = 0, .prompt_tokens = 2, .sampling = {}},
                     {.slot = 4, .prompt_tokens = 3, .sampling = {}}};
  expected.rows = {Rows(0, 0, {{.id = 10}, {.id = 11}}, {0}, true),
                   Rows(4, 0, {{.id = 12}, {.id = 13}, {.id = 14}}, {0}, true)};
  const StepPlan first = *scheduler.Next();
  EXPECT_EQ(first, expected) << "both groups begin with their own block 0";
  const std::vector<RequestUpdate> updates = scheduler.Commit(Answer(first, {{20}, {30}}));
  ASSERT_EQ(updates.size(), 2u);
  EXPECT_EQ(updates[0].id, 1u);
  EXPECT_EQ(updates[0].tokens, (std::vector<int32_t>{20}));
  EXPECT_EQ(updates[1].id, 2u);
  EXPECT_EQ(updates[1].tokens, (std::vector<int32_t>{30}));
  EXPECT_EQ(scheduler.load().running, 2);
  EXPECT_EQ(scheduler.load().blocks_total, 16);
  RunUntilDone(scheduler);
  EXPECT_EQ(scheduler.load().blocks_used, 0);
}

TEST(DataParallelScheduler, StepsGoOnWhileAGroupIsIdle) {
  DataParallelScheduler scheduler(SmallOptions(), 2);
  ASSERT_TRUE(scheduler.Add(1, Generate({10}, 8)).ok());
  for (uint64_t step = 1; step <= 3; ++step) {
    const StepPlan plan = *scheduler.Next();
    EXPECT_EQ(plan.step, step);
    AnswerAll(scheduler, plan);
  }
  ASSERT_TRUE(scheduler.Add(2, Generate({11}, 8)).ok());
  const StepPlan fourth = *scheduler.Next();
  const StepPlan fifth = *scheduler.Next();
  EXPECT_EQ(GroupsOf(fourth), (std::vector<uint32_t>{0, 1}));
  EXPECT_EQ(fifth.rows[1].tokens[0].sampled_in_step, 4u) << "steps are those of all groups";
  AnswerAll(scheduler, fourth);
  AnswerAll(scheduler, fifth);
  RunUntilDone(scheduler);
}

TEST(DataParallelScheduler, ARequestGoesWhereTheFewestTokensAre) {
  DataParallelScheduler scheduler(SmallOptions(), 2);
  ASSERT_TRUE(scheduler.Add(1, Generate(Ids(10, 6), 2)).ok());
  ASSERT_TRUE(scheduler.Add(2, Generate(Ids(30, 2), 2)).ok());
  ASSERT_TRUE(scheduler.Add(3, Generate(Ids(40, 3), 2)).ok());
  EXPECT_EQ(scheduler.loads()[0].waiting, 1);
  EXPECT_EQ(scheduler.loads()[1].waiting, 2);
  Finish finish = CancelledFinish();
  EXPECT_TRUE(scheduler.Cancel(2, finish).has_value());
  EXPECT_TRUE(scheduler.Cancel(3, finish).has_value());
  EXPECT_FALSE(scheduler.Cancel(3, finish).has_value());
  ASSERT_TRUE(scheduler.Add(4, Generate(Ids(50, 3), 2)).ok());
  EXPECT_EQ(scheduler.loads()[1].waiting, 1) << "what is cancelled weighs nothing";
}

TEST(DataParallelScheduler, EqualGroupsTakeTurns) {
  DataParallelScheduler scheduler(SmallOptions(), 2);
  for (RequestId id = 1; id <= 4; ++id) {
    ASSERT_TRUE(scheduler.Add(id, Generate(Ids(static_cast<int32_t>(10 * id), 3), 1)).ok());
    RunUntilDone(scheduler);
  }
  EXPECT_EQ(TokensComputed(scheduler), (std::vector<int64_t>{6, 6}));
}

TEST(DataParallelScheduler, ACachedPrefixIsPreferredUntilItsGroupIsBusierByMore) {
  DataParallelScheduler scheduler(SmallOptions(), 2);
  const std::vector<int32_t> prefix = Ids(10, 8);  // two blocks
  const auto with_prefix = [&](int32_t last) {
    std::vector<int32_t> prompt = prefix;
    prompt.push_back(last);
    return Generate(prompt, 1);
  };
  ASSERT_TRUE(scheduler.Add(1, with_prefix(1)).ok());
  RunUntilDone(scheduler);
  ASSERT_EQ(TokensComputed(scheduler), (std::vector<int64_t>{9, 0}));

  ASSERT_TRUE(scheduler.Add(2, with_prefix(2)).ok());
  EXPECT_EQ(scheduler.loads()[0].waiting, 1) << "it was the other group's turn";
  ASSERT_TRUE(scheduler.Add(3, with_prefix(3)).ok());
  EXPECT_EQ(scheduler.loads()[1].waiting, 1) << "9 tokens wait there, the prefix saves 8";
  RunUntilDone(scheduler);
  EXPECT_EQ(scheduler.load().counts.prefix_hit_tokens, 8u);
  EXPECT_EQ(TokensComputed(scheduler), (std::vector<int64_t>{10, 9}));
}

TEST(DataParallelScheduler, AGroupIsNotPreferredForAPrefixThatTheRequestMayNotRead) {
  const std::function<void(Request&)> changes[] = {
      [](Request& request) { request.cache_salt = "salt"; },
      [](Request& request) { request.bypass_prefix_cache = true; },
      [](Request& request) { request.prompt_logprobs = 0; },
      [](Request& request) { request.score = true; },
  };
  for (const auto& change : changes) {
    DataParallelScheduler scheduler(SmallOptions(), 2);
    Request request = Generate(Ids(10, 9), 1);
    ASSERT_TRUE(scheduler.Add(1, request).ok());
    RunUntilDone(scheduler);
    change(request);
    ASSERT_TRUE(scheduler.Add(2, request).ok());
    EXPECT_EQ(scheduler.loads()[1].waiting, 1) << "the groups take turns";
  }
}

TEST(DataParallelScheduler, TheQueuesLimitsAreThoseOfAllGroupsTogether) {
  SchedulerOptions options = SmallOptions();
  options.max_waiting = 3;
  options.max_waiting_tokens = 10;
  DataParallelScheduler scheduler(options, 2);
  ASSERT_TRUE(scheduler.Add(1, Generate(Ids(10, 4), 1)).ok());
  ASSERT_TRUE(scheduler.Add(2, Generate(Ids(20, 4), 1)).ok());
  absl::Status status = scheduler.Add(3, Generate(Ids(30, 3), 1));
  EXPECT_EQ(
      status.message(),
      "the queue is full: 8 tokens are waiting, 3 more are over its limit of 10; retry later");
  ASSERT_TRUE(scheduler.Add(3, Generate(Ids(30, 2), 1)).ok());
  status = scheduler.Add(4, Generate({1}, 1));
  EXPECT_EQ(status.message(), "the queue is full: 3 requests are waiting; retry later");
  EXPECT_TRUE(absl::IsInvalidArgument(scheduler.Add(4, Generate({}, 1))))
      << "what can never run is refused as such";
}

TEST(DataParallelScheduler, ALostGroupsRequestsWaitAgainInTheirOrderOfArrival) {
  DataParallelScheduler scheduler(SmallOptions(), 3);
  scheduler.SetEpoch(1);
  for (RequestId id = 1; id <= 4; ++id) {
    ASSERT_TRUE(scheduler.Add(id, Generate(Ids(static_cast<int32_t>(10 * id), 2), 3)).ok());
  }
  AnswerAll(scheduler, *scheduler.Next());
  scheduler.Next();
  scheduler.Requeue(2);
  EXPECT_EQ(scheduler.in_flight(), 0);
  EXPECT_EQ(scheduler.unfinished(), (std::vector<RequestId>{1, 2, 3, 4}));
  const StepPlan plan = *scheduler.Next();
  EXPECT_EQ(plan.epoch, 2u);
  EXPECT_EQ(plan.step, 1u);
  EXPECT_EQ(plan.tokens(), 12) << "three known tokens each";
  AnswerAll(scheduler, plan);
  RunUntilDone(scheduler);
}

Request RandomRequest(std::mt19937_64& random) {
  Request request = Generate(Ids(static_cast<int32_t>(random() % 3), 1 + random() % 12),
                             1 + static_cast<int64_t>(random() % 9));
  request.sampling.seed = random() % 4;
  request.score = random() % 6 == 0;
  request.priority = static_cast<int32_t>(random() % 2);
  return request;
}

// Every group's rank executes its part of every plan; what is delivered is what the model says.
void RunAtRandom(uint64_t seed, int groups) {
  std::mt19937_64 random(seed);
  SchedulerOptions options = SmallOptions();
  options.blocks = 10;
  options.max_waiting = 20;
  const HashModel model{.vocabulary = 30};
  DataParallelScheduler scheduler(options, groups);
  scheduler.SetEpoch(1);
  std::vector<PagedRank> ranks(static_cast<size_t>(groups), PagedRank(model, options, 1));
  std::map<RequestId, Request> requests;
  std::map<RequestId, std::vector<int32_t>> tokens;
  std::deque<StepResult> results;
  size_t finished = 0;
  const auto plan = [&] {
    const std::optional<StepPlan> whole = scheduler.Next();
    if (!whole.has_value()) return false;
    StepResult joined{.epoch = whole->epoch, .step = whole->step, .digest = 0, .sequences = {}};
    for (int group = 0; group < groups; ++group) {
      auto part = PartOf(*whole, group, groups, options.max_running);
      EXPECT_TRUE(part.ok()) << part.status();
      auto result = ranks[static_cast<size_t>(group)].Run(*part);
      EXPECT_TRUE(result.ok()) << result.status();
      for (SequenceResult& sequence : result->sequences) {
        sequence.slot += static_cast<uint32_t>(group * options.max_running);
        joined.sequences.push_back(std::move(sequence));
      }
    }
    results.push_back(std::move(joined));
    return true;
  };
  for (int step = 0; step < 400 || finished < requests.size() || !results.empty(); ++step) {
    ASSERT_LT(step, 10'000) << "no progress";
    if (step < 400 && random() % 3 == 0) {
      const Request request = RandomRequest(random);
      const RequestId id = requests.size() + 1;
      if (scheduler.Add(id, request).ok()) requests[id] = request;
    }
    if (results.size() < 2 && plan() && random() % 2 == 0) continue;
    if (results.empty()) continue;
    for (const RequestUpdate& update : scheduler.Commit(std::move(results.front()))) {
      std::vector<int32_t>& own = tokens[update.id];
      own.insert(own.end(), update.tokens.begin(), update.tokens.end());
      if (!update.finish.has_value()) continue;
      ++finished;
      ASSERT_EQ(own, Expect(model, requests.at(update.id), options.eos_token_ids).tokens);
    }
    results.pop_front();
  }
  EXPECT_GT(requests.size(), 50u);
  EXPECT_TRUE(scheduler.unfinished().empty());
  EXPECT_EQ(scheduler.load().blocks_used, 0);
  for (const SchedulerLoad& load : scheduler.loads()) {
    EXPECT_GT(load.counts.prompt_tokens_computed, 0u);
  }
}

TEST(DataParallelScheduler, RandomRequestsGetTheTokensOfTheirOwnModelInWhateverGroup) {
  for (uint64_t seed = 0; seed < 30; ++seed) {
    SCOPED_TRACE(absl::StrCat("seed ", seed));
    RunAtRandom(seed, 1 + static_cast<int>(seed % 4));
  }
}

TEST(DataParallelScheduler, OfOneGroupThePlansAreThoseOfItsScheduler) {
  std::mt19937_64 random(7);
  Scheduler plain(SmallOptions());
  DataParallelScheduler front(SmallOptions(), 1);
  for (RequestId id = 1; id < 200; ++id) {
    const Request request = RandomRequest(random);
    ASSERT_EQ(plain.Add(id, request), front.Add(id, request));
    const std::optional<StepPlan> plan = plain.Next();
    ASSERT_EQ(plan, front.Next());
    StepResult result;
    result.step = plan->step;
    for (const SequenceRows& rows : plan->rows) {
      if (rows.sample) result.sequences.push_back({.slot = rows.slot, .tokens = {20}});
      if (!rows.score_targets.empty()) {
        result.sequences.push_back(
            {.slot = rows.slot, .logprobs = std::vector<float>(rows.tokens.size())});
      }
    }
    ASSERT_EQ(plain.Commit(result).size(), front.Commit(result).size());
  }
}

}  // namespace
}  // namespace cohort
