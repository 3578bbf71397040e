// The rank processes of one node: starts them, passes on what they are told and what they say,
// notices their ends and kills those that must go. Used from one thread (the agent's), which polls
// WatchedDescriptors() and calls Handle().
#ifndef COHORT_LAUNCHER_RANK_SUPERVISOR_H_
#define COHORT_LAUNCHER_RANK_SUPERVISOR_H_

#include <poll.h>

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "cohort/v1/cluster.pb.h"
#include "launcher/rank_links.h"
#include "launcher/rank_process.h"
#include "parallel/shard_plan.h"

namespace cohort {

struct RankSupervisorOptions {
  std::string agent;            // this node's name
  std::string address;          // this node's, for ranks of other nodes; empty: there are none
  std::string rank_executable;  // run as `... rank --control-fd N`
  RankLinks* links = nullptr;   // outlives the supervisor
};

class RankSupervisor {
 public:
  // `report` is called, from within the calls below, with what the coordinator should hear.
  using Report = std::function<void(v1::AgentMessage)>;

  RankSupervisor(RankSupervisorOptions options, Report report);
  ~RankSupervisor();  // kills and reaps

  // Starts those ranks of assignment.start that have no process; the others keep theirs.
  void Assign(const v1::Assignment& assignment);
  void BeginEpoch(const v1::BeginEpoch& begin);
  void SharePeers(const v1::EpochPeers& peers);
  void AbortEpoch(const v1::AbortEpoch& abort);
  void Kill(const v1::KillRank& kill);

  // Asks all ranks to exit; those that are left at `deadline` (SteadyNow) are killed.
  void BeginShutdown(const std::string& reason, absl::Time deadline);
  // Kills all ranks. Their ends are not reported.
  void KillAll();
  bool empty() const { return ranks_.empty(); }

  void AppendWatched(std::vector<pollfd>& watched) const;
  // Looks at every rank; to be called when a watched descriptor is ready or the time has come.
  void Handle();
  // When Handle wants to be called even if nothing is ready (SteadyNow).
  absl::Time next_deadline() const;

  std::vector<v1::RankProgress> progress() const;

 private:
  struct Rank {
    std::unique_ptr<RankProcess> process;
    v1::RankProgress progress;  // the last it said
    std::optional<v1::RankLost> last_words;
    std::string killed_because;  // by our own hand
    bool socket_ended = false;
    absl::Time started;
  };

  void Start(uint32_t rank, const v1::Assignment& assignment, uint32_t local_index);
  // The ranks of this node in the epoch; each has a process.
  absl::StatusOr<Range> FindOwnRanks(const v1::BeginEpoch& begin) const;
  absl::Status ShareMemory(const v1::BeginEpoch& begin, Range own);
  void Tell(uint32_t number, Rank& rank, const v1::AgentToRank& message,
            absl::Span<const int> descriptors);
  void KillBecause(Rank& rank, const std::string& reason);
  void ReadMessages(uint32_t number, Rank& rank);
  void HandleMessage(uint32_t number, Rank& rank, const ControlPacket& packet);
  void HandleProgress(Rank& rank, const v1::RankProgress& progress);
  void ReportLost(uint32_t number, const Rank& rank, const ExitStatus& exit);
  void ReportCannotStart(uint32_t number, const absl::Status& status);

  const RankSupervisorOptions options_;
  const Report report_;
  std::map<uint32_t, Rank> ranks_;  // those with a process, by rank
  bool quiet_ = false;              // ends are wanted, and no news
  absl::Time kill_at_ = absl::InfiniteFuture();
};

}  // namespace cohort

#endif  // COHORT_LAUNCHER_RANK_SUPERVISOR_H_
