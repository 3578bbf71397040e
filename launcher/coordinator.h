// Holds one group of ranks together: membership over Cluster sessions, epochs, replacement of lost
// ranks, and the engine that feeds the group. Owns no accelerator.
#ifndef COHORT_LAUNCHER_COORDINATOR_H_
#define COHORT_LAUNCHER_COORDINATOR_H_

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "cohort/v1/cluster.pb.h"
#include "launcher/agent_roster.h"
#include "launcher/cluster_service.h"
#include "launcher/group_status.h"
#include "runtime/checkpoint_digest.h"
#include "runtime/engine.h"

namespace cohort {

struct CoordinatorOptions {
  v1::RankConfiguration configuration;
  SchedulerOptions scheduler;
  std::string local_agent = "local";               // the one inside this process
  std::string rank_executable = "/proc/self/exe";  // run as `... rank --control-fd N`
  // With more agents than the local one: where they join, what checkpoint they must have, and how
  // long they may take until all are there for the first time.
  int agents = 1;
  std::optional<ClusterListenOptions> cluster_listen;
  std::vector<CheckpointPart> checkpoint;
  absl::Duration agents_timeout = absl::InfiniteDuration();
  HeartbeatOptions local_heartbeat;
  HeartbeatOptions node_heartbeat = {.period = absl::Milliseconds(300),
                                     .timeout = absl::Milliseconds(1500)};
  // Of a rank, from its start until it is ready, and without progress in between.
  absl::Duration load_timeout = absl::Hours(1);
  absl::Duration load_stall_timeout = absl::Minutes(2);
  absl::Duration join_epoch_timeout = absl::Seconds(60);
  absl::Duration leave_epoch_timeout = absl::Seconds(20);  // a step that is cut short included
  absl::Duration exit_grace = absl::Seconds(2);  // of ranks at shutdown, before they are killed
};

class Coordinator {
 public:
  // Starts the Cluster listener, the local agent and its ranks. Returns at once; use
  // WaitUntilServing.
  // INVALID_ARGUMENT for a configuration that no rank could be given.
  static absl::StatusOr<std::unique_ptr<Coordinator>> Start(CoordinatorOptions options);
  ~Coordinator();  // Shutdown

  Engine& engine();
  GroupStatus group() const;
  // Where nodes join, with the port that was picked; nothing without cluster_listen.
  const std::optional<HostPort>& cluster_address() const;

  // Called from an internal thread whenever the group starts or stops serving. Set once, before
  // WaitUntilServing.
  void OnServingChange(std::function<void(bool serving)> callback);

  // OK once the first epoch serves; the permanent failure of a rank (bad checkpoint, no memory),
  // with the rank's own words, when the same start would fail again; DEADLINE_EXCEEDED says what
  // was awaited.
  absl::Status WaitUntilServing(absl::Time deadline);

  // A permanent failure after serving began (a rank that cannot be brought back); OK so far.
  absl::Status failure() const;

  // Ends the engine's requests, tells every rank to exit, and reaps them. Idempotent.
  void Shutdown();

 private:
  class State;
  explicit Coordinator(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace cohort

#endif  // COHORT_LAUNCHER_COORDINATOR_H_
