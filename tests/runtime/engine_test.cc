#include "runtime/engine.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <thread>

#include "absl/time/clock.h"
#include "tests/runtime/engine_fixture.h"

namespace cohort {
namespace {

Request RandomRequest(std::mt19937_64& random) {
  Request request;
  for (uint64_t i = 1 + random() % 20; i > 0; --i) {
    request.prompt.push_back(static_cast<int32_t>(random() % 40));
  }
  request.sampling.seed = random();
  request.stopping.max_tokens = 1 + static_cast<int64_t>(random() % 30);
  request.score = random() % 6 == 0;
  return request;
}

TEST_F(EngineTest, ManyConcurrentRequestsEachGetTheirOwnTokens) {
  Start();
  constexpr int kThreads = 4;
  constexpr int kRequestsPerThread = 50;
  std::vector<std::thread> threads;
  for (int thread = 0; thread < kThreads; ++thread) {
    threads.emplace_back([this, thread] {
      std::mt19937_64 random(static_cast<uint64_t>(thread));
      std::vector<std::pair<Request, std::shared_ptr<RecordingSink>>> submitted;
      for (int i = 0; i < kRequestsPerThread; ++i) {
        const Request request = RandomRequest(random);
        submitted.emplace_back(request, Submit(request).sink);
      }
      for (const auto& [request, sink] : submitted) {
        ExpectOutcome(request, *sink);
      }
    });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
  const EngineLoad load = engine->load();
  EXPECT_EQ(load.requests_finished, static_cast<uint64_t>(kThreads * kRequestsPerThread));
  EXPECT_EQ(load.running, 0);
  EXPECT_EQ(load.waiting, 0);
  EXPECT_EQ(load.kv_blocks_used, 0);
  EXPECT_EQ(failures.count(), 0u);
}

TEST_F(EngineTest, LoadTellsWhatIsThere) {
  engine = std::make_unique<Engine>(group.scheduler, failures.Callback());
  EngineLoad load = engine->load();
  EXPECT_FALSE(load.serving);
  EXPECT_EQ(load.epoch, 0u);
  EXPECT_EQ(load.kv_blocks_total, 64);
  EXPECT_EQ(load.block_size, 4);

  group.scheduler.max_running = 1;
  engine = std::make_unique<Engine>(group.scheduler, failures.Callback());
  group.gate->HoldBefore(2);
  engine->GroupReady(MakeHashGroup(7, group));
  const Submitted first = Submit(Endless(5, 2));
  const Submitted second = Submit(Endless(6, 1));
  group.gate->WaitUntilHeld();
  first.sink->WaitForTokens(1);
  load = engine->load();
  EXPECT_TRUE(load.serving);
  EXPECT_EQ(load.epoch, 7u);
  EXPECT_EQ(load.running, 1);
  EXPECT_EQ(load.waiting, 1);
  EXPECT_EQ(load.kv_blocks_used, 1);
  EXPECT_EQ(load.steps, 1u);
  EXPECT_EQ(load.prompt_tokens, 3u);
  EXPECT_EQ(load.generated_tokens, 1u);
  EXPECT_GT(load.last_step_milliseconds, 0);
  group.gate->Open();
  second.sink->WaitForFinish();
  load = engine->load();
  EXPECT_EQ(load.requests_finished, 2u);
  EXPECT_EQ(load.prompt_tokens, 6u);
  EXPECT_EQ(load.generated_tokens, 3u);
  EXPECT_EQ(load.steps, 3u);
}

TEST_F(EngineTest, TimesOfARequestAreInOrder) {
  Start();
  const absl::Time before = absl::Now();
  const Finish finish = Submit(Endless(5, 4)).sink->WaitForFinish();
  EXPECT_LE(before, finish.timing.submitted);
  EXPECT_LE(finish.timing.submitted, finish.timing.scheduled);
  EXPECT_LE(finish.timing.scheduled, finish.timing.first_token);
  EXPECT_LE(finish.timing.first_token, finish.timing.finished);
  EXPECT_LE(finish.timing.finished, absl::Now());
}

TEST_F(EngineTest, SubmitRefusesWhatCannotRunAndNeverCallsTheSink) {
  engine = std::make_unique<Engine>(group.scheduler, failures.Callback());
  const auto sink = std::make_shared<RecordingSink>();
  EXPECT_EQ(engine->Submit(Endless(5, 1), sink).status().code(), absl::StatusCode::kUnavailable);
  engine->GroupReady(MakeHashGroup(1, group));
  Request bad = Endless(5, 1);
  bad.sampling.top_p = 2;
  EXPECT_NE(engine->Submit(bad, sink).status().message().find("sampling.top_p"), StringView::npos);
  bad = Endless(5, 1000);
  EXPECT_EQ(engine->Submit(bad, sink).status().code(), absl::StatusCode::kInvalidArgument);
  engine.reset();
  EXPECT_FALSE(sink->finished());
}

TEST_F(EngineTest, AFullQueueIsExhausted) {
  group.scheduler.max_running = 1;
  group.scheduler.max_waiting = 1;
  group.gate->HoldBefore(1);
  Start();
  Submit(Endless(5, 1));
  group.gate->WaitUntilHeld();  // the first one runs
  Submit(Endless(6, 1));
  EXPECT_EQ(engine->Submit(Endless(7, 1), std::make_shared<RecordingSink>()).status().code(),
            absl::StatusCode::kResourceExhausted);
}

TEST_F(EngineTest, CancelEndsAWaitingRequest) {
  group.scheduler.max_running = 1;
  group.gate->HoldBefore(2);
  Start();
  const Submitted running = Submit(Endless(5, 3));
  const Submitted waiting = Submit(Endless(6, 3));
  group.gate->WaitUntilHeld();
  engine->Cancel(waiting.id);
  EXPECT_EQ(engine->load().waiting, 0);
  group.gate->Open();
  const Finish finish = waiting.sink->WaitForFinish();
  EXPECT_EQ(finish.reason, FinishReason::kCancelled);
  EXPECT_EQ(finish.status.code(), absl::StatusCode::kCancelled);
  EXPECT_EQ(finish.completion_tokens, 0);
  EXPECT_EQ(finish.timing.scheduled, absl::InfinitePast());
  ExpectOutcome(Endless(5, 3), *running.sink);
}

TEST_F(EngineTest, CancelOfARunningRequestFreesItsBlocksWithTheStepInFlight) {
  group.gate->HoldBefore(2);
  Start();
  const Submitted victim = Submit(Endless(5, 100));
  group.gate->WaitUntilHeld();
  victim.sink->WaitForTokens(1);
  engine->Cancel(victim.id);
  engine->Cancel(victim.id);
  EXPECT_EQ(engine->load().running, 0);
  EXPECT_GT(engine->load().kv_blocks_used, 0) << "the step in flight names them";
  group.gate->Open();
  const Finish finish = victim.sink->WaitForFinish();
  EXPECT_EQ(finish.reason, FinishReason::kCancelled);
  EXPECT_EQ(finish.completion_tokens, 1);
  // The next request's finish comes after the commit of the step that was in flight.
  Submit(Endless(6, 1)).sink->WaitForFinish();
  EXPECT_EQ(engine->load().kv_blocks_used, 0);
}

TEST_F(EngineTest, CancelOfAnUnknownOrFinishedRequestIsIgnored) {
  Start();
  const Submitted done = Submit(Endless(5, 2));
  done.sink->WaitForFinish();
  engine->Cancel(done.id);
  engine->Cancel(12345);
  ExpectOutcome(Endless(6, 2), *Submit(Endless(6, 2)).sink);
}

TEST_F(EngineTest, ADeadlineEndsARunningAndAWaitingRequest) {
  group.scheduler.max_running = 1;
  group.scheduler.blocks = 1 << 16;
  group.scheduler.max_model_len = 1 << 18;
  Start();
  Request running = Endless(5, 1 << 17);
  running.deadline = absl::Now() + absl::Milliseconds(200);
  Request waiting = Endless(6, 5);
  waiting.deadline = running.deadline;
  const Submitted first = Submit(running);
  const Submitted second = Submit(waiting);
  for (const Submitted* request : {&first, &second}) {
    const Finish finish = request->sink->WaitForFinish();
    EXPECT_EQ(finish.reason, FinishReason::kDeadline);
    EXPECT_EQ(finish.status.code(), absl::StatusCode::kDeadlineExceeded);
    EXPECT_LE(running.deadline, finish.timing.finished);
  }
  EXPECT_FALSE(first.sink->tokens().empty());
  EXPECT_TRUE(second.sink->tokens().empty());
}

TEST_F(EngineTest, ADeadlineInThePastEndsBeforeTheFirstStep) {
  Start();
  Request late = Endless(5, 5);
  late.deadline = absl::Now() - absl::Seconds(1);
  const Submitted request = Submit(late);
  EXPECT_EQ(request.sink->WaitForFinish().reason, FinishReason::kDeadline);
  EXPECT_TRUE(request.sink->tokens().empty());
}

TEST_F(EngineTest, LogitsThatAreNotNumbersEndOnlyTheirRequest) {
  group.model.nan_one_in = 8;
  Start();
  std::mt19937_64 random(11);
  std::vector<std::pair<Request, Submitted>> all;
  for (int i = 0; i < 30; ++i) {
    const Request request = RandomRequest(random);
    all.emplace_back(request, Submit(request));
  }
  int errors = 0;
  for (const auto& [request, submitted] : all) {
    ExpectOutcome(request, *submitted.sink);
    const Finish finish = submitted.sink->WaitForFinish();
    if (finish.reason == FinishReason::kError) {
      ++errors;
      EXPECT_EQ(finish.status.code(), absl::StatusCode::kInternal);
    }
  }
  EXPECT_GT(errors, 0);
  EXPECT_EQ(failures.count(), 0u);
}

TEST_F(EngineTest, DrainTakesNoNewRequestsAndWaitsForTheOthers) {
  group.gate->HoldBefore(2);
  Start();
  const Submitted request = Submit(Endless(5, 3));
  group.gate->WaitUntilHeld();
  EXPECT_FALSE(engine->load().draining);
  std::thread opener([&] {
    while (!engine->load().draining) {
      std::this_thread::yield();
    }
    EXPECT_EQ(engine->Submit(Endless(6, 1), std::make_shared<RecordingSink>()).status().code(),
              absl::StatusCode::kUnavailable);
    group.gate->Open();
  });
  EXPECT_TRUE(engine->Drain(absl::InfiniteFuture()));
  opener.join();
  EXPECT_TRUE(request.sink->finished());
  ExpectOutcome(Endless(5, 3), *request.sink);
}

TEST_F(EngineTest, DrainEndsWhatIsLeftAtTheDeadline) {
  group.gate->HoldBefore(2);
  Start();
  const Submitted request = Submit(Endless(5, 3));
  group.gate->WaitUntilHeld();
  EXPECT_FALSE(engine->Drain(absl::Now() + absl::Milliseconds(20)));
  group.gate->Open();
  ExpectUnavailable(request.sink->WaitForFinish(), "shutting down");
  EXPECT_TRUE(engine->Drain(absl::Now() + absl::Seconds(60)));
}

TEST_F(EngineTest, AnIdleEngineDrainsAtOnce) {
  Start();
  EXPECT_TRUE(engine->Drain(absl::InfinitePast()));
}

TEST_F(EngineTest, TheDestructorEndsEveryRequest) {
  group.scheduler.max_running = 1;
  group.gate->HoldBefore(2);
  Start();
  const Submitted running = Submit(Endless(5, 3));
  const Submitted waiting = Submit(Endless(6, 3));
  group.gate->WaitUntilHeld();
  engine.reset();
  EXPECT_TRUE(running.sink->finished());
  ExpectUnavailable(running.sink->WaitForFinish(), "shutting down");
  ExpectUnavailable(waiting.sink->WaitForFinish(), "shutting down");
  EXPECT_EQ(failures.count(), 0u);
}

}  // namespace
}  // namespace cohort
