// MatMul: dot products along the columns, in tiles of a few features by a few tokens. Lane l of a
// sum takes the columns l, l + width, ... one after the other, and the lanes are added in one
// order: that order is the same in every tile, so a tile's size never shows in the result.
//
// No include guard: compiled once per instruction set, in its namespace.

constexpr int kTokens = 4;  // of a tile
// Features of a tile. More of them read fewer bytes per product, which counts where operands come
// from the second-level cache; the fewer sums of a narrow tile are reduced faster, which counts
// where rows are short.
constexpr int kWideFeatures = COHORT_BODY_WIDE_FEATURES;
constexpr int kNarrowFeatures = COHORT_BODY_NARROW_FEATURES;
constexpr int64_t kShortRowBytes = 4096;

// Up to this many bytes of tokens the weights pass by once, and the tokens stay in the second-level
// cache; beyond it a panel of weights stays there while all tokens pass by.
constexpr int64_t kStreamedBytes = 640 << 10;
constexpr int64_t kPanelBytes = 512 << 10;
constexpr int64_t kLineBytes = 64;

// One step of columns: sums[c * kRows + r] += weight row r * row c of x.
template <class T, int kRows, int kColumns>
COHORT_CPU_INLINE void AddProducts(const T* weight, int64_t weight_stride,
                                   const typename Product<T>::X* x, int64_t x_stride,
                                   Floats (&sums)[kRows * kColumns]) {
  typename Product<T>::Operand rows[kRows];
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) {
    rows[r] = Product<T>::Weight(weight + r * weight_stride);
  }
#pragma GCC unroll 8
  for (int c = 0; c < kColumns; ++c) {
    const typename Product<T>::Operand value = Product<T>::Value(x + c * x_stride);
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
      Product<T>::Add(sums[c * kRows + r], rows[r], value);
    }
  }
}

// kRows weight rows by kColumns rows of x. With every step it fetches kFetchedLines cache lines
// from `next` on.
template <class T, int kRows, int kColumns, int kFetchedLines>
COHORT_CPU_INLINE void MultiplyTile(const MatMulOperands& m, int64_t feature, int64_t token,
                                    const char* next, Floats (&sums)[kRows * kColumns]) {
  using P = Product<T>;
  const T* weight = static_cast<const T*>(m.weight) + feature * m.weight_stride;
  const auto* x = static_cast<const typename P::X*>(m.x) + token * m.x_stride;
  int64_t k = 0;
  for (; k + P::kStep <= m.columns; k += P::kStep) {
#pragma GCC unroll 8
    for (int line = 0; line < kFetchedLines; ++line) {
      __builtin_prefetch(next + line * kLineBytes, /*rw=*/0, /*locality=*/2);
    }
    next += kFetchedLines * kLineBytes;
    AddProducts<T, kRows, kColumns>(weight + k, m.weight_stride, x + k, m.x_stride, sums);
  }
  if (k < m.columns) {
    T tail[kRows * P::kStep] = {};
    for (int r = 0; r < kRows; ++r) {
      std::memcpy(static_cast<void*>(tail + r * P::kStep), weight + r * m.weight_stride + k,
                  static_cast<size_t>(m.columns - k) * sizeof(T));
    }
    AddProducts<T, kRows, kColumns>(tail, P::kStep, x + k, m.x_stride, sums);
  }
}

// Adds the lanes and the bias, rounds and stores.
template <class T, class Out, int kRows, int kColumns>
COHORT_CPU_INLINE void StoreTile(const MatMulOperands& m, int64_t feature, int64_t token,
                                 Floats (&sums)[kRows * kColumns]) {
  constexpr int kCount = kRows * kColumns;
  constexpr int kVectors = (kCount + kWidth - 1) / kWidth;
  alignas(64) float bias[kVectors * kWidth] = {};
  if (m.bias != nullptr) {
    for (int i = 0; i < kCount; ++i) {
      bias[i] = ToFloat(static_cast<const T*>(m.bias)[feature + i % kRows]);
    }
  }
  alignas(64) Out results[kVectors * kWidth];
#pragma GCC unroll 4
  for (int v = 0; v < kVectors; ++v) {
    constexpr int kLast = kCount - (kVectors - 1) * kWidth;
    Floats* const group = sums + v * kWidth;
    const Floats total = v + 1 < kVectors ? SumEach<kWidth>(group) : SumEach<kLast>(group);
    Store(total + Load(bias + v * kWidth), results + v * kWidth);
  }
  Out* out = static_cast<Out*>(m.out) + token * m.out_stride + feature;
#pragma GCC unroll 8
  for (int c = 0; c < kColumns; ++c) {
    std::memcpy(static_cast<void*>(out + c * m.out_stride), results + c * kRows,
                kRows * sizeof(Out));
  }
}

template <class T, class Out, int kRows, int kColumns, int kFetchedLines = 0>
COHORT_CPU_INLINE void ComputeTile(const MatMulOperands& m, int64_t feature, int64_t token,
                                   const char* next = nullptr) {
  Floats sums[kRows * kColumns] = {};
  MultiplyTile<T, kRows, kColumns, kFetchedLines>(m, feature, token, next, sums);
  StoreTile<T, Out, kRows, kColumns>(m, feature, token, sums);
}

