#include <algorithm>

#include "kernels/cpu/lanes.h"
#include "kernels/cpu/ops.h"

namespace cohort {
namespace {

// Rows of x that one pass over a weight row serves.
constexpr int kTileRows = 4;

// Bytes of weights that stay in the second-level cache while all rows of x pass by.
constexpr int64_t kPanelBytes = 128 << 10;

// Multiply-adds below which a thread costs more than it brings.
constexpr int64_t kGrainWork = 1 << 15;

// x as fp32, rows padded with zeros: [rows, stride].
struct WideRows {
  const float* data = nullptr;
  int64_t rows = 0;
  int64_t stride = 0;
};

template <class T>
struct WeightPanel {
  const T* data = nullptr;  // first weight row of the matrix
  int64_t columns = 0;
  int64_t stride = 0;
  const T* bias = nullptr;  // null: none
};

template <class Out>
struct OutRows {
  Out* data = nullptr;
  int64_t stride = 0;
};

// kRows rows of x, from `row` on, times the weight rows [begin, end).
template <int kRows, class T, class Out>
COHORT_CPU_INLINE void MultiplyRows(const WeightPanel<T>& w, int64_t begin, int64_t end,
                                    const WideRows& x, int64_t row, const OutRows<Out>& out) {
  for (int64_t feature = begin; feature < end; ++feature) {
    float sums[kRows];
    lanes::Dot<kRows>(w.data + feature * w.stride, w.columns, x.data + row * x.stride, x.stride,
                      sums);
    const float bias = w.bias == nullptr ? 0.0f : ToFloat(w.bias[feature]);
    for (int j = 0; j < kRows; ++j) {
      out.data[(row + j) * out.stride + feature] = FromFloat<Out>(sums[j] + bias);
    }
  }
}

// All rows of x times the weight rows [begin, end).
template <class T, class Out>
struct MultiplyPanel {
  COHORT_CPU_INLINE static void Run(const WeightPanel<T>& w, int64_t begin, int64_t end,
                                    const WideRows& x, const OutRows<Out>& out) {
    int64_t row = 0;
    for (; row + kTileRows <= x.rows; row += kTileRows) {
      MultiplyRows<kTileRows>(w, begin, end, x, row, out);
    }
    for (; row < x.rows; ++row) {
      MultiplyRows<1>(w, begin, end, x, row, out);
    }
  }
};

template <class T>
WideRows Widen(const TensorView& x, std::vector<float>* storage) {
  const int64_t stride = lanes::PaddedToLanes(x.columns());
  storage->assign(static_cast<size_t>(x.rows() * stride), 0.0f);
  for (int64_t row = 0; row < x.rows(); ++row) {
    const T* from = x.Row<T>(row);
    std::transform(from, from + x.columns(), storage->data() + row * stride,
                   [](T value) { return ToFloat(value); });
  }
  return {storage->data(), x.rows(), stride};
}

template <class T, class Out>
void MatMulAs(const WideRows& x, const TensorView& w, const TensorView* bias, const TensorView& out,
              bool has_avx2, ThreadPool* threads) {
  const WeightPanel<T> weight{w.As<T>(), w.columns(), w.row_stride,
                              bias == nullptr ? nullptr : bias->As<T>()};
  const OutRows<Out> rows{out.As<Out>(), out.row_stride};
  const int64_t inner = std::max<int64_t>(1, w.columns());
  const int64_t panel = std::max<int64_t>(8, kPanelBytes / (inner * SizeOf(w.dtype)));
  const int64_t grain = kGrainWork / (inner * x.rows) + 1;
  threads->ParallelFor(w.rows(), grain, [&](int64_t begin, int64_t end) {
    for (int64_t feature = begin; feature < end; feature += panel) {
      lanes::Run<MultiplyPanel<T, Out>>(has_avx2, weight, feature, std::min(end, feature + panel),
                                        x, rows);
    }
  });
}

}  // namespace

CpuOps::CpuOps(ThreadPool* threads) : threads_(*threads), has_avx2_(lanes::HasAvx2()) {}

void CpuOps::DoMatMul(TensorView x, const Weight& w, const TensorView* bias, TensorView out) {
  if (x.dtype == DType::kF32) {
    MatMulAs<float, float>(Widen<float>(x, &widened_), w.data, bias, out, has_avx2_, &threads_);
  } else if (out.dtype == DType::kF32) {
    MatMulAs<BFloat16, float>(Widen<BFloat16>(x, &widened_), w.data, bias, out, has_avx2_,
                              &threads_);
  } else {
    MatMulAs<BFloat16, BFloat16>(Widen<BFloat16>(x, &widened_), w.data, bias, out, has_avx2_,
                                 &threads_);
  }
}

}  // namespace cohort
