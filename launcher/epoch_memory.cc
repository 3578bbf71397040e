#include "launcher/epoch_memory.h"

#include "launcher/byte_ring.h"
#include "launcher/epoch_groups.h"
#include "parallel/host_communicator.h"

namespace cohort {
namespace {

// Longer messages travel in pieces.
constexpr int64_t kPlanRingBytes = int64_t{1} << 20;
constexpr int64_t kOutcomeRingBytes = int64_t{1} << 18;

}  // namespace

absl::StatusOr<EpochMemory> EpochMemory::Create(const v1::BeginEpoch& begin, Range own) {
  EpochMemory memory;
  for (int rank = static_cast<int>(own.begin); rank < own.end; ++rank) {
    RankMemory& of_rank = memory.ranks_[rank];
    ASSIGN_OR_RETURN(of_rank.rings.plans, CreateByteRing(kPlanRingBytes));
    ASSIGN_OR_RETURN(of_rank.rings.outcomes, CreateByteRing(kOutcomeRingBytes));
    ASSIGN_OR_RETURN(const std::vector<EpochGroup> groups, GroupsOf(begin, rank));
    for (size_t kind = 0; kind < groups.size(); ++kind) {
      FileDescriptor& region = memory.regions_[{kind, groups[kind].ranks.front()}];
      if (region.get() < 0) {
        const int size = static_cast<int>(groups[kind].ranks.size());
        ASSIGN_OR_RETURN(const int created, CreateHostCommunicatorRegion(size));
        region = FileDescriptor(created);
      }
      of_rank.regions.push_back(region.get());
    }
  }
  return memory;
}

std::vector<int> EpochMemory::DescriptorsOf(int rank) const {
  const RankMemory& of_rank = ranks_.at(rank);
  std::vector<int> descriptors = {of_rank.rings.plans.get(), of_rank.rings.outcomes.get()};
  descriptors.insert(descriptors.end(), of_rank.regions.begin(), of_rank.regions.end());
  return descriptors;
}

}  // namespace cohort
