// The inner loops of the CPU operations as one table of functions per instruction set. They
// compute on plain pointers; ops.h and its sources check, cut the work and run it on threads.
//
// Whatever a table computes for one row does not depend on the rows beside it: every output element
// is summed in one order, which is a property of the table.
#ifndef COHORT_KERNELS_CPU_KERNEL_TABLE_H_
#define COHORT_KERNELS_CPU_KERNEL_TABLE_H_

#include <cstdint>

#include "kernels/cpu/instruction_set.h"
#include "kernels/tensor.h"

namespace cohort {

struct MatMulOperands {
  const void* x = nullptr;  // [tokens, columns] of x_dtype; the columns up to the next multiple of
                            // x_step are readable and zero
  int64_t x_stride = 0;
  int64_t tokens = 0;
  const void* weight = nullptr;  // [features, columns] act
  int64_t weight_stride = 0;
  int64_t columns = 0;
  const void* bias = nullptr;  // [features] act, or null
  void* out = nullptr;         // [tokens, features]
  int64_t out_stride = 0;
};

// Keys that the queries of one attention item see with one rotation. Token i of the item is rotated
// by row min(first_row + i, last_row) of the table.
struct AttentionPart {
  int64_t end = 0;  // the first position after them; they begin where the part before ends
  int64_t first_row = 0;
  int64_t last_row = 0;
};

// What the queries of one attention item read: the pages of one KV head of one sequence.
struct AttentionOperands {
  static constexpr int64_t kMaxRows = 64;
  static constexpr int64_t kMaxHeadDim = 256;

  const void* queries = nullptr;  // [tokens, heads * head_dim] act
  int64_t query_stride = 0;
  void* out = nullptr;  // as queries
  int64_t out_stride = 0;
  int64_t tokens = 0;              // at consecutive positions
  int64_t first_position = 0;      // of the first token; token i sees 0..first_position + i
  const int32_t* heads = nullptr;  // [head_count] query heads that share the KV head
  int64_t head_count = 0;          // tokens * head_count <= kMaxRows
  const void* keys = nullptr;      // the KV head's first slot in block 0
  const void* values = nullptr;
  int64_t block_stride = 0;         // elements
  const int32_t* blocks = nullptr;  // the sequence's block table
  int64_t block_size = 0;
  int64_t head_dim = 0;  // even, at most kMaxHeadDim
  float scale = 0;
  AttentionPart parts[3] = {};  // up to the last token's position
  int64_t part_count = 0;
  const float* cosine = nullptr;  // [rows, head_dim / 2]; null: the queries are rotated already
  const float* sine = nullptr;
  int64_t cosine_stride = 0;
  int64_t sine_stride = 0;
  const float* logit_factors = nullptr;  // [tokens] of `scale`; null: all 1
};

// Kernels over rows of one activation dtype ("act").
struct ActKernels {
  // MatMul: features [begin, end) for all tokens.
  DType x_dtype = DType::kF32;
  int64_t x_step = 1;        // columns that are multiplied at a time
  int64_t feature_step = 1;  // features that are multiplied at a time
  using Multiply = void (*)(const MatMulOperands& operands, int64_t begin, int64_t end);
  Multiply multiply_to_act = nullptr;
  Multiply multiply_to_fp32 = nullptr;

  void (*attend)(const AttentionOperands& operands) = nullptr;

  // One row of RmsNorm; `x` and `out` may be the same.
  void (*normalise)(const void* x, const void* gamma, int64_t columns, float eps,
                    void* out) = nullptr;
  // residual = round(residual + round(x)) with x of act or fp32.
  void (*add_act)(const void* x, int64_t columns, void* residual) = nullptr;
  void (*add_fp32)(const void* x, int64_t columns, void* residual) = nullptr;
  void (*silu_multiply)(const void* gate, const void* up, int64_t columns, void* out) = nullptr;
  // Half rotation of one head of 2 * half elements; `from` and `to` may be the same.
  void (*rotate)(const void* from, const float* cosine, const float* sine, int64_t half,
                 void* to) = nullptr;
};

struct KernelTable {
  ActKernels fp32;
  ActKernels bf16;
  const ActKernels& For(DType act) const { return act == DType::kF32 ? fp32 : bf16; }
};

const KernelTable& KernelsOf(InstructionSet set);

}  // namespace cohort

#endif  // COHORT_KERNELS_CPU_KERNEL_TABLE_H_
