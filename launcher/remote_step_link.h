// The way to a rank on another node: plans go out on its agent's session, results come in there and
// are delivered here.
#ifndef COHORT_LAUNCHER_REMOTE_STEP_LINK_H_
#define COHORT_LAUNCHER_REMOTE_STEP_LINK_H_

#include <condition_variable>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <utility>

#include "cohort/v1/cluster.pb.h"
#include "launcher/cluster_service.h"
#include "runtime/step_link.h"

namespace cohort {

class RemoteStepLink final : public StepLink {
 public:
  RemoteStepLink(std::string name, uint64_t epoch, int rank, std::shared_ptr<AgentSession> session);

  std::string name() const override { return name_; }
  absl::Status Send(StringView plan_bytes, absl::Time deadline) override;  // never waits
  absl::StatusOr<std::string> Receive(absl::Time deadline) override;
  void Abort(absl::Status reason) override;

  // From any thread, in order.
  void Deliver(v1::StepOutcome outcome);
  const std::shared_ptr<AgentSession>& session() const { return session_; }

 private:
  const std::string name_;
  const uint64_t epoch_;
  const int rank_;
  const std::shared_ptr<AgentSession> session_;

  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<v1::StepOutcome> outcomes_;
  bool aborted_ = false;
  std::string abort_reason_;
};

// Finds the link that an outcome is for. Any thread.
class RemoteLinks {
 public:
  // The link for the executor of `epoch`; the table keeps only a way to it.
  std::unique_ptr<StepLink> Make(std::string name, uint64_t epoch, int rank,
                                 std::shared_ptr<AgentSession> session);
  // Outcomes of ranks that are not the session's, or of an epoch that is over, are dropped.
  void Deliver(const std::shared_ptr<AgentSession>& session, v1::StepOutcome outcome);
  void DropUntil(uint64_t epoch);

 private:
  std::mutex mutex_;
  std::map<std::pair<uint64_t, int>, std::shared_ptr<RemoteStepLink>> links_;  // by (epoch, rank)
};

}  // namespace cohort

#endif  // COHORT_LAUNCHER_REMOTE_STEP_LINK_H_
