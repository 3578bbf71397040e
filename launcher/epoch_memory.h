// The shared memory of one epoch on one node, all of it anonymous: the region the ranks'
// communicator meets in, and two rings per rank. Created by the agent, which passes the descriptors
// to the ranks and may then drop them.
#ifndef COHORT_LAUNCHER_EPOCH_MEMORY_H_
#define COHORT_LAUNCHER_EPOCH_MEMORY_H_

#include <vector>

#include "kernels/status.h"
#include "launcher/file_descriptor.h"

namespace cohort {

struct RankRings {
  FileDescriptor plans;     // coordinator or agent to rank
  FileDescriptor outcomes;  // back
};

struct EpochMemory {
  FileDescriptor communicator;
  std::vector<RankRings> ranks;  // of this node

  // For `local_ranks` on this node of a group of `group_ranks`.
  static absl::StatusOr<EpochMemory> Create(int local_ranks, int group_ranks);
};

}  // namespace cohort

#endif  // COHORT_LAUNCHER_EPOCH_MEMORY_H_
