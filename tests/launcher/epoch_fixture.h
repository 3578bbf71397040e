// Epochs as a coordinator announces them.
#ifndef COHORT_TESTS_LAUNCHER_EPOCH_FIXTURE_H_
#define COHORT_TESTS_LAUNCHER_EPOCH_FIXTURE_H_

#include <string>
#include <vector>

#include "cohort/v1/cluster.pb.h"

namespace cohort {

// `agents`: that of each rank.
inline v1::BeginEpoch EpochOf(const std::vector<std::string>& agents, int tensor_parallel,
                              bool exchanges_experts) {
  v1::BeginEpoch begin;
  begin.set_epoch(1);
  begin.set_tensor_parallel(static_cast<uint32_t>(tensor_parallel));
  begin.set_exchanges_experts(exchanges_experts);
  for (size_t rank = 0; rank < agents.size(); ++rank) {
    v1::BeginEpoch::Member& member = *begin.add_members();
    member.set_rank(static_cast<uint32_t>(rank));
    member.set_agent(agents[rank]);
  }
  return begin;
}

}  // namespace cohort

#endif  // COHORT_TESTS_LAUNCHER_EPOCH_FIXTURE_H_
