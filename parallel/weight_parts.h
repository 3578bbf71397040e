// What the resident weights of one rank are for.
#ifndef COHORT_PARALLEL_WEIGHT_PARTS_H_
#define COHORT_PARALLEL_WEIGHT_PARTS_H_

#include <cstdint>

#include "parallel/shard_plan.h"

namespace cohort {

// Bytes, all layers.
struct WeightParts {
  int64_t embedding = 0;
  int64_t attention = 0;
  int64_t dense_ffn = 0;
  int64_t experts = 0;
  int64_t shared_expert = 0;
  int64_t router = 0;  // with the gate of the shared expert
  int64_t norms = 0;
  int64_t head = 0;  // 0 where the head is the embedding
  int64_t total() const;
};

WeightParts WeightPartsOf(const ShardPlan& plan);

}  // namespace cohort

#endif  // COHORT_PARALLEL_WEIGHT_PARTS_H_
