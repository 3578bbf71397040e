#include "runtime/expert_load.h"

#include <utility>

namespace cohort {

std::vector<int32_t> ExpertLoad::Take(const TensorView& counts, Device& device) {
  if (counts.rows() == 0) {
    return {};
  }
  const size_t experts = static_cast<size_t>(counts.columns());
  std::vector<uint32_t> on_host(static_cast<size_t>(counts.shape.elements()));
  device.CopyToHost(counts, on_host.data());
  std::vector<uint32_t> sums(experts);
  for (size_t i = 0; i < on_host.size(); ++i) {
    sums[i % experts] += on_host[i];
  }
  taken_.resize(experts);
  std::vector<int32_t> gained(experts);
  for (size_t expert = 0; expert < experts; ++expert) {
    gained[expert] = static_cast<int32_t>(sums[expert] - taken_[expert]);
  }
  taken_ = std::move(sums);
  return gained;
}

}  // namespace cohort
