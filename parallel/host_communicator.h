// Ranks as processes of one host, over one shared memory region per group and epoch. The region is
// created by the node agent (an anonymous memfd: nothing to unlink, nothing left behind) and handed
// to every rank, which maps it.
#ifndef COHORT_PARALLEL_HOST_COMMUNICATOR_H_
#define COHORT_PARALLEL_HOST_COMMUNICATOR_H_

#include <cstdint>
#include <memory>

#include "absl/time/time.h"
#include "parallel/communicator.h"

namespace cohort {

// Bytes a region for a group of `size` ranks must have.
int64_t HostCommunicatorRegionBytes(int size);

// A new zeroed memfd of that size. The caller owns the descriptor.
absl::StatusOr<int> CreateHostCommunicatorRegion(int size);

struct HostCommunicatorOptions {
  int rank = 0;
  int size = 1;
  absl::Duration timeout = absl::Seconds(60);  // of every collective
  // Iterations to spin before sleeping on a futex. 0 when there are more ranks than cores.
  int spin_iterations = 0;
};

// INVALID_ARGUMENT names the option that is outside its range.
absl::Status CheckHostCommunicatorOptions(const HostCommunicatorOptions& options);

// Maps `region_fd` (which may be closed afterwards). INVALID_ARGUMENT when the region's size does
// not fit. A group of one ignores the region.
absl::StatusOr<std::unique_ptr<Communicator>> MakeHostCommunicator(
    int region_fd, const HostCommunicatorOptions& options);

}  // namespace cohort

#endif  // COHORT_PARALLEL_HOST_COMMUNICATOR_H_
