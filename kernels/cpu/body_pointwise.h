// Rows of the pointwise operations. No include guard: compiled once per instruction set, in its
// namespace.

template <class T>
COHORT_CPU_INLINE float SumOfSquares(const T* row, int64_t columns) {
  Floats sums[1] = {};
  ForEachVector(columns, [&](int64_t k, auto vector) {
    const Floats value = vector.Load(row + k);
    sums[0] += value * value;
  });
  return SumEach<1>(sums)[0];
}

template <class T>
void NormaliseRow(const void* x, const void* gamma, int64_t columns, float eps, void* out) {
  const T* from = static_cast<const T*>(x);
  const T* factors = static_cast<const T*>(gamma);
  T* to = static_cast<T*>(out);
  const float mean = SumOfSquares(from, columns) / static_cast<float>(columns);
  const float scale = 1.0f / std::sqrt(mean + eps);
  ForEachVector(columns, [&](int64_t k, auto vector) {
    const Floats normalised = RoundedAs<T>(vector.Load(from + k) * scale);
    vector.Store(normalised * vector.Load(factors + k), to + k);
  });
}

template <class T, class X>
void AddRow(const void* x, int64_t columns, void* residual) {
  const X* from = static_cast<const X*>(x);
  T* to = static_cast<T*>(residual);
  ForEachVector(columns, [&](int64_t k, auto vector) {
    vector.Store(vector.Load(to + k) + RoundedAs<T>(vector.Load(from + k)), to + k);
  });
}

template <class T>
void SiluMultiplyRow(const void* gate, const void* up, int64_t columns, void* out) {
  const T* gates = static_cast<const T*>(gate);
  const T* ups = static_cast<const T*>(up);
  T* to = static_cast<T*>(out);
  ForEachVector(columns, [&](int64_t k, auto vector) {
    const Floats value = vector.Load(gates + k);
    const Floats silu = RoundedAs<T>(value / (1.0f + Exp(-value)));
    vector.Store(silu * vector.Load(ups + k), to + k);
  });
}

template <class T>
void RotateHead(const void* from, const float* cosine, const float* sine, int64_t half, void* to) {
  const T* in = static_cast<const T*>(from);
  T* out = static_cast<T*>(to);
  ForEachVector(half, [&](int64_t i, auto vector) {
    const Floats first = vector.Load(in + i);
    const Floats second = vector.Load(in + i + half);
    const Floats c = vector.Load(cosine + i);
    const Floats s = vector.Load(sine + i);
    vector.Store(RoundedAs<T>(first * c) - RoundedAs<T>(second * s), out + i);
    vector.Store(RoundedAs<T>(second * c) + RoundedAs<T>(first * s), out + i + half);
  });
}
