// An engine over a group of hash ranks, and requests for it.
#ifndef COHORT_TESTS_RUNTIME_ENGINE_FIXTURE_H_
#define COHORT_TESTS_RUNTIME_ENGINE_FIXTURE_H_

#include <gtest/gtest.h>

#include <condition_variable>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "runtime/engine.h"
#include "tests/runtime/hash_group.h"
#include "tests/runtime/recording_sink.h"

namespace cohort {

inline constexpr int32_t kEngineTestEos = 3;

// The group failures that an engine reported.
class FailureLog {
 public:
  Engine::GroupFailure Callback() {
    return [this](uint64_t epoch, absl::Status status) {
      const std::lock_guard<std::mutex> lock(mutex_);
      failures_.emplace_back(epoch, status.ToString());
      changed_.notify_all();
    };
  }
  // Epoch and text of the first failure.
  std::pair<uint64_t, std::string> WaitForOne() {
    std::unique_lock<std::mutex> lock(mutex_);
    EXPECT_TRUE(changed_.wait_for(lock, kTestTimeout, [this] { return !failures_.empty(); }));
    return failures_.empty() ? std::pair<uint64_t, std::string>() : failures_.front();
  }
  size_t count() const {
    const std::lock_guard<std::mutex> lock(mutex_);
    return failures_.size();
  }

 private:
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<std::pair<uint64_t, std::string>> failures_;
};

class EngineTest : public testing::Test {
 protected:
  EngineTest() {
    group.model.vocabulary = 40;
    group.scheduler.blocks = 64;
    group.scheduler.block_size = 4;
    group.scheduler.max_running = 4;
    group.scheduler.max_batch_tokens = 16;
    group.scheduler.max_model_len = 128;
    group.scheduler.max_waiting = 1000;
    group.scheduler.eos_token_ids = {kEngineTestEos};
  }

  void Start(uint64_t epoch = 1) {
    engine = std::make_unique<Engine>(group.scheduler, failures.Callback());
    engine->GroupReady(MakeHashGroup(epoch, group));
  }

  // Never stops by itself before max_tokens.
  static Request Endless(int32_t first, int64_t max_tokens) {
    Request request;
    request.prompt = {first, 1, 2};
    request.stopping.max_tokens = max_tokens;
    request.stopping.ignore_eos = true;
    return request;
  }

  struct Submitted {
    RequestId id = 0;
    std::shared_ptr<RecordingSink> sink;
  };
  Submitted Submit(Request request) {
    auto sink = std::make_shared<RecordingSink>();
    const auto id = engine->Submit(std::move(request), sink);
    EXPECT_TRUE(id.ok()) << id.status();
    return {id.ok() ? *id : 0, sink};
  }

  void ExpectOutcome(const Request& request, RecordingSink& sink) const {
    const Finish finish = sink.WaitForFinish();
    const ExpectedOutcome expected = Expect(group.model, request, group.scheduler.eos_token_ids);
    EXPECT_EQ(sink.tokens(), expected.tokens);
    EXPECT_EQ(finish.reason, expected.reason) << finish.status;
    EXPECT_EQ(finish.prompt_logprobs, expected.prompt_logprobs);
    EXPECT_EQ(finish.prompt_tokens, static_cast<int64_t>(request.prompt.size()));
    EXPECT_EQ(finish.completion_tokens, static_cast<int64_t>(expected.tokens.size()));
  }

  HashGroupOptions group;
  FailureLog failures;
  std::unique_ptr<Engine> engine;  // goes first
};

inline void ExpectUnavailable(const Finish& finish, StringView part) {
  EXPECT_EQ(finish.reason, FinishReason::kError);
  EXPECT_EQ(finish.status.code(), absl::StatusCode::kUnavailable) << finish.status;
  EXPECT_NE(finish.status.message().find(part), StringView::npos) << finish.status;
}

}  // namespace cohort

#endif  // COHORT_TESTS_RUNTIME_ENGINE_FIXTURE_H_
