#include "runtime/expert_load.h"

#include <utility>

namespace cohort {

std::vector<int32_t> ExpertLoad::Take(absl::Span<const int32_t> counts, int64_t experts) {
  if (counts.empty()) {
    return {};
  }
  std::vector<uint32_t> sums(static_cast<size_t>(experts));
  for (size_t i = 0; i < counts.size(); ++i) {
    sums[i % sums.size()] += static_cast<uint32_t>(counts[i]);
  }
  taken_.resize(sums.size());
  std::vector<int32_t> gained(sums.size());
  for (size_t expert = 0; expert < sums.size(); ++expert) {
    gained[expert] = static_cast<int32_t>(sums[expert] - taken_[expert]);
  }
  taken_ = std::move(sums);
  return gained;
}

}  // namespace cohort
