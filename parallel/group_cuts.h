// The cuts of one tensor group, all ranks at once: what ShardPlan gives out rank by rank.
#ifndef COHORT_PARALLEL_GROUP_CUTS_H_
#define COHORT_PARALLEL_GROUP_CUTS_H_

#include <cstdint>
#include <vector>

#include "parallel/head_split.h"
#include "parallel/shard_plan.h"

namespace cohort {

// Bytes that one unit of each dimension adds to what its rank reads per token, all layers.
struct ReadCosts {
  HeadCosts heads;
  int64_t ffn_column = 0;            // 0 where no layer is dense
  int64_t shared_expert_column = 0;  // 0 where no layer is sparse
  int64_t vocabulary_row = 0;
  int64_t replicated = 0;  // norms and routers, on every rank
};

// `dims` are those that ShardPlan::Make accepts.
ReadCosts ReadCostsOf(const ModelDims& dims);

// Indexed by group rank.
struct GroupCuts {
  HeadSplit query_heads;
  std::vector<Range> ffn_columns;            // empty ranges where no layer is dense
  std::vector<Range> shared_expert_columns;  // empty ranges where no layer is sparse
  std::vector<Range> vocabulary;
  std::vector<int64_t> bytes;  // read per token
  int64_t slowest() const;
};

// Cuts around what the ranks of the group read of routed experts, `expert_bytes`: one for each of
// 1..query_heads ranks. A search, not a proof: on every shape small enough to try all cuts, the
// slowest rank is within one granule (of the finest dimension) of the best.
GroupCuts CutGroup(const ModelDims& dims, const std::vector<int64_t>& expert_bytes);

}  // namespace cohort

#endif  // COHORT_PARALLEL_GROUP_CUTS_H_
