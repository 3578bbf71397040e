// Which ranks of an epoch work together, and which of them share a node: what BeginEpoch says.
#ifndef COHORT_LAUNCHER_EPOCH_GROUPS_H_
#define COHORT_LAUNCHER_EPOCH_GROUPS_H_

#include <cstdint>
#include <vector>

#include "cohort/v1/cluster.pb.h"
#include "launcher/epoch_hosts.h"
#include "parallel/shard_plan.h"

namespace cohort {

// Ranks with a communicator of their own.
struct EpochGroup {
  RankList ranks;    // of the world, ascending
  EpochHosts hosts;  // the group's part of each node; ranks are numbered inside the group

  int IndexOf(int rank) const;
  // The rank of the world that connects its node to the others.
  int LeaderOf(int host) const;
  bool spans_hosts() const { return hosts.spans_hosts(); }
};

// The groups of `rank`: its tensor group; in an epoch whose ranks exchange rows for experts, its
// data group too. INVALID_ARGUMENT for members that are not in rank order, not consecutive on an
// agent, or not a multiple of tensor_parallel.
absl::StatusOr<std::vector<EpochGroup>> GroupsOf(const v1::BeginEpoch& begin, int rank);

// The ranks that say EpochListeners, ascending: those that connect their node to others for one of
// their groups; on GPUs the first of each group of several ranks.
absl::StatusOr<std::vector<uint32_t>> ListeningRanks(const v1::BeginEpoch& begin);

}  // namespace cohort

#endif  // COHORT_LAUNCHER_EPOCH_GROUPS_H_
