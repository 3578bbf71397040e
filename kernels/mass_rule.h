// Probability masses as integers: exp((logit - largest) / temperature) * 2^44, rounded. Sums of
// integers do not depend on their order, so every cut of the vocabulary over ranks and threads
// gives the same bits. What rounds to 0 is below 2^-44 of the likeliest id.
//
// The same bits on every machine: sums, products and quotients of doubles, each rounded by itself,
// and no function of a mathematical library. So what includes this is never compiled for fused
// multiply-add, which rounds a product and a sum once (avx2_dispatch.h; --fmad=false of nvcc).
#ifndef COHORT_KERNELS_MASS_RULE_H_
#define COHORT_KERNELS_MASS_RULE_H_

#include <cstdint>

namespace cohort {

inline constexpr uint64_t kMassOfLargest = uint64_t{1} << 44;

// Each mass lies within this fraction of the true one, beside the rounding to an integer.
inline constexpr double kMassError = 0x1p-36;

// What turns the logits of a row into masses.
struct MassRule {
  // `largest` may be infinite and has then the mass of 1 alone. Logits below `lowest` have none.
  constexpr MassRule(float largest_logit, float temperature, float lowest_logit)
      : largest(double{largest_logit}),
        lowest(double{lowest_logit}),
        scale(1.4426950408889634 / double{temperature}) {}

  double largest;
  double lowest;
  double scale;  // logarithms of two per logit
};

// out = 2^(power + exponent) within 2^-37 of itself, where power is -64 at least and the sum is an
// exponent of doubles. Of double and int64_t, or of vectors of them, which may not be passed by
// value where the caller was compiled for another instruction set.
template <class Integers, class Doubles>
[[gnu::always_inline]] constexpr void PowerOfTwo(const Doubles& power, int64_t exponent,
                                                 Doubles& out) {
  // Adding this leaves an integer in the low bits of the sum.
  constexpr double kRoundSigned = 0x1.8p52;
  const Doubles shifted = power + kRoundSigned;
  const Doubles rest = power - (shifted - kRoundSigned);
  // ln(2)^k / k!: the powers of two around 0, in [-0.5, 0.5]. In pairs, not term after term: the
  // machine computes what does not wait for each other at once.
  const Doubles rest2 = rest * rest;
  const Doubles rest4 = rest2 * rest2;
  const Doubles pair0 = rest * 0.6931471805599453 + 1.0;
  const Doubles pair1 = rest * 0.05550410866482158 + 0.24022650695910072;
  const Doubles pair2 = rest * 0.0013333558146428443 + 0.009618129107628477;
  const Doubles pair3 = rest * 1.5252733804059838e-05 + 0.00015403530393381608;
  const Doubles pair4 = rest * 1.0178086009239699e-07 + 1.3215486790144307e-06;
  const Doubles value = (pair0 + pair1 * rest2) + ((pair2 + pair3 * rest2) + pair4 * rest4) * rest4;
  // A power of two by its exponent's bits; what the shift drops is kRoundSigned's.
  const Integers bits = (__builtin_bit_cast(Integers, shifted) + (int64_t{1023} + exponent)) << 52;
  out = value * __builtin_bit_cast(Doubles, bits);
}

// Powers of two below this round to no mass at all.
inline constexpr double kLeastPower = -64;

// The mass of a logit that is not NaN.
template <class Integers, class Doubles>
[[gnu::always_inline]] constexpr void MassOf(const MassRule& rule, const Doubles& logit,
                                             Integers& mass) {
  Doubles power = (logit - rule.largest) * rule.scale;
  power = power > kLeastPower ? power : Doubles{} + kLeastPower;
  constexpr double kRound = 0x1p52;
  Doubles rounded = {};
  PowerOfTwo<Integers>(power, 44, rounded);
  rounded = rounded + kRound;
  mass = __builtin_bit_cast(Integers, rounded) - __builtin_bit_cast(Integers, Doubles{} + kRound);
  mass = logit == rule.largest ? Integers{} + static_cast<int64_t>(kMassOfLargest) : mass;
  mass = logit >= rule.lowest ? mass : Integers{};
}

constexpr uint64_t MassOfLogit(const MassRule& rule, float logit) {
  int64_t mass = 0;
  MassOf(rule, double{logit}, mass);
  return static_cast<uint64_t>(mass);
}

// floor(mass * uniform / 2^24); uniform below 2^24.
constexpr uint64_t PartOfMass(uint64_t mass, uint32_t uniform) {
  return (mass >> 24) * uniform + (((mass & 0xffffff) * uniform) >> 24);
}

// The least integer that is not below `value`, which lies in [0, 2^64).
constexpr uint64_t RoundedUp(double value) {
  const uint64_t whole = static_cast<uint64_t>(value);
  return static_cast<double>(whole) < value ? whole + 1 : whole;
}

// Natural logarithm of a positive normal number, within some units of the last place; of 1 exactly
// 0.
constexpr double Logarithm(double x) {
  // x = 2^exponent * mantissa, the mantissa from sqrt(1/2) on.
  constexpr int64_t kBitsOfRoot = 0x3fe6a09e667f3bcd;
  const int64_t bits = __builtin_bit_cast(int64_t, x);
  const int64_t exponent = (bits - kBitsOfRoot) >> 52;
  const double mantissa = __builtin_bit_cast(double, bits - (exponent << 52));
  // 2 artanh(s), s within 0.172: terms beyond the tenth are below the last place.
  const double s = (mantissa - 1.0) / (mantissa + 1.0);
  const double s2 = s * s;
  double sum = 1.0 / 21;
  for (int k = 19; k >= 1; k -= 2) {
    sum = sum * s2 + 1.0 / k;
  }
  return static_cast<double>(exponent) * 0.6931471805599453 + 2.0 * s * sum;
}

}  // namespace cohort

#endif  // COHORT_KERNELS_MASS_RULE_H_
