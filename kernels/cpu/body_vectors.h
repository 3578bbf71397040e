// Vectors of kWidth floats in the manner of GCC and Clang. No include guard: compiled once per
// instruction set, in its namespace.

constexpr int kWidth = COHORT_BODY_WIDTH;

typedef float Floats __attribute__((vector_size(kWidth * sizeof(float))));
typedef uint32_t Words __attribute__((vector_size(kWidth * sizeof(uint32_t))));
typedef uint16_t Halves __attribute__((vector_size(kWidth * sizeof(uint16_t))));

COHORT_CPU_INLINE Floats Broadcast(float value) { return Floats{} + value; }

COHORT_CPU_INLINE Floats Load(const float* from) {
  Floats value;
  std::memcpy(&value, from, sizeof(value));
  return value;
}

COHORT_CPU_INLINE Floats Load(const BFloat16* from) {
  Halves bits;
  std::memcpy(&bits, from, sizeof(bits));
  return reinterpret_cast<Floats>(__builtin_convertvector(bits, Words) << 16);
}

COHORT_CPU_INLINE void Store(Floats value, float* to) { std::memcpy(to, &value, sizeof(value)); }

// Rounds as BFloat16::FromFloat does.
COHORT_CPU_INLINE Words RoundedToBFloat16(Floats value) {
  const Words word = reinterpret_cast<Words>(value);
  const auto is_nan = (word & 0x7fffffffu) > 0x7f800000u;
  return (is_nan ? (word | 0x400000u) : (word + 0x7fffu + ((word >> 16) & 1u))) >> 16;
}

COHORT_CPU_INLINE void Store(Floats value, BFloat16* to) {
  const Halves bits = __builtin_convertvector(RoundedToBFloat16(value), Halves);
  std::memcpy(static_cast<void*>(to), &bits, sizeof(bits));
}

// The lower, then the upper halves of blocks of 2 * kHalf lanes, counted through `a` and `b`,
// added: with blocks of 4 lanes, {a0 + a2, a1 + a3, a4 + a6, ..., b0 + b2, ...}.
template <int kHalf, int... kLane>
COHORT_CPU_INLINE Floats AddHalves(Floats a, Floats b, std::integer_sequence<int, kLane...>) {
  return __builtin_shufflevector(a, b, (kLane / kHalf * 2 * kHalf + kLane % kHalf)...) +
         __builtin_shufflevector(a, b, (kLane / kHalf * 2 * kHalf + kLane % kHalf + kHalf)...);
}

// Lane i < kCount becomes the sum of the lanes of sums[i]; the order of the additions (l + l + 8,
// then + 4, ...) is the same for every i and kCount. Overwrites `sums`.
template <int kCount, int kHalf = kWidth / 2>
COHORT_CPU_INLINE Floats SumEach(Floats* sums) {
#pragma GCC unroll 32
  for (int i = 0; 2 * i < kCount; ++i) {
    const Floats& second = sums[2 * i + 1 < kCount ? 2 * i + 1 : 2 * i];
    sums[i] = AddHalves<kHalf>(sums[2 * i], second, std::make_integer_sequence<int, kWidth>());
  }
  if constexpr (kHalf == 1) {
    return sums[0];
  } else {
    return SumEach<(kCount + 1) / 2, kHalf / 2>(sums);
  }
}
