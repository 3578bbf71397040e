// What other threads may know of the group: written by the coordinator's thread after every turn,
// read and waited on by any.
#ifndef COHORT_LAUNCHER_GROUP_BOARD_H_
#define COHORT_LAUNCHER_GROUP_BOARD_H_

#include <condition_variable>
#include <functional>
#include <mutex>

#include "absl/time/time.h"
#include "kernels/status.h"
#include "launcher/group_status.h"

namespace cohort {

class GroupBoard {
 public:
  explicit GroupBoard(GroupStatus group) : group_(std::move(group)) {}

  // From the coordinator's thread. `failure`: once the group cannot be had any more.
  void Publish(GroupStatus group, const absl::Status& failure);

  GroupStatus group() const;
  absl::Status failure() const;
  // Called by Publish, from its thread, whenever the group starts or stops serving.
  void OnServingChange(std::function<void(bool serving)> callback);
  // OK once the group serves; its failure; UNAVAILABLE once it drains; DEADLINE_EXCEEDED says what
  // was awaited.
  absl::Status WaitUntilServing(absl::Time deadline) const;

 private:
  mutable std::mutex mutex_;
  mutable std::condition_variable changed_;
  GroupStatus group_;
  absl::Status failure_;
  std::function<void(bool)> on_serving_change_;
};

}  // namespace cohort

#endif  // COHORT_LAUNCHER_GROUP_BOARD_H_
