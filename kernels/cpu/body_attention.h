// Attention of up to kMaxRows rows, (token, head) pairs that read the same keys and values, each of
// which is read once. Positions pass in tiles: logits of all rows, their weights, the weighted sum.
// A row's logits are summed along the head in one chain, its weighted sum along the positions, and
// tiles begin at multiples of kTilePositions from the beginning of each part: so a row's result
// depends on nothing but the row. One part after the other, with the queries rotated for it, goes
// into the same running softmax.
//
// No include guard: compiled once per instruction set, in its namespace.

constexpr int64_t kTilePositions = 64;
constexpr int kRowBlock = kWidth == 16 ? 4 : 2;  // rows that are computed together
constexpr int kVectorBlock = 4;                  // vectors of positions, or of the head, of a row

template <class T>
struct AttentionState {
  using X = typename Product<T>::X;
  static constexpr int64_t kRows = AttentionOperands::kMaxRows;
  static constexpr int64_t kDim = AttentionOperands::kMaxHeadDim;

  alignas(64) X queries[kRows * kDim];                // [rows, head_dim]
  alignas(64) uint32_t keys[kDim * kTilePositions];   // lanes of X [head_dim, positions]
  alignas(64) float values[kTilePositions * kDim];    // [positions, padded head_dim]
  alignas(64) float weights[kRows * kTilePositions];  // logits, then weights [rows, positions]
  alignas(64) float sums[kRows * kDim];               // [rows, padded head_dim]
  float scale[kRows];
  float maximum[kRows];
  float total[kRows];
  float shrink[kRows];            // of what was summed before this tile
  int64_t seen[kRows];            // positions of this tile that the row sees
  int64_t slots[kTilePositions];  // elements from the head's first slot in block 0
};

template <class T>
COHORT_CPU_INLINE int64_t PaddedDim(const AttentionOperands& a) {
  return (a.head_dim + kWidth - 1) / kWidth * kWidth;
}

template <class T>
void LoadQueries(const AttentionOperands& a, const AttentionPart& part, AttentionState<T>& state) {
  using X = typename AttentionState<T>::X;
  alignas(64) T rotated[AttentionOperands::kMaxHeadDim];
  X* to = state.queries;
  for (int64_t token = 0; token < a.tokens; ++token) {
    const T* row = static_cast<const T*>(a.queries) + token * a.query_stride;
    const int64_t rope_row = std::min(part.first_row + token, part.last_row);
    for (int64_t i = 0; i < a.head_count; ++i) {
      const T* from = row + a.heads[i] * a.head_dim;
      if (a.cosine != nullptr) {
        RotateHead<T>(from, a.cosine + rope_row * a.cosine_stride,
                      a.sine + rope_row * a.sine_stride, a.head_dim / 2, rotated);
        from = rotated;
      }
      for (int64_t k = 0; k < a.head_dim; ++k) {
        *to++ = FromFloat<X>(ToFloat(from[k]));
      }
    }
  }
}

template <class T>
void LoadScales(const AttentionOperands& a, AttentionState<T>& state) {
  for (int64_t row = 0; row < a.tokens * a.head_count; ++row) {
    const float factor = a.logit_factors == nullptr ? 1.0f : a.logit_factors[row / a.head_count];
    state.scale[row] = a.scale * factor;
  }
}

// The keys of kWidth positions from `first` on, transposed. Positions from `count` on are zero.
template <class T>
COHORT_CPU_INLINE void LoadKeys(const AttentionOperands& a, int64_t first, int64_t count,
                                AttentionState<T>& state) {
  constexpr int kPerLane = Product<T>::kColumnsPerLane;
  constexpr int kColumns = kPerLane * kWidth;
  for (int64_t column = 0; column < a.head_dim; column += kColumns) {
    Words rows[kWidth];
    const int64_t columns = std::min<int64_t>(kColumns, a.head_dim - column);
#pragma GCC unroll 16
    for (int i = 0; i < kWidth; ++i) {
      const T* key = static_cast<const T*>(a.keys) + state.slots[first + i] + column;
      T padded[kColumns] = {};
      if (first + i >= count) {
        key = padded;
      } else if (columns < kColumns) {
        std::memcpy(static_cast<void*>(padded), key, static_cast<size_t>(columns) * sizeof(T));
        key = padded;
      }
      if constexpr (kPerLane == 1) {
        rows[i] = reinterpret_cast<Words>(Load(key));
      } else {
        std::memcpy(&rows[i], key, sizeof(rows[i]));
      }
    }
    Transpose(rows);
    uint32_t* to = state.keys + column / kPerLane * kTilePositions + first;
    for (int64_t k = 0; k < columns / kPerLane; ++k) {
      std::memcpy(to + k * kTilePositions, &rows[k], sizeof(rows[k]));
    }
  }
}

