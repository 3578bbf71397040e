// What the engine does when the group of ranks fails it.
#include <gtest/gtest.h>

#include <atomic>
#include <random>
#include <thread>

#include "absl/time/clock.h"
#include "tests/runtime/engine_fixture.h"

namespace cohort {
namespace {

using EngineFailureTest = EngineTest;

TEST_F(EngineFailureTest, GroupLostEndsEveryRequestAndTheNextGroupServes) {
  group.scheduler.max_running = 1;
  group.gate->HoldBefore(2);
  Start(4);
  const Submitted running = Submit(Endless(5, 3));
  const Submitted waiting = Submit(Endless(6, 3));
  group.gate->WaitUntilHeld();
  running.sink->WaitForTokens(1);
  engine->GroupLost(3, absl::UnavailableError("an old epoch"));
  EXPECT_TRUE(engine->load().serving);
  engine->GroupLost(4, absl::UnavailableError("rank 1 was killed"));
  ExpectUnavailable(running.sink->WaitForFinish(), "rank 1 was killed");
  ExpectUnavailable(waiting.sink->WaitForFinish(), "rank 1 was killed");
  EXPECT_EQ(running.sink->tokens().size(), 1u);
  EngineLoad load = engine->load();
  EXPECT_FALSE(load.serving);
  EXPECT_EQ(load.kv_blocks_used, 0);
  EXPECT_EQ(engine->Submit(Endless(5, 1), std::make_shared<RecordingSink>()).status().code(),
            absl::StatusCode::kUnavailable);

  group.gate->Open();
  engine->GroupReady(MakeHashGroup(5, group));
  load = engine->load();
  EXPECT_TRUE(load.serving);
  EXPECT_EQ(load.epoch, 5u);
  ExpectOutcome(Endless(6, 3), *Submit(Endless(6, 3)).sink);
  EXPECT_EQ(failures.count(), 0u) << "the one who says so knows already";
}

TEST_F(EngineFailureTest, APausedRequestIsLostWithItsGroupAndNothingIsFoundInTheNext) {
  group.gate->HoldBefore(5);  // it is paused before it ends, however late
  Start(1);
  Request request = Endless(5, 50);
  request.prompt = {5, 1, 2, 3, 4, 5, 6, 7, 8};
  const Submitted paused = Submit(request);
  paused.sink->WaitForTokens(1);
  engine->Pause(paused.id);
  engine->GroupLost(1, absl::UnavailableError("rank 0 was killed"));
  ExpectUnavailable(paused.sink->WaitForFinish(), "rank 0 was killed");
  EXPECT_EQ(engine->load().paused, 0);
  EXPECT_EQ(engine->load().kv_blocks_cached, 0);
  HashGroupOptions next = group;
  next.gate = std::make_shared<StepGate>();
  engine->GroupReady(MakeHashGroup(2, next));
  const Submitted again = Submit(request);
  ExpectOutcome(request, *again.sink);
  EXPECT_EQ(again.sink->WaitForFinish().cached_tokens, 0) << "other ranks, other memory";
}

TEST_F(EngineFailureTest, AGroupThatIsReplacedLosesItsRequests) {
  group.gate->HoldBefore(1);
  Start(1);
  const Submitted request = Submit(Endless(5, 3));
  group.gate->WaitUntilHeld();
  HashGroupOptions next = group;
  next.gate = std::make_shared<StepGate>();
  engine->GroupReady(MakeHashGroup(2, next));
  ExpectUnavailable(request.sink->WaitForFinish(), "replaced by that of epoch 2");
  ExpectOutcome(Endless(6, 3), *Submit(Endless(6, 3)).sink);
}

TEST_F(EngineFailureTest, ARankThatFailsAStepEndsTheGroupAndIsNamed) {
  group.fails_at_step = 3;
  Start(8);
  const Submitted request = Submit(Endless(5, 50));
  const auto [epoch, text] = failures.WaitForOne();
  EXPECT_EQ(epoch, 8u);
  EXPECT_EQ(text, "INTERNAL: step 3 of epoch 8: rank 1: out of numbers");
  ExpectUnavailable(request.sink->WaitForFinish(),
                    "the group of epoch 8 failed: step 3 of epoch 8: rank 1: out of numbers");
  EXPECT_EQ(request.sink->tokens().size(), 2u);
  EXPECT_FALSE(engine->load().serving);
  group.fails_at_step = 0;
  engine->GroupReady(MakeHashGroup(9, group));
  ExpectOutcome(Endless(5, 50), *Submit(Endless(5, 50)).sink);
  EXPECT_EQ(failures.count(), 1u);
}

TEST_F(EngineFailureTest, DifferentDigestsEndTheGroupAndNameTheRanks) {
  group.ranks = 3;
  group.diverges_at_step = 2;
  Start();
  const Submitted request = Submit(Endless(5, 50));
  const std::string text = failures.WaitForOne().second;
  EXPECT_NE(text.find("step 2 of epoch 1: the ranks' results differ: rank 0 has 0x"),
            std::string::npos)
      << text;
  EXPECT_NE(text.find("rank 2 has 0x"), std::string::npos) << text;
  ExpectUnavailable(request.sink->WaitForFinish(), "differ");
}

TEST_F(EngineFailureTest, ARankThatDoesNotAnswerInTimeEndsTheGroup) {
  group.is_silent_at_step = 2;
  group.step_timeout = absl::Milliseconds(500);
  Start();
  const Submitted request = Submit(Endless(5, 50));
  const std::string text = failures.WaitForOne().second;
  EXPECT_EQ(text, "DEADLINE_EXCEEDED: step 2 of epoch 1: rank 1: no result of the step in time");
  ExpectUnavailable(request.sink->WaitForFinish(), "rank 1");
}

TEST_F(EngineFailureTest, TheFailureCallbackMayAlreadyBringTheNextGroup) {
  group.fails_at_step = 1;
  HashGroupOptions next = group;
  next.fails_at_step = 0;
  std::atomic<uint64_t> epoch{1};
  engine = std::make_unique<Engine>(group.scheduler, [&](uint64_t lost, absl::Status) {
    engine->GroupLost(lost, absl::UnavailableError("known"));
    engine->GroupReady(MakeHashGroup(++epoch, next));
  });
  engine->GroupReady(MakeHashGroup(1, group));
  ExpectUnavailable(Submit(Endless(5, 3)).sink->WaitForFinish(), "out of numbers");
  const auto sink = std::make_shared<RecordingSink>();
  while (!engine->Submit(Endless(6, 3), sink).ok()) {
    std::this_thread::yield();  // the callback is about to bring it
  }
  ExpectOutcome(Endless(6, 3), *sink);
}

// Groups come and go while clients submit and cancel: every accepted request ends exactly once, and
// those that end well have the right tokens.
TEST_F(EngineFailureTest, RequestsEndExactlyOnceWhileGroupsComeAndGo) {
  Start(1);
  std::atomic<bool> stop{false};
  std::vector<std::thread> clients;
  for (uint64_t client = 0; client < 3; ++client) {
    clients.emplace_back([&, client] {
      std::mt19937_64 random(client);
      for (int i = 0; !stop; ++i) {
        const Request request =
            Endless(static_cast<int32_t>(i % 40), 1 + static_cast<int64_t>(random() % 20));
        const auto sink = std::make_shared<RecordingSink>();
        const auto id = engine->Submit(request, sink);
        if (!id.ok()) {
          EXPECT_EQ(id.status().code(), absl::StatusCode::kUnavailable);
          std::this_thread::yield();
          continue;
        }
        if (random() % 4 == 0) {
          engine->Cancel(*id);
        }
        if (random() % 4 == 0) {
          engine->Pause(*id);
          engine->Resume(*id);
        }
        const Finish finish = sink->WaitForFinish();
        if (finish.reason == FinishReason::kLength) {
          ExpectOutcome(request, *sink);
        }
      }
    });
  }
  for (uint64_t epoch = 1; epoch <= 40; ++epoch) {
    const uint64_t finished = engine->load().requests_finished;
    while (engine->load().requests_finished < finished + 5) {
      std::this_thread::yield();
    }
    if (epoch % 2 == 0) {
      engine->GroupLost(epoch, absl::UnavailableError("a rank was lost"));
    }
    engine->GroupReady(MakeHashGroup(epoch + 1, group));
  }
  stop = true;
  for (std::thread& client : clients) {
    client.join();
  }
  EXPECT_TRUE(engine->Drain(absl::Now() + absl::Seconds(60)));
  EXPECT_EQ(engine->load().kv_blocks_used, 0);
}

}  // namespace
}  // namespace cohort
