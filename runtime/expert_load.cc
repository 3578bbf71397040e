#include "runtime/expert_load.h"

namespace cohort {

void ExpertLoad::Take(absl::Span<const int32_t> counts, int64_t experts,
                      std::vector<int32_t>& gained) {
  const size_t size = counts.empty() ? 0 : static_cast<size_t>(experts);
  sums_.assign(size, 0);
  for (size_t begin = 0; begin < counts.size(); begin += size) {
    for (size_t expert = 0; expert < size; ++expert) {
      sums_[expert] += static_cast<uint32_t>(counts[begin + expert]);
    }
  }
  taken_.resize(size);
  gained.resize(size);
  for (size_t expert = 0; expert < size; ++expert) {
    gained[expert] = static_cast<int32_t>(sums_[expert] - taken_[expert]);
  }
  taken_.swap(sums_);
}

}  // namespace cohort
