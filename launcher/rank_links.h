// Where a node's ends of its ranks' rings go: to the coordinator of the same process, or to a relay
// that carries plans and results over the Cluster stream.
#ifndef COHORT_LAUNCHER_RANK_LINKS_H_
#define COHORT_LAUNCHER_RANK_LINKS_H_

#include <cstdint>
#include <memory>

#include "runtime/step_link.h"

namespace cohort {

// Called from the agent's thread.
class RankLinks {
 public:
  virtual ~RankLinks() = default;
  virtual void Put(uint64_t epoch, int rank, std::unique_ptr<StepLink> link) = 0;
  // Those of `epoch` and before that are still here are dropped.
  virtual void DropUntil(uint64_t epoch) = 0;
};

}  // namespace cohort

#endif  // COHORT_LAUNCHER_RANK_LINKS_H_
