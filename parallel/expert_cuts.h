// Where routed experts lie: whole on groups of ranks, cut along their columns inside a group.
#ifndef COHORT_PARALLEL_EXPERT_CUTS_H_
#define COHORT_PARALLEL_EXPERT_CUTS_H_

#include <cstdint>
#include <vector>

#include "parallel/shard_plan.h"

namespace cohort {

// One rank's part of a sparse layer's routed experts.
struct ExpertShare {
  Range experts;  // whole experts of its group
  Range columns;  // of each of them
};

struct ExpertCuts {
  std::vector<Range> experts;  // of each expert group, in group order
  std::vector<Range> columns;  // of each member of a group; every group is cut alike

  ExpertShare Of(int rank) const;
};

// As even as whole experts and granules of columns allow, the larger parts first. `dims` and
// `parallelism` are those that ShardPlan::Make accepts; without sparse layers all ranges are empty.
ExpertCuts CutExperts(const ModelDims& dims, const Parallelism& parallelism);

// What a rank reads per token of all layers' routed experts when every expert is chosen equally
// often.
int64_t ExpertReadBytes(const ModelDims& dims, const ExpertShare& share);

}  // namespace cohort

#endif  // COHORT_PARALLEL_EXPERT_CUTS_H_
