// Arithmetic under its CUDA names, rounded as IEEE says; the hardware's approximations (__expf and
// the like) are as exact as the host's library.
#ifndef COHORT_TESTS_CUDA_EMULATOR_MATH_H_
#define COHORT_TESTS_CUDA_EMULATOR_MATH_H_

#include <math.h>

#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <type_traits>

#include "cuda_emulator/thread.h"

template <class A, class B>
constexpr std::common_type_t<A, B> min(A a, B b) {
  using T = std::common_type_t<A, B>;
  return static_cast<T>(b) < static_cast<T>(a) ? static_cast<T>(b) : static_cast<T>(a);
}
template <class A, class B>
constexpr std::common_type_t<A, B> max(A a, B b) {
  using T = std::common_type_t<A, B>;
  return static_cast<T>(a) < static_cast<T>(b) ? static_cast<T>(b) : static_cast<T>(a);
}

inline float __expf(float x) { return expf(x); }
inline float __exp10f(float x) { return powf(10.0f, x); }
inline float __logf(float x) { return logf(x); }
inline float __log2f(float x) { return log2f(x); }
inline float __sinf(float x) { return sinf(x); }
inline float __cosf(float x) { return cosf(x); }
inline float __powf(float x, float y) { return powf(x, y); }
inline float __fdividef(float x, float y) { return x / y; }
inline float rsqrtf(float x) { return 1.0f / sqrtf(x); }
inline double rsqrt(double x) { return 1.0 / sqrt(x); }
inline float __saturatef(float x) { return x > 0.0f ? (x < 1.0f ? x : 1.0f) : 0.0f; }
inline float __fadd_rn(float x, float y) { return x + y; }
inline float __fsub_rn(float x, float y) { return x - y; }
inline float __fmul_rn(float x, float y) { return x * y; }
inline float __fmaf_rn(float x, float y, float z) { return fmaf(x, y, z); }
inline float __fdiv_rn(float x, float y) { return x / y; }
inline float __frcp_rn(float x) { return 1.0f / x; }
inline float __fsqrt_rn(float x) { return sqrtf(x); }
inline float __frsqrt_rn(float x) { return rsqrtf(x); }
inline double __dadd_rn(double x, double y) { return x + y; }
inline double __dsub_rn(double x, double y) { return x - y; }
inline double __dmul_rn(double x, double y) { return x * y; }
inline double __ddiv_rn(double x, double y) { return x / y; }
inline double __fma_rn(double x, double y, double z) { return fma(x, y, z); }

inline unsigned __float_as_uint(float x) { return std::bit_cast<unsigned>(x); }
inline int __float_as_int(float x) { return std::bit_cast<int>(x); }
inline float __uint_as_float(unsigned x) { return std::bit_cast<float>(x); }
inline float __int_as_float(int x) { return std::bit_cast<float>(x); }
inline long long __double_as_longlong(double x) { return std::bit_cast<long long>(x); }
inline double __longlong_as_double(long long x) { return std::bit_cast<double>(x); }

namespace cuda_emulator {

// CUDA's conversions saturate and take NaN to 0.
template <class To>
To Saturated(double rounded) {
  if (std::isnan(rounded)) {
    return 0;
  }
  if (rounded <= static_cast<double>(std::numeric_limits<To>::min())) {
    return std::numeric_limits<To>::min();
  }
  return rounded >= static_cast<double>(std::numeric_limits<To>::max())
             ? std::numeric_limits<To>::max()
             : static_cast<To>(rounded);
}

}  // namespace cuda_emulator

