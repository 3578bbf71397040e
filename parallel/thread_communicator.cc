#include "parallel/thread_communicator.h"

#include "kernels/check.h"
#include "parallel/region_communicator.h"
#include "parallel/shared_region.h"

namespace cohort {

std::vector<std::unique_ptr<Communicator>> MakeThreadCommunicators(int size,
                                                                   absl::Duration timeout) {
  CHECK_GE(size, 1);
  std::vector<std::unique_ptr<Communicator>> ranks;
  if (size == 1) {
    ranks.push_back(MakeSelfCommunicator());
    return ranks;
  }
  // The ranks own the region together: each may be the last to go.
  const std::shared_ptr<const SharedRegion> region = SharedRegion::OnHeap(size);
  for (int rank = 0; rank < size; ++rank) {
    const RegionCommunicatorOptions options = {
        .rank = rank, .size = size, .timeout = timeout, .spin_iterations = 0};
    ranks.push_back(std::make_unique<RegionCommunicator>(region, options));
  }
  return ranks;
}

}  // namespace cohort
