// Random weights: every element is a pure function of its tensor and its place there, so that any
// part of a tensor can be made anywhere. Plain constexpr code, for kernels of CUDA too.
#ifndef COHORT_KERNELS_RANDOM_FILL_H_
#define COHORT_KERNELS_RANDOM_FILL_H_

#include <cstdint>

namespace cohort {

// A part of a stored matrix, [stored rows, stored_columns], that begins at a row and a column.
struct RandomFill {
  uint64_t key = 0;  // of the tensor
  int64_t stored_columns = 1;
  int64_t first_row = 0;
  int64_t first_column = 0;
  float center = 0;  // numbers are uniform in center +- width / 2; one of the two is 0
  float width = 0;
};

// The finaliser of SplitMix64 over a counter.
constexpr uint64_t MixBits(uint64_t value) {
  value = (value ^ (value >> 30)) * 0xbf58476d1ce4e5b9u;
  value = (value ^ (value >> 27)) * 0x94d049bb133111ebu;
  return value ^ (value >> 31);
}

// Element [row, column] of the part, before it is rounded to its type.
constexpr float RandomFillAt(const RandomFill& fill, int64_t row, int64_t column) {
  if (fill.width == 0) {
    return fill.center;
  }
  const uint64_t index = static_cast<uint64_t>((fill.first_row + row) * fill.stored_columns +
                                               fill.first_column + column);
  const uint64_t bits = MixBits(fill.key + index * 0x9e3779b97f4a7c15u);
  const float unit = static_cast<float>(bits >> 40) * 0x1p-24f;
  return (unit - 0.5f) * fill.width;
}

}  // namespace cohort

#endif  // COHORT_KERNELS_RANDOM_FILL_H_