inline int __float2int_rn(float x) { return cuda_emulator::Saturated<int>(nearbyint(x)); }
inline int __float2int_rz(float x) { return cuda_emulator::Saturated<int>(trunc(x)); }
inline int __float2int_rd(float x) { return cuda_emulator::Saturated<int>(floor(x)); }
inline int __float2int_ru(float x) { return cuda_emulator::Saturated<int>(ceil(x)); }
inline unsigned __float2uint_rn(float x) {
  return cuda_emulator::Saturated<unsigned>(nearbyint(x));
}
inline unsigned __float2uint_rz(float x) { return cuda_emulator::Saturated<unsigned>(trunc(x)); }
inline unsigned long long __float2ull_rn(float x) {
  return cuda_emulator::Saturated<unsigned long long>(nearbyint(x));
}
inline unsigned long long __double2ull_rn(double x) {
  return cuda_emulator::Saturated<unsigned long long>(nearbyint(x));
}
inline unsigned long long __double2ull_rz(double x) {
  return cuda_emulator::Saturated<unsigned long long>(trunc(x));
}
inline unsigned long long __double2ull_ru(double x) {
  return cuda_emulator::Saturated<unsigned long long>(ceil(x));
}
inline long long __double2ll_rn(double x) {
  return cuda_emulator::Saturated<long long>(nearbyint(x));
}
inline int __double2int_rn(double x) { return cuda_emulator::Saturated<int>(nearbyint(x)); }
inline float __double2float_rn(double x) { return static_cast<float>(x); }
inline float __int2float_rn(int x) { return static_cast<float>(x); }
inline float __uint2float_rn(unsigned x) { return static_cast<float>(x); }
inline float __ull2float_rn(unsigned long long x) { return static_cast<float>(x); }
inline double __ull2double_rn(unsigned long long x) { return static_cast<double>(x); }

inline int __popc(unsigned x) { return std::popcount(x); }
inline int __popcll(unsigned long long x) { return std::popcount(x); }
inline int __clz(int x) { return std::countl_zero(static_cast<unsigned>(x)); }
inline int __clzll(long long x) { return std::countl_zero(static_cast<unsigned long long>(x)); }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline int __ffsll(long long x) { return __builtin_ffsll(x); }
inline unsigned __brev(unsigned x) {
  unsigned reversed = 0;
  for (int bit = 0; bit < 32; ++bit) {
    reversed |= (x >> bit & 1u) << (31 - bit);
  }
  return reversed;
}
inline unsigned __umulhi(unsigned x, unsigned y) {
  return static_cast<unsigned>(static_cast<uint64_t>(x) * y >> 32);
}
inline int __mulhi(int x, int y) { return static_cast<int>(static_cast<int64_t>(x) * y >> 32); }
inline unsigned long long __umul64hi(unsigned long long x, unsigned long long y) {
  __extension__ using Wide = unsigned __int128;
  return static_cast<unsigned long long>(static_cast<Wide>(x) * y >> 64);
}
inline unsigned __byte_perm(unsigned x, unsigned y, unsigned selector) {
  const uint64_t bytes = static_cast<uint64_t>(y) << 32 | x;
  unsigned result = 0;
  for (int i = 0; i < 4; ++i) {
    const unsigned select = selector >> (4 * i);
    unsigned byte = static_cast<unsigned>(bytes >> (8 * (select & 7u))) & 0xffu;
    byte = (select & 8u) != 0 ? ((byte & 0x80u) != 0 ? 0xffu : 0u) : byte;
    result |= byte << (8 * i);
  }
  return result;
}
inline unsigned __funnelshift_l(unsigned low, unsigned high, unsigned shift) {
  return static_cast<unsigned>((static_cast<uint64_t>(high) << 32 | low) << (shift & 31u) >> 32);
}
inline unsigned __funnelshift_r(unsigned low, unsigned high, unsigned shift) {
  return static_cast<unsigned>((static_cast<uint64_t>(high) << 32 | low) >> (shift & 31u));
}

// What a waiting thread repeats lets the others run.
inline void __nanosleep(unsigned) { cuda_emulator::Yield(); }
inline long long clock64() {
  cuda_emulator::Yield();
  return static_cast<long long>(cuda_emulator::Nanoseconds());
}
[[noreturn]] inline void __trap() { cuda_emulator::Fail("__trap()"); }

#endif  // COHORT_TESTS_CUDA_EMULATOR_MATH_H_
