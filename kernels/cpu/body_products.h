// Products of a weight row and a row of x, for any instruction set.
//
// No include guard: compiled once per instruction set, in its namespace.

// How kStep columns of a weight row and a row of x are multiplied.
template <class T>
struct Product {
  using X = float;
  using Operand = Floats;
  static constexpr int kStep = kWidth;
  COHORT_CPU_INLINE static Operand Weight(const T* from) { return Load(from); }
  COHORT_CPU_INLINE static Operand Value(const X* from) { return Load(from); }
  // The same columns in every lane: one of them here.
  static constexpr int kColumnsPerLane = 1;
  COHORT_CPU_INLINE static Operand Repeat(const X* from) { return Broadcast(*from); }
  COHORT_CPU_INLINE static void Add(Floats& sum, Operand a, Operand b) { sum += a * b; }
};
