#include "launcher/step_relay.h"

#include <condition_variable>
#include <deque>
#include <string>
#include <thread>
#include <vector>

namespace cohort {

// One rank's link, one epoch long. The link is used by two threads, but each direction by one: its
// rings have nothing in common.
class StepRelay::Line {
 public:
  Line(uint64_t epoch, int rank, std::unique_ptr<StepLink> link, const Report& report)
      : epoch_(epoch),
        rank_(rank),
        link_(std::move(link)),
        report_(report),
        plans_thread_([this] { PassPlans(); }),
        outcomes_thread_([this] { PassOutcomes(); }) {}
  ~Line();

  void Deliver(std::string plan) {
    const std::lock_guard<std::mutex> lock(mutex_);
    plans_.push_back(std::move(plan));
    changed_.notify_one();
  }

 private:
  void PassPlans();
  void PassOutcomes();
  void Say(const absl::StatusOr<std::string>& result);

  const uint64_t epoch_;
  const int rank_;
  const std::unique_ptr<StepLink> link_;
  const Report& report_;

  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::string> plans_;
  bool stopping_ = false;

  std::thread plans_thread_;
  std::thread outcomes_thread_;
};

StepRelay::Line::~Line() {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    stopping_ = true;
    changed_.notify_one();
  }
  link_->Abort(absl::UnavailableError("the epoch has ended"));
  plans_thread_.join();
  outcomes_thread_.join();
}

void StepRelay::Line::PassPlans() {
  std::unique_lock<std::mutex> lock(mutex_);
  for (;;) {
    changed_.wait(lock, [this] { return stopping_ || !plans_.empty(); });
    if (stopping_) return;
    const std::string plan = std::move(plans_.front());
    plans_.pop_front();
    lock.unlock();
    // The coordinator's deadline of the step is the one that counts; an abort ends this wait.
    const absl::Status status = link_->Send(plan, absl::InfiniteFuture());
    lock.lock();
    if (stopping_) return;
    if (!status.ok()) Say(status);
  }
}

void StepRelay::Line::PassOutcomes() {
  for (;;) {
    const absl::StatusOr<std::string> result = link_->Receive(absl::InfiniteFuture());
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      if (stopping_) return;
    }
    Say(result);
    if (!result.ok()) return;  // the group of this epoch is over
  }
}

void StepRelay::Line::Say(const absl::StatusOr<std::string>& result) {
  v1::AgentMessage message;
  v1::StepOutcome& outcome = *message.mutable_outcome();
  outcome.set_rank(static_cast<uint32_t>(rank_));
  outcome.set_epoch(epoch_);
  if (result.ok()) {
    outcome.set_result(*result);
  } else {
    outcome.set_status_code(static_cast<int32_t>(result.status().code()));
    outcome.set_status_message(std::string(result.status().message()));
  }
  report_(std::move(message));
}

StepRelay::StepRelay(Report report) : report_(std::move(report)) {}
StepRelay::~StepRelay() = default;

void StepRelay::Put(uint64_t epoch, int rank, std::unique_ptr<StepLink> link) {
  auto line = std::make_shared<Line>(epoch, rank, std::move(link), report_);
  const std::lock_guard<std::mutex> lock(mutex_);
  lines_[{epoch, rank}] = std::move(line);
}

void StepRelay::DropUntil(uint64_t epoch) {
  std::vector<std::shared_ptr<Line>> dropped;  // end after the mutex is free
  const std::lock_guard<std::mutex> lock(mutex_);
  const auto end = lines_.lower_bound({epoch + 1, 0});
  for (auto line = lines_.begin(); line != end; ++line) dropped.push_back(std::move(line->second));
  lines_.erase(lines_.begin(), end);
}

void StepRelay::Deliver(v1::Plan plan) {
  std::shared_ptr<Line> line;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    const auto found = lines_.find({plan.epoch(), static_cast<int>(plan.rank())});
    if (found == lines_.end()) return;
    line = found->second;
  }
  line->Deliver(std::move(*plan.mutable_plan()));
}

}  // namespace cohort
