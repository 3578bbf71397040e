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

// Rows of `columns` elements, `stride` elements apart.
struct MatMulOperands {
  const void* x = nullptr;  // [tokens, columns] of ProductKernels::x_dtype; the columns up to the
                            // next multiple of x_step are readable and zero
  int64_t x_stride = 0;
  int64_t tokens = 0;
  const void* weight = nullptr;  // [features, columns] act
  int64_t weight_stride = 0;
  int64_t columns = 0;
  const void* bias = nullptr;  // [features] act, or null
  void* out = nullptr;         // [tokens, features]
  int64_t out_stride = 0;
};

// Features [begin, end) for all tokens.
using MultiplyKernel = void (*)(const MatMulOperands& operands, int64_t begin, int64_t end);

// MatMul with weights of one activation dtype.
struct ProductKernels {
  DType x_dtype = DType::kF32;
  int64_t x_step = 1;                // columns that are multiplied at a time
  int64_t feature_step = 1;          // features that are multiplied at a time
  MultiplyKernel to_act = nullptr;   // out of the dtype of the weights
  MultiplyKernel to_fp32 = nullptr;  // out fp32
};

struct KernelTable {
  ProductKernels fp32;
  ProductKernels bf16;
};

const KernelTable& KernelsOf(InstructionSet set);

}  // namespace cohort

#endif  // COHORT_KERNELS_CPU_KERNEL_TABLE_H_
