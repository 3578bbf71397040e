// The shared memory of one epoch on one node, all of it anonymous: the regions that the
// communicators of its ranks meet in, one per group, and two rings per rank. Created by the agent,
// which passes the descriptors to the ranks and may then drop them.
#ifndef COHORT_LAUNCHER_EPOCH_MEMORY_H_
#define COHORT_LAUNCHER_EPOCH_MEMORY_H_

#include <map>
#include <utility>
#include <vector>

#include "cohort/v1/cluster.pb.h"
#include "kernels/status.h"
#include "launcher/file_descriptor.h"
#include "parallel/shard_plan.h"

namespace cohort {

struct RankRings {
  FileDescriptor plans;     // coordinator or agent to rank
  FileDescriptor outcomes;  // back
};

class EpochMemory {
 public:
  // For the ranks `own` of this node.
  static absl::StatusOr<EpochMemory> Create(const v1::BeginEpoch& begin, Range own);

  const RankRings& rings(int rank) const { return ranks_.at(rank).rings; }
  // What a rank gets: plans, outcomes, the region of each of its groups (GroupsOf).
  std::vector<int> DescriptorsOf(int rank) const;

 private:
  struct RankMemory {
    RankRings rings;
    std::vector<int> regions;  // of its groups, in regions_
  };

  std::map<int, RankMemory> ranks_;
  std::map<std::pair<size_t, int>, FileDescriptor> regions_;  // by kind and first rank of the group
};

}  // namespace cohort

#endif  // COHORT_LAUNCHER_EPOCH_MEMORY_H_
