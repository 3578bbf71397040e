#include "launcher/group_board.h"

#include <utility>

namespace cohort {
namespace {

bool Serves(const GroupStatus& group) { return group.state == "serving"; }

}  // namespace

void GroupBoard::Publish(GroupStatus group, const absl::Status& failure) {
  const bool serves = Serves(group);
  std::function<void(bool)> callback;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (Serves(group_) != serves) callback = on_serving_change_;
    group_ = std::move(group);
    failure_ = failure;
    changed_.notify_all();
  }
  if (callback) callback(serves);
}

GroupStatus GroupBoard::group() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return group_;
}

absl::Status GroupBoard::failure() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return failure_;
}

void GroupBoard::OnServingChange(std::function<void(bool)> callback) {
  const std::lock_guard<std::mutex> lock(mutex_);
  on_serving_change_ = std::move(callback);
}

absl::Status GroupBoard::WaitUntilServing(absl::Time deadline) const {
  std::unique_lock<std::mutex> lock(mutex_);
  const auto settled = [this] {
    return Serves(group_) || group_.state == "draining" || !failure_.ok();
  };
  if (deadline == absl::InfiniteFuture()) {
    changed_.wait(lock, settled);
  } else if (!changed_.wait_until(lock, absl::ToChronoTime(deadline), settled)) {
    return absl::DeadlineExceededError(
        absl::StrCat("the group does not serve yet: ", group_.awaited));
  }
  RETURN_IF_ERROR(failure_);
  return Serves(group_) ? absl::OkStatus() : absl::UnavailableError("the server is shutting down");
}

}  // namespace cohort
