#include "kernels/probability_mass.h"

#include <algorithm>
#include <array>
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

}  // namespace

struct MassScale::Kernel {
  COHORT_AVX2_INLINE static void Mass(const MassScale& s, const float* logits, Integers& mass) {
    Floats narrow;
    std::memcpy(&narrow, logits, sizeof(narrow));
    const Doubles logit = __builtin_convertvector(narrow, Doubles);
    MassOf(s.rule_, logit, mass);
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