// The tokens that whole tiles leave, from `token` on.
template <class T, class Out, int kRows, int kFetchedLines = 0, int kColumns = kTokens - 1>
COHORT_CPU_INLINE void ComputeLastTokens(const MatMulOperands& m, int64_t feature, int64_t token,
                                         const char* next = nullptr) {
  if constexpr (kColumns > 0) {
    if (m.tokens - token == kColumns) {
      ComputeTile<T, Out, kRows, kColumns, kFetchedLines>(m, feature, token, next);
    } else {
      ComputeLastTokens<T, Out, kRows, kFetchedLines, kColumns - 1>(m, feature, token, next);
    }
  }
}

// kRows features of all tokens. Meanwhile the features behind them come from memory, spread evenly
// over the tiles: kFetchedLines per step of the first tiles, until all are fetched.
template <class T, class Out, int kRows, int kFetchedLines>
void StreamFeatures(const MatMulOperands& m, int64_t feature) {
  constexpr int64_t kStepBytes = Product<T>::kStep * static_cast<int64_t>(sizeof(T));
  const char* next = static_cast<const char*>(m.weight) +
                     (feature + kRows) * m.weight_stride * static_cast<int64_t>(sizeof(T));
  const char* const end = next + kRows * m.weight_stride * static_cast<int64_t>(sizeof(T));
  const int64_t tile_bytes = m.columns / Product<T>::kStep * kFetchedLines * kLineBytes;
  static_assert(kStepBytes <= kLineBytes);
  int64_t token = 0;
  for (; token + kTokens <= m.tokens; token += kTokens) {
    if (next < end) {
      ComputeTile<T, Out, kRows, kTokens, kFetchedLines>(m, feature, token, next);
    } else {
      ComputeTile<T, Out, kRows, kTokens>(m, feature, token);
    }
    next += tile_bytes;
  }
  ComputeLastTokens<T, Out, kRows, kFetchedLines>(m, feature, token, next);
}

template <class T, class Out, int kRows, int kFetchedLines>
int64_t StreamTiles(const MatMulOperands& m, int64_t begin, int64_t end) {
  int64_t feature = begin;
  for (; feature + kRows <= end; feature += kRows) {
    StreamFeatures<T, Out, kRows, kFetchedLines>(m, feature);
  }
  return feature;
}

// kTiles: at least that many tiles of tokens share the fetching.
template <class T, class Out, int kTiles>
void StreamAll(const MatMulOperands& m, int64_t begin, int64_t end) {
  constexpr auto lines = [](int rows) { return (rows + kTiles - 1) / kTiles; };
  begin = StreamTiles<T, Out, kWideFeatures, lines(kWideFeatures)>(m, begin, end);
  begin = StreamTiles<T, Out, kNarrowFeatures, lines(kNarrowFeatures)>(m, begin, end);
  StreamTiles<T, Out, 1, 1>(m, begin, end);
}

// One token: one row after the other is a stream that the hardware fetches ahead by itself; several
// rows at a time are not, and are fetched here.
template <class T, class Out>
void MultiplyStreamed(const MatMulOperands& m, int64_t begin, int64_t end) {
  if (m.tokens == 1) {
    StreamTiles<T, Out, 1, 0>(m, begin, end);
  } else if (m.tokens <= kTokens) {
    StreamAll<T, Out, 1>(m, begin, end);
  } else if (m.tokens < 3 * kTokens) {
    StreamAll<T, Out, 2>(m, begin, end);
  } else if (m.tokens < 6 * kTokens) {
    StreamAll<T, Out, 3>(m, begin, end);
  } else {
    StreamAll<T, Out, 6>(m, begin, end);
  }
}

// Whole tiles of kRows features, of all tokens; what they leave.
template <class T, class Out, int kRows>
int64_t MultiplyTiles(const MatMulOperands& m, int64_t begin, int64_t end) {
  const int64_t whole = begin + (end - begin) / kRows * kRows;
  int64_t token = 0;
  for (; token + kTokens <= m.tokens; token += kTokens) {
    for (int64_t feature = begin; feature < whole; feature += kRows) {
      ComputeTile<T, Out, kRows, kTokens>(m, feature, token);
    }
  }
  for (int64_t feature = begin; feature < whole; feature += kRows) {
    ComputeLastTokens<T, Out, kRows>(m, feature, token);
  }
  return whole;
}

template <class T, class Out>
void Multiply(const MatMulOperands& m, int64_t begin, int64_t end) {
  const int64_t row_bytes = std::max<int64_t>(1, m.columns) * static_cast<int64_t>(sizeof(T));
  if (m.tokens * row_bytes <= kStreamedBytes) {
    MultiplyStreamed<T, Out>(m, begin, end);
    return;
  }
  const bool has_short_rows = row_bytes <= kShortRowBytes;
  const int64_t step = has_short_rows ? kNarrowFeatures : kWideFeatures;
  const int64_t panel = std::max<int64_t>(1, kPanelBytes / row_bytes / step) * step;
  while (begin < end) {
    const int64_t panel_end = std::min(end, begin + panel);
    if (!has_short_rows) {
      begin = MultiplyTiles<T, Out, kWideFeatures>(m, begin, panel_end);
    }
    begin = MultiplyTiles<T, Out, kNarrowFeatures>(m, begin, panel_end);
    begin = MultiplyTiles<T, Out, 1>(m, begin, panel_end);
  }
}
