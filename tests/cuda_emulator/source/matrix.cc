// The matrix instructions of a warp, with the fragments of the PTX manual.
#include <cmath>
#include <cstring>

#include "cuda_emulator/thread.h"

namespace cuda_emulator {
namespace {

float LowHalf(uint32_t pair) {
  const uint32_t bits = pair << 16;
  float value;
  std::memcpy(&value, &bits, sizeof(value));
  return value;
}
float HighHalf(uint32_t pair) { return LowHalf(pair >> 16); }

struct MmaOperand {
  float* d;
  const uint32_t* a;
  const uint32_t* b;
};

// Products of bf16 are exact in fp32; they are summed in fp32 in the order of k, and c last.
void PerformMma(void* const* operands, uint32_t) {
  float a[16][16];
  float b[16][8];
  for (int lane = 0; lane < 32; ++lane) {
    const auto* operand = static_cast<const MmaOperand*>(operands[lane]);
    const int g = lane / 4;
    const int t = lane % 4;
    for (int i = 0; i < 4; ++i) {
      const int row = g + 8 * (i % 2);
      const int column = 2 * t + 8 * (i / 2);
      a[row][column] = LowHalf(operand->a[i]);
      a[row][column + 1] = HighHalf(operand->a[i]);
    }
    for (int i = 0; i < 2; ++i) {
      b[2 * t + 8 * i][g] = LowHalf(operand->b[i]);
      b[2 * t + 8 * i + 1][g] = HighHalf(operand->b[i]);
    }
  }
  float d[16][8] = {};
  for (int row = 0; row < 16; ++row) {
    for (int k = 0; k < 16; ++k) {
      for (int column = 0; column < 8; ++column) {
        d[row][column] += a[row][k] * b[k][column];
      }
    }
  }
  for (int lane = 0; lane < 32; ++lane) {
    float* out = static_cast<const MmaOperand*>(operands[lane])->d;
    const int g = lane / 4;
    const int t = lane % 4;
    for (int i = 0; i < 4; ++i) {
      out[i] += d[g + 8 * (i / 2)][2 * t + i % 2];
    }
  }
}

struct LoadMatrixOperand {
  uint32_t* r;
  const void* row;
  int matrices;
  bool is_transposed;
};

void PerformLoadMatrix(void* const* operands, uint32_t) {
  for (int lane = 0; lane < 32; ++lane) {
    const auto* operand = static_cast<const LoadMatrixOperand*>(operands[lane]);
    for (int m = 0; m < operand->matrices; ++m) {
      uint16_t pair[2];
      for (int i = 0; i < 2; ++i) {
        int row = lane / 4;
        int column = 2 * (lane % 4) + i;
        if (operand->is_transposed) {
          std::swap(row, column);
        }
        const auto* from = static_cast<const LoadMatrixOperand*>(operands[8 * m + row])->row;
        std::memcpy(&pair[i], static_cast<const char*>(from) + 2 * column, sizeof(pair[i]));
      }
      std::memcpy(&operand->r[m], pair, sizeof(pair));
    }
  }
}

struct TransposeOperand {
  uint32_t a;
  uint32_t d;
};

void PerformTranspose(void* const* operands, uint32_t) {
  for (int lane = 0; lane < 32; ++lane) {
    auto* operand = static_cast<TransposeOperand*>(operands[lane]);
    operand->d = 0;
    for (int i = 0; i < 2; ++i) {
      const int row = 2 * (lane % 4) + i;  // of a
      const int column = lane / 4;
      const uint32_t pair = static_cast<const TransposeOperand*>(operands[4 * row + column / 2])->a;
      operand->d |= (pair >> (16 * (column % 2)) & 0xffffu) << (16 * i);
    }
  }
}

const Collective kMma = {"MmaBf16", PerformMma};
const Collective kLoadMatrix = {"LoadMatrix", PerformLoadMatrix};
const Collective kTranspose = {"TransposeMatrix", PerformTranspose};
constexpr uint32_t kAll = 0xffffffffu;

}  // namespace

void MmaBf16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  MmaOperand operand = {d, a, b};
  Meet(kAll, kMma, &operand, "kernels/cuda/ptx.cuh", 0);
}

void LoadMatrix(uint32_t* r, int matrices, bool is_transposed, const void* shared_row) {
  if (reinterpret_cast<uintptr_t>(shared_row) % 16 != 0 &&
      static_cast<int>(current->number % 32) < 8 * matrices) {
    Fail("LoadMatrix of a row at %p, which is not 16-byte aligned", shared_row);
  }
  LoadMatrixOperand operand = {r, shared_row, matrices, is_transposed};
  Meet(kAll, kLoadMatrix, &operand, "kernels/cuda/ptx.cuh", 0);
}

uint32_t TransposeMatrix(uint32_t a) {
  TransposeOperand operand = {a, 0};
  Meet(kAll, kTranspose, &operand, "kernels/cuda/ptx.cuh", 0);
  return operand.d;
}

}  // namespace cuda_emulator
