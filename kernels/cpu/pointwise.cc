#include <algorithm>
#include <cstring>

#include "kernels/cpu/ops.h"

namespace cohort {
namespace {

// Elements below which a thread costs more than it brings.
constexpr int64_t kGrainElements = 1 << 14;

int64_t RowGrain(int64_t columns) { return kGrainElements / std::max<int64_t>(1, columns) + 1; }

template <class T, class Out>
void EmbedRow(const T* table_row, int64_t columns, Out* out) {
  for (int64_t k = 0; k < columns; ++k) {
    out[k] = FromFloat<Out>(ToFloat(table_row[k]));
  }
}

template <class T, class Out>
void EmbedRows(const TensorView& ids, const TensorView& table, int64_t first_row,
               const TensorView& out) {
  const int32_t* id = ids.As<int32_t>();
  for (int64_t token = 0; token < out.rows(); ++token) {
    const int64_t row = id[token] - first_row;
    Out* to = out.Row<Out>(token);
    if (row >= 0 && row < table.rows()) {
      EmbedRow(table.Row<T>(row), out.columns(), to);
    } else {
      std::fill_n(to, out.columns(), Out{});
    }
  }
}

}  // namespace

void CpuOps::DoEmbed(TensorView ids, TensorView table, int64_t first_row, TensorView out) {
  WithActivationType(table.dtype, [&]<class T>() {
    if (out.dtype == DType::kF32) {
      EmbedRows<T, float>(ids, table, first_row, out);
    } else {
      EmbedRows<T, BFloat16>(ids, table, first_row, out);
    }
  });
}

void CpuOps::DoRmsNorm(TensorView x, TensorView gamma, float eps, TensorView out) {
  const auto normalise = kernels_.For(x.dtype).normalise;
  WithActivationType(x.dtype, [&]<class T>() {
    threads_.ParallelFor(x.rows(), RowGrain(x.columns()), [&](int64_t begin, int64_t end) {
      for (int64_t row = begin; row < end; ++row) {
        normalise(x.Row<T>(row), gamma.data, x.columns(), eps, out.Row<T>(row));
      }
    });
  });
}

void CpuOps::DoAddRmsNorm(TensorView residual, TensorView x, TensorView gamma, float eps,
                          TensorView out) {
  const int64_t columns = residual.columns();
  const ActKernels& kernels = kernels_.For(residual.dtype);
  const auto add = x.dtype == DType::kF32 ? kernels.add_fp32 : kernels.add_act;
  const char* addends = static_cast<const char*>(x.data);
  const int64_t addend_bytes = x.row_stride * SizeOf(x.dtype);
  WithActivationType(residual.dtype, [&]<class T>() {
    threads_.ParallelFor(residual.rows(), RowGrain(columns), [&](int64_t begin, int64_t end) {
      for (int64_t row = begin; row < end; ++row) {
        add(addends + row * addend_bytes, columns, residual.Row<T>(row));
        kernels.normalise(residual.Row<T>(row), gamma.data, columns, eps, out.Row<T>(row));
      }
    });
  });
}

void CpuOps::DoSiluMultiply(TensorView gate_up, TensorView out) {
  const int64_t columns = out.columns();
  const auto silu_multiply = kernels_.For(out.dtype).silu_multiply;
  WithActivationType(out.dtype, [&]<class T>() {
    threads_.ParallelFor(out.rows(), RowGrain(columns), [&](int64_t begin, int64_t end) {
      for (int64_t row = begin; row < end; ++row) {
        const T* gate = gate_up.Row<T>(row);
        silu_multiply(gate, gate + columns, columns, out.Row<T>(row));
      }
    });
  });
}

void CpuOps::DoFillRandom(const RandomFill& fill, TensorView out) {
  const int64_t columns = out.columns();
  WithActivationType(out.dtype, [&]<class T>() {
    threads_.ParallelFor(out.rows(), RowGrain(columns), [&](int64_t begin, int64_t end) {
      for (int64_t row = begin; row < end; ++row) {
        for (int64_t column = 0; column < columns; ++column) {
          out.Row<T>(row)[column] = FromFloat<T>(RandomFillAt(fill, row, column));
        }
      }
    });
  });
}

void CpuOps::DoGatherRows(TensorView x, TensorView rows, TensorView out) {
  const int64_t bytes = x.columns() * SizeOf(x.dtype);
  const char* from = static_cast<const char*>(x.data);
  char* to = static_cast<char*>(out.data);
  const int32_t* row = rows.As<int32_t>();
  for (int64_t i = 0; i < out.rows(); ++i) {
    CHECK(row[i] >= 0 && row[i] < x.rows()) << "row " << row[i] << " of " << x.shape.ToString();
    std::memcpy(to + i * out.row_stride * SizeOf(x.dtype),
                from + row[i] * x.row_stride * SizeOf(x.dtype), static_cast<size_t>(bytes));
  }
}

}  // namespace cohort