template <class T>
COHORT_CPU_INLINE void LoadTile(const AttentionOperands& a, int64_t begin, int64_t count,
                                AttentionState<T>& state) {
  for (int64_t i = 0; i < count; ++i) {
    const int64_t position = begin + i;
    state.slots[i] =
        a.blocks[position / a.block_size] * a.block_stride + position % a.block_size * a.head_dim;
  }
  std::fill(state.slots + count, state.slots + kTilePositions, int64_t{0});
  for (int64_t first = 0; first < count; first += kWidth) {
    LoadKeys(a, first, count, state);
  }
  const int64_t dim = PaddedDim<T>(a);
  for (int64_t i = 0; i < count; ++i) {
    const T* value = static_cast<const T*>(a.values) + state.slots[i];
    float* to = state.values + i * dim;
    ForEachVector(a.head_dim,
                  [&](int64_t k, auto vector) { Store(vector.Load(value + k), to + k); });
  }
}

// Logits of kRows rows with kVectorBlock * kWidth positions from `first` on.
template <class T, int kRows>
COHORT_CPU_INLINE void ComputeLogits(const AttentionOperands& a, int64_t row, int64_t first,
                                     AttentionState<T>& state) {
  using P = Product<T>;
  Floats sums[kRows * kVectorBlock] = {};
  const auto* query = state.queries + row * a.head_dim;
  const uint32_t* keys = state.keys + first;
  for (int64_t k = 0; k < a.head_dim; k += P::kColumnsPerLane) {
    typename P::Operand columns[kVectorBlock];
#pragma GCC unroll 4
    for (int v = 0; v < kVectorBlock; ++v) {
      std::memcpy(&columns[v], keys + v * kWidth, sizeof(columns[v]));
    }
#pragma GCC unroll 4
    for (int r = 0; r < kRows; ++r) {
      const typename P::Operand value = P::Repeat(query + r * a.head_dim + k);
#pragma GCC unroll 4
      for (int v = 0; v < kVectorBlock; ++v) {
        P::Add(sums[r * kVectorBlock + v], columns[v], value);
      }
    }
    keys += kTilePositions;
  }
#pragma GCC unroll 4
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
    for (int v = 0; v < kVectorBlock; ++v) {
      Store(sums[r * kVectorBlock + v] * state.scale[row + r],
            state.weights + (row + r) * kTilePositions + first + v * kWidth);
    }
  }
}

COHORT_CPU_INLINE Floats LaneNumbers() {
  Floats numbers;
  for (int lane = 0; lane < kWidth; ++lane) {
    numbers[lane] = static_cast<float>(lane);
  }
  return numbers;
}

// Turns the logits of one row into weights relative to the row's largest logit so far.
template <class T>
COHORT_CPU_INLINE void ComputeWeights(int64_t row, bool is_first, AttentionState<T>& state) {
  constexpr float kLowest = -std::numeric_limits<float>::infinity();
  float* const weights = state.weights + row * kTilePositions;
  const int64_t seen = state.seen[row];
  const Floats lanes = LaneNumbers();
  Floats largest = Broadcast(is_first ? kLowest : state.maximum[row]);
  for (int64_t i = 0; i < seen; i += kWidth) {
    const Floats logit = Load(weights + i);
    const auto is_seen = lanes < static_cast<float>(seen - i);
    // Not a number is larger than all: it must reach the result.
    largest = is_seen ? (logit <= largest ? largest : logit) : largest;
  }
  float maximum = largest[0];
  for (int lane = 1; lane < kWidth; ++lane) {
    maximum = largest[lane] <= maximum ? maximum : largest[lane];
  }
  Floats sums[1] = {};
  for (int64_t i = 0; i < seen; i += kWidth) {
    const Floats weight = Exp(Load(weights + i) - maximum);
    const auto is_seen = lanes < static_cast<float>(seen - i);
    const Floats kept = is_seen ? weight : Floats{};
    sums[0] += kept;
    Store(kept, weights + i);
  }
  const float total = SumEach<1>(sums)[0];
  state.shrink[row] = is_first ? 0.0f : Exp(Broadcast(state.maximum[row] - maximum))[0];
  state.total[row] = is_first ? total : state.total[row] * state.shrink[row] + total;
  state.maximum[row] = maximum;
}

