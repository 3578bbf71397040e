#include "tests/runtime/thread_step_link.h"

#include <condition_variable>
#include <deque>
#include <mutex>
#include <thread>
#include <utility>

namespace cohort {
namespace {

class ThreadStepLink : public StepLink {
 public:
  ThreadStepLink(std::string name, std::unique_ptr<RankBody> body)
      : name_(std::move(name)), body_(std::move(body)), thread_([this] { RunRank(); }) {}

  ~ThreadStepLink() override {
    Abort(absl::UnavailableError("the link is gone"));
    thread_.join();
  }

  std::string name() const override { return name_; }

  absl::Status Send(StringView plan_bytes, absl::Time) override {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (aborted_) {
      return Reason();
    }
    plans_.emplace_back(plan_bytes);
    changed_.notify_all();
    return absl::OkStatus();
  }

  absl::StatusOr<std::string> Receive(absl::Time deadline) override {
    std::unique_lock<std::mutex> lock(mutex_);
    const bool came = changed_.wait_until(lock, absl::ToChronoTime(deadline),
                                          [this] { return aborted_ || !answers_.empty(); });
    if (aborted_) {
      return Reason();
    }
    if (!came) {
      return absl::DeadlineExceededError("no result of the step in time");
    }
    absl::StatusOr<std::string> answer = std::move(answers_.front());
    answers_.pop_front();
    return answer;
  }

  void Abort(absl::Status reason) override {
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      if (!aborted_) {
        reason_ = std::string(reason.message());
      }
      aborted_ = true;
      changed_.notify_all();
      if (body_ == nullptr) {
        return;
      }
      body_->Abort();
    }
  }

 private:
  absl::Status Reason() const { return absl::UnavailableError(reason_); }

  void RunRank() {
    std::unique_lock<std::mutex> lock(mutex_);
    while (true) {
      changed_.wait(lock, [this] { return aborted_ || !plans_.empty(); });
      if (aborted_) {
        break;
      }
      const std::string plan = std::move(plans_.front());
      plans_.pop_front();
      lock.unlock();
      absl::StatusOr<std::string> answer = Answer(plan);
      lock.lock();
      answers_.push_back(std::move(answer));
      changed_.notify_all();
    }
    const std::unique_ptr<RankBody> body = std::move(body_);
    lock.unlock();  // the body goes without the mutex
  }

  absl::StatusOr<std::string> Answer(StringView bytes) {
    ASSIGN_OR_RETURN(const StepPlan plan, DecodeStepPlan(bytes));
    ASSIGN_OR_RETURN(const StepResult result, body_->Run(plan));
    return Encode(result);
  }

  const std::string name_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::string> plans_;
  std::deque<absl::StatusOr<std::string>> answers_;
  bool aborted_ = false;
  std::string reason_;
  std::unique_ptr<RankBody> body_;  // reset by the thread when it ends
  std::thread thread_;
};

}  // namespace

std::unique_ptr<StepLink> MakeThreadStepLink(std::string name, std::unique_ptr<RankBody> body) {
  return std::make_unique<ThreadStepLink>(std::move(name), std::move(body));
}

}  // namespace cohort
