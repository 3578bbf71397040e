// Vectors of kWidth floats in the manner of GCC and Clang. No include guard: compiled once per
// instruction set, in its namespace.

constexpr int kWidth = COHORT_BODY_WIDTH;

typedef float Floats __attribute__((vector_size(kWidth * sizeof(float))));
typedef uint32_t Words __attribute__((vector_size(kWidth * sizeof(uint32_t))));
typedef int32_t Integers __attribute__((vector_size(kWidth * sizeof(int32_t))));
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

// `value` as it reads back after being stored as T.
template <class T>
COHORT_CPU_INLINE Floats RoundedAs(Floats value) {
  if constexpr (sizeof(T) == sizeof(float)) {
    return value;
  } else {
    return reinterpret_cast<Floats>(RoundedToBFloat16(value) << 16);
  }
}

// kWidth elements in memory, or the fewer that a row ends with.
struct WholeVector {
  template <class T>
  COHORT_CPU_INLINE Floats Load(const T* from) const {
    return COHORT_BODY_NAMESPACE::Load(from);
  }
  template <class T>
  COHORT_CPU_INLINE void Store(Floats value, T* to) const {
    COHORT_BODY_NAMESPACE::Store(value, to);
  }
};

struct PartialVector {
  int64_t count = 0;

  template <class T>
  COHORT_CPU_INLINE Floats Load(const T* from) const {
    T padded[kWidth] = {};
    std::memcpy(static_cast<void*>(padded), from, static_cast<size_t>(count) * sizeof(T));
    return COHORT_BODY_NAMESPACE::Load(padded);
  }
  template <class T>
  COHORT_CPU_INLINE void Store(Floats value, T* to) const {
    T padded[kWidth];
    COHORT_BODY_NAMESPACE::Store(value, padded);
    std::memcpy(static_cast<void*>(to), padded, static_cast<size_t>(count) * sizeof(T));
  }
};

// Calls body(k, vector) for every kWidth columns from k on.
template <class Body>
COHORT_CPU_INLINE void ForEachVector(int64_t columns, Body body) {
  int64_t k = 0;
  for (; k + kWidth <= columns; k += kWidth) {
    body(k, WholeVector());
  }
  if (k < columns) {
    body(k, PartialVector{columns - k});
  }
}

// Within two units of the last place; 0 and infinity beyond the range of fp32, NaN stays NaN.
COHORT_CPU_INLINE Floats Exp(Floats x) {
  constexpr float kLog2E = 1.44269504f;
  constexpr float kLn2High = 0.693359375f;
  constexpr float kLn2Low = -2.12194440e-4f;
  constexpr float kRoundToInteger = 0x1.8p23f;
  constexpr float kRange = 104;  // exp(-kRange) is 0, exp(kRange) infinite
  x = x < -kRange ? Broadcast(-kRange) : x;
  x = x > kRange ? Broadcast(kRange) : x;
  const Floats power = (x * kLog2E + kRoundToInteger) - kRoundToInteger;
  const Floats r = (x - power * kLn2High) - power * kLn2Low;
  Floats series = Broadcast(1.9875691500e-4f);
  for (const float coefficient :
       {1.3981999507e-3f, 8.3334519073e-3f, 4.1665795894e-2f, 1.6666665459e-1f, 5.0000001201e-1f}) {
    series = series * r + coefficient;
  }
  const Floats fraction = series * (r * r) + r + 1.0f;
  // 2^power in two factors, each of which fp32 can hold.
  const Integers whole = __builtin_convertvector(power, Integers);
  const Integers half = whole >> 1;
  const Floats first = reinterpret_cast<Floats>((half + 127) << 23);
  const Floats second = reinterpret_cast<Floats>((whole - half + 127) << 23);
  return fraction * first * second;
}

template <int kDistance, int... kLane>
COHORT_CPU_INLINE void ExchangeLanes(Words& a, Words& b, std::integer_sequence<int, kLane...>) {
  const Words first = __builtin_shufflevector(
      a, b, ((kLane & kDistance) != 0 ? kWidth + kLane - kDistance : kLane)...);
  b = __builtin_shufflevector(a, b,
                              ((kLane & kDistance) != 0 ? kWidth + kLane : kLane + kDistance)...);
  a = first;
}

// Lane j of row i and lane i of row j change places: each step swaps one bit of the row's number
// with the same bit of the lane's.
template <int kDistance = kWidth / 2>
COHORT_CPU_INLINE void Transpose(Words (&rows)[kWidth]) {
#pragma GCC unroll 16
  for (int i = 0; i < kWidth; ++i) {
    if ((i & kDistance) == 0) {
      ExchangeLanes<kDistance>(rows[i], rows[i + kDistance],
                               std::make_integer_sequence<int, kWidth>());
    }
  }
  if constexpr (kDistance > 1) {
    Transpose<kDistance / 2>(rows);
  }
}
