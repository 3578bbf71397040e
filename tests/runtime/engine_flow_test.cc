// How tokens flow from the engine to those who read them: readers that are slow, sinks that have
// enough, prefixes that are there already, log-probabilities.
#include <gtest/gtest.h>

#include <random>
#include <thread>

#include "absl/time/clock.h"
#include "tests/runtime/engine_fixture.h"

namespace cohort {
namespace {

using EngineFlowTest = EngineTest;

// Says stop once it has `enough` tokens; keeps the log-probabilities.
class StoppingSink : public RecordingSink {
 public:
  explicit StoppingSink(size_t enough) : enough_(enough) {}
  SinkAnswer OnTokens(const GeneratedTokens& generated) override {
    RecordingSink::OnTokens(generated);
    logprobs.insert(logprobs.end(), generated.logprobs.begin(), generated.logprobs.end());
    top.insert(top.end(), generated.top.begin(), generated.top.end());
    return tokens().size() >= enough_ ? SinkAnswer::kStop : SinkAnswer::kContinue;
  }

  std::vector<float> logprobs;  // read after the finish
  std::vector<TokenLogprob> top;

 private:
  const size_t enough_;
};

Request LongPrompt(int32_t first, int64_t prompt_tokens, int64_t max_tokens) {
  Request request;
  for (int32_t i = 0; i < prompt_tokens; ++i) {
    request.prompt.push_back((first + i) % 40);
  }
  request.stopping.max_tokens = max_tokens;
  request.stopping.ignore_eos = true;
  return request;
}

TEST_F(EngineFlowTest, APausedRequestStandsStillWhileOthersGoOn) {
  group.gate->HoldBefore(2);
  Start();
  const Submitted slow = Submit(Endless(5, 50));
  group.gate->WaitUntilHeld();
  engine->Pause(slow.id);
  group.gate->Open();
  const Submitted quick = Submit(Endless(6, 50));
  ExpectOutcome(Endless(6, 50), *quick.sink);
  EXPECT_LE(slow.sink->tokens().size(), 3u) << "what was in flight comes, nothing more";
  engine->Resume(slow.id);
  ExpectOutcome(Endless(5, 50), *slow.sink);
}

TEST_F(EngineFlowTest, PausedRequestsAreCancelledAndPassTheirDeadlines) {
  Start();
  Request late = Endless(6, 100);
  late.deadline = absl::Now() + absl::Milliseconds(100);
  group.gate->HoldBefore(1);
  const Submitted cancelled = Submit(Endless(5, 100));
  const Submitted expired = Submit(late);
  engine->Pause(cancelled.id);
  engine->Pause(expired.id);
  group.gate->Open();
  EXPECT_EQ(expired.sink->WaitForFinish().reason, FinishReason::kDeadline);
  engine->Cancel(cancelled.id);
  EXPECT_EQ(cancelled.sink->WaitForFinish().reason, FinishReason::kCancelled);
  engine->Pause(cancelled.id);
  engine->Resume(12345);
  ExpectOutcome(Endless(7, 3), *Submit(Endless(7, 3)).sink);
  EXPECT_EQ(engine->load().kv_blocks_used, 0);
}

TEST_F(EngineFlowTest, APausedRequestGivesWayToThoseWhoWait) {
  group.scheduler.max_running = 1;
  Start();
  const Request slow_request = LongPrompt(5, 9, 20);
  const Submitted slow = Submit(slow_request);
  slow.sink->WaitForTokens(1);
  engine->Pause(slow.id);
  ExpectOutcome(Endless(6, 20), *Submit(Endless(6, 20)).sink);
  EngineLoad load = engine->load();
  EXPECT_EQ(load.preemptions, 1u);
  EXPECT_EQ(load.paused, 1);
  EXPECT_EQ(load.waiting, 1);
  engine->Resume(slow.id);
  ExpectOutcome(slow_request, *slow.sink);
  EXPECT_EQ(slow.sink->WaitForFinish().cached_tokens, 0) << "its own blocks do not count";
  load = engine->load();
  EXPECT_EQ(load.paused, 0);
  EXPECT_LT(load.prompt_tokens, 9u + 3u + 9u) << "its blocks were found again";
}

TEST_F(EngineFlowTest, ASinkThatHasEnoughEndsItsRequest) {
  Start();
  const Request request = Endless(5, 100);
  const auto sink = std::make_shared<StoppingSink>(3);
  ASSERT_TRUE(engine->Submit(request, sink).ok());
  const Finish finish = sink->WaitForFinish();
  EXPECT_EQ(finish.reason, FinishReason::kStop);
  EXPECT_TRUE(finish.status.ok()) << finish.status;
  EXPECT_EQ(finish.completion_tokens, 3);
  std::vector<int32_t> expected = Expect(group.model, request, {}).tokens;
  expected.resize(3);
  EXPECT_EQ(sink->tokens(), expected);
  Submit(Endless(6, 1)).sink->WaitForFinish();
  EXPECT_LE(engine->load().steps, 3u + 1u + 1u) << "one row is computed in vain, no more";
  EXPECT_EQ(engine->load().kv_blocks_used, 0);
}

TEST_F(EngineFlowTest, EnoughWithTheLastTokenIsAStopToo) {
  Start();
  const auto sink = std::make_shared<StoppingSink>(3);
  ASSERT_TRUE(engine->Submit(Endless(5, 3), sink).ok());
  EXPECT_EQ(sink->WaitForFinish().reason, FinishReason::kStop);
  EXPECT_EQ(sink->WaitForFinish().completion_tokens, 3);
}

TEST_F(EngineFlowTest, EnoughIsEnoughThoughTheGroupIsLostMeanwhile) {
  // The sink loses the group while it answers: its own finish is on the way then.
  class LosingSink : public StoppingSink {
   public:
    explicit LosingSink(std::function<void()> lose) : StoppingSink(1), lose_(std::move(lose)) {}
    SinkAnswer OnTokens(const GeneratedTokens& generated) override {
      std::thread(lose_).join();
      return StoppingSink::OnTokens(generated);
    }

   private:
    std::function<void()> lose_;
  };
  Start();
  const auto sink = std::make_shared<LosingSink>(
      [this] { engine->GroupLost(1, absl::UnavailableError("a drill")); });
  ASSERT_TRUE(engine->Submit(Endless(5, 100), sink).ok());
  const Finish finish = sink->WaitForFinish();
  EXPECT_EQ(finish.reason, FinishReason::kStop);
  EXPECT_TRUE(finish.status.ok()) << finish.status;
  EXPECT_EQ(finish.completion_tokens, 1);
}

TEST_F(EngineFlowTest, APrefixIsFoundByTheNextRequestAndByTheNextTurn) {
  Start();
  const Request first = LongPrompt(5, 13, 8);
  const Submitted one = Submit(first);
  ExpectOutcome(first, *one.sink);
  EXPECT_EQ(one.sink->WaitForFinish().cached_tokens, 0);

  const Submitted two = Submit(first);
  ExpectOutcome(first, *two.sink);
  EXPECT_EQ(two.sink->WaitForFinish().cached_tokens, 12);

  Request turn = first;  // prompt, answer and a question: 13 + 8 + 2 tokens, 20 of them computed
  const std::vector<int32_t> answer = one.sink->tokens();
  turn.prompt.insert(turn.prompt.end(), answer.begin(), answer.end());
  turn.prompt.insert(turn.prompt.end(), {1, 2});
  const Submitted three = Submit(turn);
  ExpectOutcome(turn, *three.sink);
  EXPECT_EQ(three.sink->WaitForFinish().cached_tokens, 20);

  turn.bypass_prefix_cache = true;
  const Submitted four = Submit(turn);
  ExpectOutcome(turn, *four.sink);
  EXPECT_EQ(four.sink->WaitForFinish().cached_tokens, 0);
  const EngineLoad load = engine->load();
  EXPECT_EQ(load.prefix_queried_tokens, 13u + 13u + 23u);
  EXPECT_EQ(load.prefix_hit_tokens, 12u + 20u);
  EXPECT_EQ(load.kv_blocks_used, 0);
  EXPECT_GT(load.kv_blocks_cached, 0);
}

TEST_F(EngineFlowTest, LogProbabilitiesComeWithTokensAndPrompts) {
  Start();
  Request request = LongPrompt(5, 9, 6);
  request.sampling.logprobs = 2;
  request.prompt_logprobs = 1;
  const ExpectedOutcome expected = Expect(group.model, request, {});
  const auto sink = std::make_shared<StoppingSink>(1000);
  ASSERT_TRUE(engine->Submit(request, sink).ok());
  const Finish finish = sink->WaitForFinish();
  EXPECT_EQ(sink->tokens(), expected.tokens);
  EXPECT_EQ(sink->logprobs, expected.logprobs);
  EXPECT_EQ(sink->top, expected.top);
  EXPECT_EQ(finish.prompt_logprobs, expected.prompt_logprobs);
  EXPECT_EQ(finish.prompt_top, expected.prompt_top);
}

TEST_F(EngineFlowTest, TooFewBlocksForAllMakeSomeWaitAgainAndChangeNothing) {
  group.scheduler.blocks = 16;
  Start();
  std::vector<std::pair<Request, std::shared_ptr<RecordingSink>>> submitted;
  for (int32_t i = 0; i < 12; ++i) {
    Request request = LongPrompt(i % 3, 5 + i, 30);
    request.priority = i % 2;
    submitted.emplace_back(request, Submit(request).sink);
  }
  for (const auto& [request, sink] : submitted) {
    ExpectOutcome(request, *sink);
  }
  EXPECT_GT(engine->load().preemptions, 0u);
  EXPECT_EQ(engine->load().kv_blocks_used, 0);
}

// Readers of all kinds at once; every request ends as it must.
TEST_F(EngineFlowTest, ManyStreamsThatStopPauseLeaveAndExpire) {
  group.scheduler.blocks = 40;
  group.scheduler.max_running = 8;
  Start();
  std::vector<std::thread> clients;
  for (uint64_t client = 0; client < 4; ++client) {
    clients.emplace_back([this, client] {
      std::mt19937_64 random(client);
      for (int i = 0; i < 40; ++i) {
        Request request =
            LongPrompt(static_cast<int32_t>(random() % 3), 1 + static_cast<int64_t>(random() % 20),
                       1 + static_cast<int64_t>(random() % 40));
        request.priority = static_cast<int32_t>(random() % 3);
        if (random() % 8 == 0) {
          request.deadline = absl::Now() + absl::Microseconds(random() % 3000);
        }
        const size_t enough = 1 + random() % 60;
        const auto sink = std::make_shared<StoppingSink>(enough);
        const auto id = engine->Submit(request, sink);
        ASSERT_TRUE(id.ok()) << id.status();
        if (random() % 2 == 0) {
          engine->Pause(*id);
        }
        if (random() % 8 == 0) {
          engine->Cancel(*id);
        }
        engine->Resume(*id);
        const Finish finish = sink->WaitForFinish();
        std::vector<int32_t> expected = Expect(group.model, request, {}).tokens;
        const std::vector<int32_t> tokens = sink->tokens();
        ASSERT_LE(tokens.size(), std::min(expected.size(), enough));
        if (finish.status.ok()) {
          ASSERT_EQ(tokens.size(), std::min(expected.size(), enough));
        }
        expected.resize(tokens.size());
        ASSERT_EQ(tokens, expected);
        ASSERT_EQ(finish.completion_tokens, static_cast<int64_t>(tokens.size()));
      }
    });
  }
  for (std::thread& client : clients) {
    client.join();
  }
  Submit(Endless(5, 1)).sink->WaitForFinish();
  const EngineLoad load = engine->load();
  EXPECT_EQ(load.running + load.waiting + load.paused, 0);
  EXPECT_EQ(load.kv_blocks_used, 0);
  EXPECT_EQ(failures.count(), 0u);
}

}  // namespace
}  // namespace cohort
