// The masses of mass_rule.h for many logits at once.
#ifndef COHORT_KERNELS_PROBABILITY_MASS_H_
#define COHORT_KERNELS_PROBABILITY_MASS_H_

#include <cstdint>

#include "absl/types/span.h"
#include "kernels/mass_rule.h"

namespace cohort {

class MassScale {
 public:
  // `largest` may be infinite and has then the mass of 1 alone. Logits below `lowest` have none.
  MassScale(float largest, float temperature, float lowest) : rule_(largest, temperature, lowest) {}

  // masses[i] of logits[i], which are not NaN.
  void Masses(absl::Span<const float> logits, uint64_t* masses) const;
  // Their sum.
  uint64_t Sum(absl::Span<const float> logits) const;
  // The first index whose cumulative mass exceeds `wanted`, which is below Sum(logits).
  int64_t Pick(absl::Span<const float> logits, uint64_t wanted) const;

 private:
  struct Kernel;
  struct SumKernel;
  struct MassesKernel;

  MassRule rule_;
};

}  // namespace cohort

#endif  // COHORT_KERNELS_PROBABILITY_MASS_H_
