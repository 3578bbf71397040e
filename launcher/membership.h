// Who is in the group and what has to happen next: a pure state machine without threads, clock,
// processes or RPC. Events go in with the time they happened; actions come out.
//
//   all agents join -> ranks are assigned -> every rank is ready -> BeginEpoch(n) -> (of several
//   agents or on GPUs: the first ranks say how to reach them -> all are told) -> every rank has
//   joined -> serving.
//   Whatever goes wrong ends the epoch: the ranks that live leave it (or are killed when they do
//   not), lost ones are started again after a growing delay (those of a lost agent once another has
//   its place), and when all are ready epoch n + 1 begins.
#ifndef COHORT_LAUNCHER_MEMBERSHIP_H_
#define COHORT_LAUNCHER_MEMBERSHIP_H_

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "absl/time/time.h"
#include "cohort/v1/cluster.pb.h"
#include "kernels/status.h"
#include "launcher/agent_seats.h"
#include "launcher/group_status.h"

namespace cohort {

struct MembershipOptions {
  int ranks = 1;
  int agents = 1;
  int data_parallel = 1;           // groups of equally many consecutive ranks
  bool exchanges_experts = false;  // as in v1::BeginEpoch
  bool on_gpus = false;            // likewise
  // When all agents must have joined for the first time; later the group waits for them for ever.
  absl::Time agents_deadline = absl::InfiniteFuture();
  absl::Duration load_timeout = absl::Hours(1);          // from a process's start to ready
  absl::Duration load_stall_timeout = absl::Minutes(2);  // without progress of the load
  absl::Duration join_epoch_timeout = absl::Seconds(60);
  absl::Duration leave_epoch_timeout = absl::Seconds(20);
  // Starts of a rank that may fail in a row: before the group first served, and later. The first
  // also bounds the epochs that end, before the group served, because nodes do not reach each
  // other.
  int first_start_attempts = 5;
  int restart_attempts = 20;
};

// ---- Actions ----

// These ranks are the agent's; of them `start` get a process now, the others keep what they have.
struct AssignRanks {
  std::string agent;
  std::vector<uint32_t> ranks;
  std::vector<uint32_t> start;
};
// To every agent with ranks.
struct StartEpoch {
  v1::BeginEpoch begin;
};
// To every agent with ranks.
struct SharePeers {
  v1::EpochPeers peers;
};
struct EndEpoch {
  uint64_t epoch = 0;
  std::string reason;
};
struct KillRankProcess {
  std::string agent;
  v1::KillRank kill;
};
// Every rank has joined: the engine may step.
struct ServeEpoch {
  uint64_t epoch = 0;
};
// The engine's group is gone; `status` is what its requests end with.
struct StopServing {
  uint64_t epoch = 0;
  absl::Status status;
};
// The group cannot be had any more.
struct GiveUpGroup {
  absl::Status status;
};
using MembershipAction = std::variant<AssignRanks, StartEpoch, SharePeers, EndEpoch,
                                      KillRankProcess, ServeEpoch, StopServing, GiveUpGroup>;

class Membership {
 public:
  explicit Membership(const MembershipOptions& options);

  // ---- Events ----
  bool HasRoom(bool local) const { return seats_.HasRoom(local); }
  void AgentJoined(const AgentDescription& agent, absl::Time now);  // there is room
  void AgentLost(const std::string& agent, const std::string& reason, absl::Time now);
  void RankProgressed(const v1::RankProgress& progress, absl::Time now);
  void RankLost(const v1::RankLost& lost, absl::Time now);
  void EpochJoined(const v1::EpochJoined& joined, absl::Time now);
  void EpochListening(const v1::EpochListeners& listeners, absl::Time now);
  void EpochLeft(const v1::EpochLeft& left, absl::Time now);
  void EpochFailed(const v1::EpochFailed& failed, absl::Time now);
  // The engine gave the group of `epoch` up.
  void StepFailed(uint64_t epoch, const absl::Status& status, absl::Time now);
  // The group is wanted no more.
  void Drain(absl::Time now);
  void Tick(absl::Time now);

  // ---- What follows ----
  std::vector<MembershipAction> TakeActions();
  absl::Time next_deadline() const;  // when Tick has something to do
  GroupStatus status() const;
  const absl::Status& failure() const { return failure_; }  // after GiveUpGroup
  uint64_t epoch() const { return epoch_; }
  bool serving() const { return phase_ == Phase::kServing; }
  // The part of it that agents are; empty when all are there.
  std::string AwaitedAgents() const { return over() ? "" : seats_.Awaited(); }
  // One sentence on what the group waits for.
  std::string Awaited() const;

 private:
  enum class Phase { kForming, kJoining, kServing, kOver };
  enum class RankState { kUnassigned, kLoading, kReady, kLost };

  struct Rank {
    RankState state = RankState::kUnassigned;
    std::string agent;          // empty while unassigned
    v1::RankProgress progress;  // of the present process
    absl::Time assigned;        // the present process's start
    absl::Time progressed;      // the last time the load came on
    bool joined = false;        // the present epoch
    uint64_t leaving = 0;       // the epoch it has been asked to leave and has not; 0: none
    absl::Time leave_by;
    bool condemned = false;  // its process has been ordered killed
    int failures = 0;        // in a row, without a minute of service between them
    int failed_starts = 0;   // in a row, without any service between them
    absl::Time restart_at;   // while kLost
    uint64_t restarts = 0;   // in all
  };

  Rank* Find(uint32_t rank);
  std::string Name(size_t rank) const;
  void RestartDue(absl::Time now);
  void StartRanks(const std::vector<uint32_t>& start, absl::Time now);
  void MaybeBeginEpoch(absl::Time now);
  void StopEpoch(const std::string& reason, const absl::Status& status, absl::Time now);
  void LoseRank(size_t rank, const std::string& reason, absl::Time now);
  void CheckAgents(absl::Time now);
  void Condemn(size_t rank, const std::string& reason);
  void CheckJoining(absl::Time now);
  void CheckRank(size_t rank, absl::Time now);
  void GiveUp(const absl::Status& status, absl::Time now);
  bool over() const { return draining_ || phase_ == Phase::kOver; }

  const MembershipOptions options_;
  Phase phase_ = Phase::kForming;
  bool draining_ = false;
  bool has_served_ = false;
  uint64_t epoch_ = 0;  // the present or last one
  absl::Time join_by_;
  absl::Time serving_since_;
  int unconnected_epochs_ = 0;  // in a row
  absl::Time begin_at_ =
      absl::InfinitePast();  // no epoch before; InfinitePast: nothing to wait for
  AgentSeats seats_;
  // Of the present epoch, by rank: those that are to come, and those that have.
  std::map<uint32_t, std::optional<v1::EpochListeners>> listeners_;
  std::vector<Rank> ranks_;
  std::vector<MembershipAction> actions_;
  absl::Status failure_;
};

}  // namespace cohort

#endif  // COHORT_LAUNCHER_MEMBERSHIP_H_
