#include <algorithm>

#include "kernels/cpu/ops.h"

namespace cohort {
namespace {

// Steps of `step` features of x's rows that are worth a thread.
int64_t Grain(const TensorView& x, int64_t step) {
  return kGrainWork / (step * std::max<int64_t>(1, x.columns()) * x.rows()) + 1;
}

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
      CopyPadded(x.Row<From>(row), x.columns(), to.columns(), to.Row<To>(0));
    });
  });
}

}  // namespace

// x itself where the kernels can read it, else a copy whose rows end in zeros.
TensorView CpuOps::ProductRows(const TensorView& x) {
  const ActKernels& kernels = kernels_.For(x.dtype);
  const int64_t columns = RoundedUp(x.columns(), kernels.x_step);
  if (x.dtype == kernels.x_dtype && x.columns() == columns) {
    return x;
  }
  return CopyProductRows(x, x.rows(), [](int64_t i) { return i; });
}

// Rows row_of(0), row_of(1), ... of x as the kernels read them: they end in zeros.
TensorView CpuOps::CopyProductRows(const TensorView& x, int64_t count,
                                   absl::FunctionRef<int64_t(int64_t)> row_of) {
  const ActKernels& kernels = kernels_.For(x.dtype);
  const int64_t columns = RoundedUp(x.columns(), kernels.x_step);
  product_rows_.resize(std::max(product_rows_.size(), static_cast<size_t>(count * columns)));
  const TensorView rows(product_rows_.data(), kernels.x_dtype, Shape{count, columns});
  threads_.ParallelFor(count, kGrainWork / std::max<int64_t>(1, columns) + 1,
                       [&](int64_t begin, int64_t end) {
                         for (int64_t i = begin; i < end; ++i) {
                           CopyRow(x, row_of(i), rows.Rows(i, 1));
                         }
                       });
  return rows;
}

MatMulOperands CpuOps::Operands(const TensorView& x, const Weight& w, const TensorView* bias,
                                const TensorView& out) {
  const TensorView rows = ProductRows(x);
  return {.x = rows.data,
          .x_stride = rows.row_stride,
          .tokens = x.rows(),
          .weight = w.data.data,
          .weight_stride = w.data.row_stride,
          .columns = x.columns(),
          .bias = bias == nullptr ? nullptr : bias->data,
          .out = out.data,
          .out_stride = out.row_stride};
}

void CpuOps::DoMatMul(TensorView x, const Weight& w, const TensorView* bias, TensorView out) {
  const ActKernels& kernels = kernels_.For(x.dtype);
  const MatMulOperands operands = Operands(x, w, bias, out);
  const auto multiply =
      out.dtype == DType::kF32 ? kernels.multiply_to_fp32 : kernels.multiply_to_act;
  const int64_t features = w.data.rows();
  const int64_t step = kernels.feature_step;
  threads_.ParallelFor(RoundedUp(features, step) / step, Grain(x, step),
                       [&](int64_t begin, int64_t end) {
                         multiply(operands, begin * step, std::min(features, end * step));
                       });
}

// Each thread activates the columns that it has just computed.
void CpuOps::DoProjectGateUp(TensorView x, const Weight& w, TensorView gate_up, TensorView out) {
  const ActKernels& kernels = kernels_.For(x.dtype);
  const MatMulOperands operands = Operands(x, w, nullptr, gate_up);
  const int64_t columns = out.columns();
  const int64_t step = kernels.feature_step;
  WithActivationType(out.dtype, [&]<class T>() {
    threads_.ParallelFor(
        RoundedUp(columns, step) / step, Grain(x, step), [&](int64_t first, int64_t last) {
          const int64_t begin = first * step;
          const int64_t end = std::min(columns, last * step);
          kernels.multiply_to_act(operands, begin, end);
          kernels.multiply_to_act(operands, columns + begin, columns + end);
          for (int64_t row = 0; row < out.rows(); ++row) {
            const T* gate = gate_up.Row<T>(row) + begin;
            kernels.silu_multiply(gate, gate + columns, end - begin, out.Row<T>(row) + begin);
          }
        });
  });
}

CpuOps::CpuOps(ThreadPool* threads, InstructionSet instruction_set)
    : threads_(*threads), kernels_(KernelsOf(instruction_set)) {}

}  // namespace cohort
