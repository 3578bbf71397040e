// Products where the instruction set multiplies pairs of bf16.
//
// No include guard: compiled once per instruction set, in its namespace.
#include "kernels/cpu/body_products.h"

// Pairs of columns are multiplied at once and added in fp32; the instruction takes subnormal
// numbers for zeros.
template <>
struct Product<BFloat16> {
  using X = BFloat16;
  using Operand = __m512bh;
  static constexpr int kStep = 2 * kWidth;
  COHORT_CPU_INLINE static Operand Weight(const BFloat16* from) {
    return reinterpret_cast<Operand>(_mm512_loadu_si512(from));
  }
  COHORT_CPU_INLINE static Operand Value(const BFloat16* from) { return Weight(from); }
  static constexpr int kColumnsPerLane = 2;
  COHORT_CPU_INLINE static Operand Repeat(const BFloat16* from) {
    int32_t pair;
    std::memcpy(&pair, from, sizeof(pair));
    return reinterpret_cast<Operand>(_mm512_set1_epi32(pair));
  }
  COHORT_CPU_INLINE static void Add(Floats& sum, Operand a, Operand b) {
    sum = reinterpret_cast<Floats>(_mm512_dpbf16_ps(reinterpret_cast<__m512>(sum), a, b));
  }
};
