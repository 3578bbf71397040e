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
  int64_t ffn_column = 0;
  int64_t vocabulary_row = 0;
  int64_t replicated = 0;  // norms, on every rank
};

// `dims` are those that ShardPlan::Make accepts.
ReadCosts ReadCostsOf(const ModelDims& dims);

// Indexed by group rank.
struct GroupCuts {
  HeadSplit query_heads;
  std::vector<Range> ffn_columns;
  std::vector<Range> vocabulary;
  std::vector<int64_t> bytes;  // read per token
  int64_t slowest() const;
};

// 1 <= tp <= query_heads. A search, not a proof: on every shape small enough to try all cuts, the
// slowest rank is within one granule (of FFN or vocabulary, the finer one) of the best.
GroupCuts CutGroup(const ModelDims& dims, int tp);

}  // namespace cohort

#endif  // COHORT_PARALLEL_GROUP_CUTS_H_
