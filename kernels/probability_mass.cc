#include "kernels/probability_mass.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <limits>

#include "kernels/avx2_dispatch.h"
#include "kernels/check.h"

namespace cohort {
namespace {

constexpr int64_t kWidth = 4;
typedef double Doubles __attribute__((vector_size(kWidth * sizeof(double))));
typedef int64_t Integers __attribute__((vector_size(kWidth * sizeof(int64_t))));
typedef float Floats __attribute__((vector_size(kWidth * sizeof(float))));

// ln(2)^k / k!: the powers of two around 0. Ten terms are within 2^-37 in [-0.5, 0.5].
constexpr std::array<double, 10> kTerms = {1,
                                           0.6931471805599453,
                                           0.24022650695910072,
                                           0.05550410866482158,
                                           0.009618129107628477,
                                           0.0013333558146428443,
                                           0.00015403530393381608,
                                           1.5252733804059838e-05,
                                           1.3215486790144307e-06,
                                           1.0178086009239699e-07};

// Adding these leaves an integer in the low bits of the sum.
constexpr double kRoundSigned = 0x1.8p52;
constexpr double kRound = 0x1p52;
// Powers of two below this round to no mass at all.
constexpr double kLeastPower = -64;

}  // namespace

struct MassScale::Kernel {
  COHORT_AVX2_INLINE static void Mass(const MassScale& s, const float* logits, Integers& mass) {
    Floats narrow;
    std::memcpy(&narrow, logits, sizeof(narrow));
    const Doubles logit = __builtin_convertvector(narrow, Doubles);
    Doubles power = (logit - s.largest_) * s.scale_;
    power = power > kLeastPower ? power : Doubles{} + kLeastPower;
    const Doubles shifted = power + kRoundSigned;
    const Doubles rest = power - (shifted - kRoundSigned);
    // In pairs, not term after term: the machine computes what does not wait for each other at
    // once.
    const Doubles rest2 = rest * rest;
    const Doubles rest4 = rest2 * rest2;
    Doubles pairs[5];
#pragma GCC unroll 5
    for (size_t i = 0; i < 5; ++i) {
      pairs[i] = rest * kTerms[2 * i + 1] + kTerms[2 * i];
    }
    const Doubles value =
        (pairs[0] + pairs[1] * rest2) + ((pairs[2] + pairs[3] * rest2) + pairs[4] * rest4) * rest4;
    // 2^(power + 44) by its exponent's bits; what the shift drops is kRoundSigned's.
    const Doubles factor = reinterpret_cast<Doubles>(
        (reinterpret_cast<Integers>(shifted) + (int64_t{1023} + 44)) << 52);
    const Doubles rounded = value * factor + kRound;
    mass = reinterpret_cast<Integers>(rounded) - reinterpret_cast<Integers>(Doubles{} + kRound);
    mass = logit == s.largest_ ? Integers{} + static_cast<int64_t>(kMassOfLargest) : mass;
    mass &= logit >= s.lowest_;
  }
};

struct MassScale::SumKernel : Kernel {
  COHORT_AVX2_INLINE static void Run(const MassScale& s, absl::Span<const float> logits,
                                     uint64_t& sum) {
    Integers sums[2] = {};
    Integers mass;
    size_t i = 0;
    for (; i + 2 * kWidth <= logits.size(); i += 2 * kWidth) {
      Mass(s, logits.data() + i, mass);
      sums[0] += mass;
      Mass(s, logits.data() + i + kWidth, mass);
      sums[1] += mass;
    }
    for (; i < logits.size(); i += kWidth) {
      float tail[kWidth];
      std::fill(tail, tail + kWidth, -std::numeric_limits<float>::infinity());
      std::copy(logits.begin() + i, logits.begin() + std::min(i + kWidth, logits.size()), tail);
      Mass(s, tail, mass);
      sums[0] += mass;
    }
    const Integers both = sums[0] + sums[1];
    sum = static_cast<uint64_t>(both[0] + both[1] + both[2] + both[3]);
  }
};

struct MassScale::MassesKernel : Kernel {
  COHORT_AVX2_INLINE static void Run(const MassScale& s, absl::Span<const float> logits,
                                     uint64_t* masses) {
    for (size_t i = 0; i < logits.size(); i += kWidth) {
      const size_t count = std::min(static_cast<size_t>(kWidth), logits.size() - i);
      float padded[kWidth] = {};
      std::copy(logits.begin() + i, logits.begin() + i + count, padded);
      Integers mass;
      Mass(s, padded, mass);
      std::memcpy(masses + i, &mass, count * sizeof(uint64_t));
    }
  }
};

MassScale::MassScale(float largest, float temperature, float lowest)
    : largest_(double{largest}), lowest_(double{lowest}), scale_(M_LOG2E / double{temperature}) {}

void MassScale::Masses(absl::Span<const float> logits, uint64_t* masses) const {
  avx2::Run<MassesKernel>(*this, logits, masses);
}

uint64_t MassScale::Sum(absl::Span<const float> logits) const {
  uint64_t sum = 0;
  avx2::Run<SumKernel>(*this, logits, sum);
  return sum;
}

int64_t MassScale::Pick(absl::Span<const float> logits, uint64_t wanted) const {
  constexpr size_t kStretch = 1024;
  std::array<uint64_t, kStretch> masses;
  for (size_t begin = 0; begin < logits.size(); begin += kStretch) {
    const absl::Span<const float> stretch = logits.subspan(begin, kStretch);
    const uint64_t sum = Sum(stretch);
    if (sum <= wanted) {
      wanted -= sum;
      continue;
    }
    Masses(stretch, masses.data());
    size_t i = 0;
    for (; masses[i] <= wanted; ++i) {
      wanted -= masses[i];
    }
    return static_cast<int64_t>(begin + i);
  }
  CHECK(false) << "the masses end " << wanted << " before what was wanted";
  return kWidth;
}

}  // namespace cohort
