// Probability masses as integers: exp((logit - largest) / temperature) * 2^44, rounded. Sums of
// integers do not depend on their order, so every cut of the vocabulary over ranks and threads
// gives the same bits. What rounds to 0 is below 2^-44 of the likeliest id.
#ifndef COHORT_KERNELS_PROBABILITY_MASS_H_
#define COHORT_KERNELS_PROBABILITY_MASS_H_

#include <cstdint>

#include "absl/types/span.h"

namespace cohort {

inline constexpr uint64_t kMassOfLargest = uint64_t{1} << 44;

// Each mass lies within this fraction of the true one, beside the rounding to an integer.
inline constexpr double kMassError = 0x1p-36;

class MassScale {
 public:
  // `largest` may be infinite and has then the mass of 1 alone. Logits below `lowest` have none.
  MassScale(float largest, float temperature, float lowest);

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

  double largest_;
  double lowest_;
  double scale_;  // logarithms of two per logit
};

// floor(mass * uniform / 2^24); uniform below 2^24.
constexpr uint64_t PartOfMass(uint64_t mass, uint32_t uniform) {
  return (mass >> 24) * uniform + (((mass & 0xffffff) * uniform) >> 24);
}

}  // namespace cohort

#endif  // COHORT_KERNELS_PROBABILITY_MASS_H_
