#include "launcher/remote_step_link.h"

#include <utility>

#include "launcher/ring_step_link.h"

namespace cohort {
namespace {

// The executor owns its links; this one is also known to the table that delivers outcomes.
class SharedStepLink final : public StepLink {
 public:
  explicit SharedStepLink(std::shared_ptr<RemoteStepLink> link) : link_(std::move(link)) {}
  std::string name() const override { return link_->name(); }
  absl::Status Send(StringView plan_bytes, absl::Time deadline) override {
    return link_->Send(plan_bytes, deadline);
  }
  absl::StatusOr<std::string> Receive(absl::Time deadline) override {
    return link_->Receive(deadline);
  }
  void Abort(absl::Status reason) override { link_->Abort(std::move(reason)); }

 private:
  const std::shared_ptr<RemoteStepLink> link_;
};

}  // namespace

RemoteStepLink::RemoteStepLink(std::string name, uint64_t epoch, int rank,
                               std::shared_ptr<AgentSession> session)
    : name_(std::move(name)), epoch_(epoch), rank_(rank), session_(std::move(session)) {}

absl::Status RemoteStepLink::Send(StringView plan_bytes, absl::Time) {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (aborted_) return absl::UnavailableError(abort_reason_);
  }
  v1::CoordinatorMessage message;
  v1::Plan& plan = *message.mutable_plan();
  plan.set_rank(static_cast<uint32_t>(rank_));
  plan.set_epoch(epoch_);
  plan.set_plan(plan_bytes.data(), plan_bytes.size());
  session_->Send(std::move(message));
  return absl::OkStatus();
}

absl::StatusOr<std::string> RemoteStepLink::Receive(absl::Time deadline) {
  std::unique_lock<std::mutex> lock(mutex_);
  const auto ready = [this] { return aborted_ || !outcomes_.empty(); };
  if (deadline == absl::InfiniteFuture()) {
    changed_.wait(lock, ready);
  } else if (!changed_.wait_until(lock, absl::ToChronoTime(deadline), ready)) {
    return absl::DeadlineExceededError("no answer came over its agent's session");
  }
  if (aborted_) return absl::UnavailableError(abort_reason_);
  v1::StepOutcome outcome = std::move(outcomes_.front());
  outcomes_.pop_front();
  if (outcome.status_code() != 0) {
    return absl::Status(StatusCodeOf(outcome.status_code()), outcome.status_message());
  }
  return std::move(*outcome.mutable_result());
}

void RemoteStepLink::Abort(absl::Status reason) {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (!aborted_) abort_reason_ = std::string(reason.message());
  aborted_ = true;
  changed_.notify_all();
}

void RemoteStepLink::Deliver(v1::StepOutcome outcome) {
  const std::lock_guard<std::mutex> lock(mutex_);
  outcomes_.push_back(std::move(outcome));
  changed_.notify_all();
}

std::unique_ptr<StepLink> RemoteLinks::Make(std::string name, uint64_t epoch, int rank,
                                            std::shared_ptr<AgentSession> session) {
  auto link = std::make_shared<RemoteStepLink>(std::move(name), epoch, rank, std::move(session));
  const std::lock_guard<std::mutex> lock(mutex_);
  links_[{epoch, rank}] = link;
  return std::make_unique<SharedStepLink>(std::move(link));
}

void RemoteLinks::Deliver(const std::shared_ptr<AgentSession>& session, v1::StepOutcome outcome) {
  std::shared_ptr<RemoteStepLink> link;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    const auto found = links_.find({outcome.epoch(), static_cast<int>(outcome.rank())});
    if (found == links_.end() || found->second->session() != session) return;
    link = found->second;
  }
  link->Deliver(std::move(outcome));
}

void RemoteLinks::DropUntil(uint64_t epoch) {
  const std::lock_guard<std::mutex> lock(mutex_);
  links_.erase(links_.begin(), links_.lower_bound({epoch + 1, 0}));
}

}  // namespace cohort
