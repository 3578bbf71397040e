// bfloat16 and IEEE half as storage types. Arithmetic is always done in float.
#ifndef COHORT_KERNELS_BFLOAT16_H_
#define COHORT_KERNELS_BFLOAT16_H_

#include <bit>
#include <cstdint>

namespace cohort {

// The upper half of a float. Conversion from float rounds to nearest, ties to even; a NaN stays
// one.
struct BFloat16 {
  uint16_t bits = 0;

  static BFloat16 FromFloat(float value) {
    const uint32_t word = std::bit_cast<uint32_t>(value);
    if ((word & 0x7fffffffu) > 0x7f800000u) {
      return {static_cast<uint16_t>((word >> 16) | 0x40u)};
    }
    return {static_cast<uint16_t>((word + 0x7fffu + ((word >> 16) & 1u)) >> 16)};
  }
  float ToFloat() const { return std::bit_cast<float>(static_cast<uint32_t>(bits) << 16); }
};

inline float ToFloat(float value) { return value; }
inline float ToFloat(BFloat16 value) { return value.ToFloat(); }

template <class T>
T FromFloat(float value);
template <>
inline float FromFloat<float>(float value) {
  return value;
}
template <>
inline BFloat16 FromFloat<BFloat16>(float value) {
  return BFloat16::FromFloat(value);
}

// `value` as it reads back after being stored as T.
template <class T>
float Rounded(float value) {
  return ToFloat(FromFloat<T>(value));
}

// IEEE binary16 bits to float, exact (subnormals, infinities and NaN included).
inline float HalfToFloat(uint16_t half) {
  const uint32_t sign = static_cast<uint32_t>(half & 0x8000u) << 16;
  const uint32_t exponent = (half >> 10) & 0x1fu;
  const uint32_t mantissa = half & 0x3ffu;
  if (exponent == 0x1fu) {
    return std::bit_cast<float>(sign | 0x7f800000u | (mantissa << 13));
  }
  if (exponent != 0) {
    return std::bit_cast<float>(sign | ((exponent + 112u) << 23) | (mantissa << 13));
  }
  const float magnitude = static_cast<float>(mantissa) * 0x1p-24f;
  return sign != 0 ? -magnitude : magnitude;
}

}  // namespace cohort

#endif  // COHORT_KERNELS_BFLOAT16_H_