// sums[v] += weight of position i * its values, for positions [begin, end).
template <int kRows, int kVectors>
COHORT_CPU_INLINE void AddValues(const float* weights, const float* values, int64_t dim,
                                 int64_t begin, int64_t end, Floats* sums) {
  for (int64_t i = begin; i < end; ++i) {
    Floats value[kVectors];
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) {
      value[v] = Load(values + i * dim + v * kWidth);
    }
#pragma GCC unroll 4
    for (int r = 0; r < kRows; ++r) {
      const Floats weight = Broadcast(weights[r * kTilePositions + i]);
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; ++v) {
        sums[r * kVectors + v] += weight * value[v];
      }
    }
  }
}

// The tile's part of the weighted sums of kRows rows, kVectors vectors of the head from `column`
// on.
template <class T, int kRows, int kVectors>
COHORT_CPU_INLINE void AddTileSums(int64_t row, int64_t column, int64_t dim,
                                   AttentionState<T>& state) {
  const float* weights = state.weights + row * kTilePositions;
  const float* values = state.values + column;
  const int64_t common = *std::min_element(state.seen + row, state.seen + row + kRows);
  Floats sums[kRows * kVectors] = {};
  AddValues<kRows, kVectors>(weights, values, dim, 0, common, sums);
#pragma GCC unroll 4
  for (int r = 0; r < kRows; ++r) {
    AddValues<1, kVectors>(weights + r * kTilePositions, values, dim, common, state.seen[row + r],
                           sums + r * kVectors);
    float* const to = state.sums + (row + r) * dim + column;
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) {
      const Floats before = Load(to + v * kWidth);
      Store(before * state.shrink[row + r] + sums[r * kVectors + v], to + v * kWidth);
    }
  }
}

template <class T, int kRows>
COHORT_CPU_INLINE void AddTileSums(int64_t row, int64_t dim, AttentionState<T>& state) {
  int64_t column = 0;
  for (; column + kVectorBlock * kWidth <= dim; column += kVectorBlock * kWidth) {
    AddTileSums<T, kRows, kVectorBlock>(row, column, dim, state);
  }
  for (; column < dim; column += kWidth) {
    AddTileSums<T, kRows, 1>(row, column, dim, state);
  }
}

// kRows rows against the tile of `count` positions from `begin` on.
template <class T, int kRows>
void AttendRows(const AttentionOperands& a, int64_t row, int64_t begin, int64_t count,
                AttentionState<T>& state) {
  for (int64_t first = 0; first < count; first += kVectorBlock * kWidth) {
    ComputeLogits<T, kRows>(a, row, first, state);
  }
  for (int r = 0; r < kRows; ++r) {
    const int64_t position = a.first_position + (row + r) / a.head_count;
    const int64_t seen = std::clamp<int64_t>(position + 1 - begin, 0, count);
    state.seen[row + r] = seen;
    state.shrink[row + r] = 1;
    if (seen > 0) {
      ComputeWeights(row + r, begin == 0, state);
    }
  }
  AddTileSums<T, kRows>(row, PaddedDim<T>(a), state);
}

template <class T>
void StoreAttended(const AttentionOperands& a, const AttentionState<T>& state) {
  const int64_t dim = PaddedDim<T>(a);
  for (int64_t row = 0; row < a.tokens * a.head_count; ++row) {
    T* to = static_cast<T*>(a.out) + row / a.head_count * a.out_stride +
            a.heads[row % a.head_count] * a.head_dim;
    const float* sums = state.sums + row * dim;
    ForEachVector(a.head_dim, [&](int64_t k, auto vector) {
      vector.Store(Load(sums + k) / state.total[row], to + k);
    });
  }
}

template <class T>
void Attend(const AttentionOperands& a) {
  AttentionState<T> state;
  const int64_t rows = a.tokens * a.head_count;
  LoadScales(a, state);
  std::fill(state.sums, state.sums + rows * PaddedDim<T>(a), 0.0f);
  int64_t begin = 0;
  for (int64_t part = 0; part < a.part_count; ++part) {
    LoadQueries(a, a.parts[part], state);
    for (int64_t count = 0; begin < a.parts[part].end; begin += count) {
      count = std::min(kTilePositions, a.parts[part].end - begin);
      LoadTile(a, begin, count, state);
      int64_t row = 0;
      for (; row + kRowBlock <= rows; row += kRowBlock) {
        AttendRows<T, kRowBlock>(a, row, begin, count, state);
      }
      for (; row < rows; ++row) {
        AttendRows<T, 1>(a, row, begin, count, state);
      }
    }
  }
  StoreAttended(a, state);
}
