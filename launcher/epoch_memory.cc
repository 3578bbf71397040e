#include "launcher/epoch_memory.h"

#include <utility>

#include "launcher/byte_ring.h"
#include "parallel/host_communicator.h"

namespace cohort {
namespace {

// Longer messages travel in pieces.
constexpr int64_t kPlanRingBytes = int64_t{1} << 20;
constexpr int64_t kOutcomeRingBytes = int64_t{1} << 18;

}  // namespace

absl::StatusOr<EpochMemory> EpochMemory::Create(int local_ranks, int group_ranks) {
  EpochMemory memory;
  ASSIGN_OR_RETURN(const int communicator, CreateHostCommunicatorRegion(group_ranks));
  memory.communicator = FileDescriptor(communicator);
  for (int rank = 0; rank < local_ranks; ++rank) {
    RankRings rings;
    ASSIGN_OR_RETURN(rings.plans, CreateByteRing(kPlanRingBytes));
    ASSIGN_OR_RETURN(rings.outcomes, CreateByteRing(kOutcomeRingBytes));
    memory.ranks.push_back(std::move(rings));
  }
  return memory;
}

}  // namespace cohort
