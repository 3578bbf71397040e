// Which GPU of its node a rank gets, and the environment that NCCL needs of a rank process.
#ifndef COHORT_LAUNCHER_GPU_PLACEMENT_H_
#define COHORT_LAUNCHER_GPU_PLACEMENT_H_

#include <string>
#include <vector>

#include "cohort/v1/cluster.pb.h"
#include "kernels/status.h"

namespace cohort {

// The ordinal of rank `local_index` of the `local_ranks` on a node with `gpus` GPUs: each rank its
// own, unless they may be shared. FAILED_PRECONDITION where there are too few.
absl::StatusOr<int> GpuOf(int local_index, int local_ranks, int gpus, bool allow_shared);

// Variables as NAME=value for the process of `rank` on a node at `address` (empty: a single node).
// NCCL reads them once per process, before its first communicator. Those of ranks that share a GPU
// make NCCL take every rank for a host of its own: it refuses two ranks of a host on one GPU.
std::vector<std::string> RankEnvironment(const v1::RankConfiguration& configuration, uint32_t rank,
                                         const std::string& address);

}  // namespace cohort

#endif  // COHORT_LAUNCHER_GPU_PLACEMENT_H_
