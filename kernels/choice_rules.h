// The rules by which a token is chosen, as plain constexpr code: the CPU and the kernels of CUDA
// compile these same lines, so that a choice does not depend on the device. See mass_rule.h for how
// they must be compiled.
#ifndef COHORT_KERNELS_CHOICE_RULES_H_
#define COHORT_KERNELS_CHOICE_RULES_H_

#include <cstdint>
#include <limits>

#include "kernels/mass_rule.h"
#include "kernels/philox.h"
#include "kernels/sampling_row.h"

namespace cohort {

// A logit after its edit (LogitEdit of sampling.h).
constexpr float EditedLogit(float logit, float bias, float penalty, bool is_repeated,
                            float repetition_penalty) {
  constexpr float kNothing = -std::numeric_limits<float>::infinity();
  if (bias == kNothing) {
    return kNothing;
  }
  const float biased = logit + bias;
  const float repeated = !is_repeated ? biased
                         : biased > 0 ? biased / repetition_penalty
                                      : biased * repetition_penalty;
  return repeated - penalty;
}

constexpr bool HasTopK(const SamplingRow& row, int64_t valid_ids) {
  return row.top_k > 0 && row.top_k < valid_ids;
}

// Whether no filter but min-p bounds the ids.
constexpr bool IsByMass(const SamplingRow& row, int64_t valid_ids) {
  return !HasTopK(row, valid_ids) && row.top_p == 1;
}

// The uniform number that chooses the row's token, in units of 2^-24.
constexpr uint32_t UniformOf(const SamplingRow& row) {
  return PhiloxBits(row.seed, row.sequence_index, row.position);
}

// Logits below this fail min-p: mass >= min_p * mass of the largest, as a rule about the logit.
constexpr float LowestByMinP(const SamplingRow& row, float largest) {
  return row.min_p > 0 ? static_cast<float>(double{largest} +
                                            double{row.temperature} * Logarithm(double{row.min_p}))
                       : -std::numeric_limits<float>::infinity();
}

// What one rank picks of a row that is chosen by mass: the place of the row's part in the rank's
// own cumulative mass; kOtherRankPicks where it lies in another's. `masses` are the sums of all
// ranks, two words each.
inline constexpr uint64_t kOtherRankPicks = ~uint64_t{0};
constexpr uint64_t WantedOfRank(const int32_t* masses, int64_t ranks, int64_t rank,
                                const SamplingRow& row) {
  uint64_t total = 0;
  uint64_t before = 0;
  for (int64_t other = 0; other < ranks; ++other) {
    before = other == rank ? total : before;
    total += ReadWords(masses + 2 * other);
  }
  const uint64_t wanted = PartOfMass(total, UniformOf(row));
  const uint64_t own = ReadWords(masses + 2 * rank);
  return wanted >= before && wanted - before < own ? wanted - before : kOtherRankPicks;
}

// Top-p keeps the shortest prefix whose mass is at least this.
constexpr uint64_t WantedByTopP(float top_p, uint64_t total) {
  return RoundedUp(double{top_p} * static_cast<double>(total));
}

// The true sum of all masses lies between these.
struct MassBounds {
  uint64_t least = 0;
  uint64_t most = 0;
};

// Adds up the sums of masses of ranks. A rank's sum is relative to its own largest logit. Where
// that is the row's, the sum is exact. Elsewhere each of its at most `valid_ids` masses was
// rounded, and would be again.
class TotalMass {
 public:
  constexpr TotalMass(float largest, float temperature) : rule_(largest, temperature, largest) {}

  // A rank's sum, and its largest logit. In the order of ranks.
  constexpr void Add(uint64_t mass, float own_largest) {
    if (double{own_largest} == rule_.largest) {
      exact_ += mass;
      return;
    }
    is_scaled_ = true;
    const double power = (double{own_largest} - rule_.largest) * rule_.scale;
    double ratio = 0;
    PowerOfTwo<int64_t>(power > kLeastPower ? power : kLeastPower, 0, ratio);
    scaled_ += static_cast<double>(mass) * ratio;
  }

  constexpr MassBounds Bounds(int64_t valid_ids) const {
    const double error =
        is_scaled_ ? static_cast<double>(valid_ids) + 4 * kMassError * scaled_ + 1 : 0;
    const double least = scaled_ - error;
    return {exact_ + (least > 0 ? static_cast<uint64_t>(least) : 0),
            exact_ + RoundedUp(scaled_ + error)};
  }

 private:
  MassRule rule_;
  uint64_t exact_ = 0;
  double scaled_ = 0;
  bool is_scaled_ = false;
};

}  // namespace cohort

#endif  // COHORT_KERNELS_CHOICE_RULES_H_
