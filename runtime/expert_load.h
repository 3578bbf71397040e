// How busy the experts are: what a rank's counters have gained since it was last asked.
#ifndef COHORT_RUNTIME_EXPERT_LOAD_H_
#define COHORT_RUNTIME_EXPERT_LOAD_H_

#include <cstdint>
#include <vector>

#include "absl/types/span.h"

namespace cohort {

class ExpertLoad {
 public:
  // counts [layers, experts], which only grow and wrap around: per expert, what all layers have
  // gained since the last call, at most 2^31 - 1. Empty without layers.
  void Take(absl::Span<const int32_t> counts, int64_t experts, std::vector<int32_t>& gained);

 private:
  std::vector<uint32_t> taken_;  // per expert, sums over the layers so far; they wrap around too
  std::vector<uint32_t> sums_;
};

}  // namespace cohort

#endif  // COHORT_RUNTIME_EXPERT_LOAD_H_
