#include <algorithm>

#include "kernels/cpu/ops.h"

namespace cohort {
namespace {

// Multiply-adds below which a thread costs more than it brings.
constexpr int64_t kGrainWork = 1 << 16;

int64_t RoundedUp(int64_t value, int64_t step) { return (value + step - 1) / step * step; }

template <class From, class To>
void CopyPadded(const From* from, int64_t columns, int64_t padded, To* to) {
  for (int64_t k = 0; k < columns; ++k) {
    to[k] = FromFloat<To>(ToFloat(from[k]));
  }
  std::fill(to + columns, to + padded, To{});
}

void CopyRow(const TensorView& x, int64_t row, const TensorView& to) {
  WithActivationType(x.dtype, [&]<class From>() {
    WithActivationType(to.dtype, [&]<class To>() {
      CopyPadded(x.Row<From>(row), x.columns(), to.columns(), to.Row<To>(row));
    });
  });
}

}  // namespace

// x itself where the kernels can read it, else a copy whose rows end in zeros.
TensorView CpuOps::ProductRows(const TensorView& x, const ProductKernels& kernels) {
  const int64_t columns = RoundedUp(x.columns(), kernels.x_step);
  if (x.dtype == kernels.x_dtype && x.columns() == columns) {
    return x;
  }
  product_rows_.resize(std::max(product_rows_.size(), static_cast<size_t>(x.rows() * columns)));
  const TensorView rows(product_rows_.data(), kernels.x_dtype, Shape{x.rows(), columns});
  threads_.ParallelFor(x.rows(), kGrainWork / std::max<int64_t>(1, columns) + 1,
                       [&](int64_t begin, int64_t end) {
                         for (int64_t row = begin; row < end; ++row) {
                           CopyRow(x, row, rows);
                         }
                       });
  return rows;
}

void CpuOps::DoMatMul(TensorView x, const Weight& w, const TensorView* bias, TensorView out) {
  const ProductKernels& kernels = x.dtype == DType::kF32 ? kernels_.fp32 : kernels_.bf16;
  const TensorView rows = ProductRows(x, kernels);
  const MatMulOperands operands = {.x = rows.data,
                                   .x_stride = rows.row_stride,
                                   .tokens = x.rows(),
                                   .weight = w.data.data,
                                   .weight_stride = w.data.row_stride,
                                   .columns = x.columns(),
                                   .bias = bias == nullptr ? nullptr : bias->data,
                                   .out = out.data,
                                   .out_stride = out.row_stride};
  const MultiplyKernel multiply = out.dtype == DType::kF32 ? kernels.to_fp32 : kernels.to_act;
  const int64_t features = w.data.rows();
  const int64_t step = kernels.feature_step;
  const int64_t step_work = step * std::max<int64_t>(1, x.columns()) * x.rows();
  threads_.ParallelFor(RoundedUp(features, step) / step, kGrainWork / step_work + 1,
                       [&](int64_t begin, int64_t end) {
                         multiply(operands, begin * step, std::min(features, end * step));
                       });
}

CpuOps::CpuOps(ThreadPool* threads, InstructionSet instruction_set)
    : threads_(*threads),
      kernels_(KernelsOf(instruction_set)),
      has_avx2_(instruction_set != InstructionSet::kPortable) {}

}  // namespace cohort
