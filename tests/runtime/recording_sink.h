// A RequestSink that keeps everything and lets tests wait for it.
#ifndef COHORT_TESTS_RUNTIME_RECORDING_SINK_H_
#define COHORT_TESTS_RUNTIME_RECORDING_SINK_H_

#include <gtest/gtest.h>

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <vector>

#include "runtime/request.h"

namespace cohort {

// Every wait of the engine's tests; reached only when something hangs.
inline constexpr std::chrono::seconds kTestTimeout{60};

class RecordingSink : public RequestSink {
 public:
  SinkAnswer OnTokens(const GeneratedTokens& generated) override {
    const std::lock_guard<std::mutex> lock(mutex_);
    EXPECT_EQ(finishes_, 0) << "tokens after the finish";
    EXPECT_EQ(generated.first_index, static_cast<int64_t>(tokens_.size()));
    EXPECT_FALSE(generated.ids.empty());
    tokens_.insert(tokens_.end(), generated.ids.begin(), generated.ids.end());
    changed_.notify_all();
    return SinkAnswer::kContinue;
  }

  void OnFinish(const Finish& finish) override {
    const std::lock_guard<std::mutex> lock(mutex_);
    EXPECT_EQ(++finishes_, 1) << "finished twice";
    finish_ = finish;
    finish_.status = absl::Status(finish.status.code(), finish.status.message());
    changed_.notify_all();
  }

  // The finish; a failure of the test when it does not come.
  Finish WaitForFinish() {
    std::unique_lock<std::mutex> lock(mutex_);
    EXPECT_TRUE(changed_.wait_for(lock, kTestTimeout, [this] { return finishes_ > 0; }));
    return finish_;
  }

  void WaitForTokens(size_t count) {
    std::unique_lock<std::mutex> lock(mutex_);
    EXPECT_TRUE(changed_.wait_for(lock, kTestTimeout, [&] { return tokens_.size() >= count; }));
  }

  std::vector<int32_t> tokens() const {
    const std::lock_guard<std::mutex> lock(mutex_);
    return tokens_;
  }
  bool finished() const {
    const std::lock_guard<std::mutex> lock(mutex_);
    return finishes_ > 0;
  }

 private:
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<int32_t> tokens_;
  Finish finish_;
  int finishes_ = 0;
};

}  // namespace cohort

#endif  // COHORT_TESTS_RUNTIME_RECORDING_SINK_H_
