// Dot products over fixed lanes: element k of a row always goes to lane k % kLanes, whatever is
// computed beside it, and the lanes are added in one fixed order. Vectors are those of GCC and
// Clang, which lower them to whatever the machine has.
#ifndef COHORT_KERNELS_CPU_LANES_H_
#define COHORT_KERNELS_CPU_LANES_H_

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "kernels/bfloat16.h"

// What a kernel calls must be compiled with it, for its instruction set.
#define COHORT_CPU_INLINE [[gnu::always_inline]] inline

namespace cohort::lanes {

constexpr int kWidth = 8;  // floats of one vector
constexpr int kVectors = 2;
constexpr int kLanes = kWidth * kVectors;

typedef float Floats __attribute__((vector_size(kWidth * sizeof(float))));
typedef uint32_t Words __attribute__((vector_size(kWidth * sizeof(uint32_t))));
typedef uint16_t Halves __attribute__((vector_size(kWidth * sizeof(uint16_t))));

constexpr int64_t PaddedToLanes(int64_t columns) {
  return (columns + kLanes - 1) / kLanes * kLanes;
}

COHORT_CPU_INLINE void Load(const float* from, Floats& to) { std::memcpy(&to, from, sizeof(to)); }

COHORT_CPU_INLINE void Load(const BFloat16* from, Floats& to) {
  Halves bits;
  std::memcpy(&bits, from, sizeof(bits));
  to = reinterpret_cast<Floats>(__builtin_convertvector(bits, Words) << 16);
}

// One step of kLanes columns: sums[j] += row * x[j].
template <int kRows, class T>
COHORT_CPU_INLINE void Accumulate(const T* row, const float* x, int64_t x_stride,
                                  Floats (&sums)[kRows][kVectors]) {
#pragma GCC unroll 2
  for (int v = 0; v < kVectors; ++v) {
    Floats weight;
    Load(row + v * kWidth, weight);
#pragma GCC unroll 4
    for (int j = 0; j < kRows; ++j) {
      Floats value;
      Load(x + j * x_stride + v * kWidth, value);
      sums[j][v] += weight * value;
    }
  }
}

// out[j] = sum over k of row[k] * x[j * x_stride + k]. `row` holds `columns` numbers; the rows of x
// are padded with zeros to PaddedToLanes(columns).
template <int kRows, class T>
COHORT_CPU_INLINE void Dot(const T* row, int64_t columns, const float* x, int64_t x_stride,
                           float (&out)[kRows]) {
  Floats sums[kRows][kVectors] = {};
  int64_t k = 0;
  for (; k + kLanes <= columns; k += kLanes) {
    Accumulate<kRows>(row + k, x + k, x_stride, sums);
  }
  if (k < columns) {
    T tail[kLanes] = {};
    std::copy(row + k, row + columns, tail);
    Accumulate<kRows>(tail, x + k, x_stride, sums);
  }
#pragma GCC unroll 4
  for (int j = 0; j < kRows; ++j) {
    const Floats sum = sums[j][0] + sums[j][1];
    out[j] = ((sum[0] + sum[4]) + (sum[2] + sum[6])) + ((sum[1] + sum[5]) + (sum[3] + sum[7]));
  }
}

// sums[k] += factor * row[k].
template <class T>
COHORT_CPU_INLINE void AddScaled(const T* row, int64_t columns, float factor, float* sums) {
  int64_t k = 0;
  for (; k + kWidth <= columns; k += kWidth) {
    Floats value;
    Floats sum;
    Load(row + k, value);
    Load(sums + k, sum);
    sum += value * factor;
    std::memcpy(sums + k, &sum, sizeof(sum));
  }
  for (; k < columns; ++k) {
    sums[k] += ToFloat(row[k]) * factor;
  }
}

// A kernel is a struct with an inlined static Run(). It is compiled twice: for any x86-64, and for
// those with AVX2 and FMA. One process uses one of the two throughout, so that its results do not
// vary.
inline bool HasAvx2() {
  return __builtin_cpu_supports("avx2") != 0 && __builtin_cpu_supports("fma") != 0;
}

template <class Kernel, class... Args>
void RunBaseline(Args&... args) {
  Kernel::Run(args...);
}

template <class Kernel, class... Args>
__attribute__((target("avx2,fma"))) void RunAvx2(Args&... args) {
  Kernel::Run(args...);
}

template <class Kernel, class... Args>
void Run(bool has_avx2, Args&&... args) {
  if (has_avx2) {
    RunAvx2<Kernel>(args...);
  } else {
    RunBaseline<Kernel>(args...);
  }
}

}  // namespace cohort::lanes

#endif  // COHORT_KERNELS_CPU_LANES_H_
