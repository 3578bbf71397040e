#include <algorithm>
#include <cmath>
#include <cstring>

#include "kernels/cpu/ops.h"

namespace cohort {
namespace {

// Independent sums, so that they can be kept in vectors.
constexpr int kLanes = 16;

// Elements below which a thread costs more than it brings.
constexpr int64_t kGrainElements = 1 << 14;

int64_t RowGrain(int64_t columns) { return kGrainElements / std::max<int64_t>(1, columns) + 1; }

template <class T>
float SumOfSquares(const T* row, int64_t columns) {
  float sums[kLanes] = {};
  int64_t k = 0;
  for (; k + kLanes <= columns; k += kLanes) {
    for (int lane = 0; lane < kLanes; ++lane) {
      const float value = ToFloat(row[k + lane]);
      sums[lane] += value * value;
    }
  }
  for (int lane = 0; k < columns; ++k, ++lane) {
    const float value = ToFloat(row[k]);
    sums[lane] += value * value;
  }
  float total = 0;
  for (const float sum : sums) {
    total += sum;
  }
  return total;
}

// `x` and `out` may be the same row.
template <class T>
void NormaliseRow(const T* x, const T* gamma, int64_t columns, float eps, T* out) {
  const float mean = SumOfSquares(x, columns) / static_cast<float>(columns);
  const float scale = 1.0f / std::sqrt(mean + eps);
  for (int64_t k = 0; k < columns; ++k) {
    out[k] = FromFloat<T>(Rounded<T>(ToFloat(x[k]) * scale) * ToFloat(gamma[k]));
  }
}

template <class T, class X>
void AddRow(const X* x, int64_t columns, T* residual) {
  for (int64_t k = 0; k < columns; ++k) {
    residual[k] = FromFloat<T>(ToFloat(residual[k]) + Rounded<T>(ToFloat(x[k])));
  }
}

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
  WithActivationType(x.dtype, [&]<class T>() {
    threads_.ParallelFor(x.rows(), RowGrain(x.columns()), [&](int64_t begin, int64_t end) {
      for (int64_t row = begin; row < end; ++row) {
        NormaliseRow(x.Row<T>(row), gamma.As<T>(), x.columns(), eps, out.Row<T>(row));
      }
    });
  });
}

void CpuOps::DoAddRmsNorm(TensorView residual, TensorView x, TensorView gamma, float eps,
                          TensorView out) {
  const int64_t columns = residual.columns();
  WithActivationType(residual.dtype, [&]<class T>() {
    threads_.ParallelFor(residual.rows(), RowGrain(columns), [&](int64_t begin, int64_t end) {
      for (int64_t row = begin; row < end; ++row) {
        T* sum = residual.Row<T>(row);
        WithActivationType(x.dtype, [&]<class X>() { AddRow(x.Row<X>(row), columns, sum); });
        NormaliseRow(sum, gamma.As<T>(), columns, eps, out.Row<T>(row));
      }
    });
  });
}

void CpuOps::DoSiluMultiply(TensorView gate_up, TensorView out) {
  const int64_t columns = out.columns();
  WithActivationType(out.dtype, [&]<class T>() {
    threads_.ParallelFor(out.rows(), RowGrain(columns), [&](int64_t begin, int64_t end) {
      for (int64_t row = begin; row < end; ++row) {
        const T* gate = gate_up.Row<T>(row);
        const T* up = gate + columns;
        T* to = out.Row<T>(row);
        for (int64_t k = 0; k < columns; ++k) {
          const float value = ToFloat(gate[k]);
          to[k] = FromFloat<T>(Rounded<T>(value / (1.0f + std::exp(-value))) * ToFloat(up[k]));
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
