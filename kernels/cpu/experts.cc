#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "kernels/cpu/ops.h"

namespace cohort {
namespace {

// A tile of weighted products on its way into the sum: fits the first-level cache.
constexpr int64_t kTileTokens = 64;
constexpr int64_t kTileFeatures = 64;

// Steps of `step` features over `columns` that are worth a thread when they serve `rows` rows.
int64_t Grain(int64_t step, int64_t columns, int64_t rows) {
  return kGrainWork / (step * std::max<int64_t>(1, columns) * std::max<int64_t>(1, rows)) + 1;
}

int64_t RowsPerHit(int64_t pairs, int64_t hits) { return pairs / std::max<int64_t>(1, hits); }

// The k largest logits, descending, the lower id first among equals.
template <class T>
void ChooseLargest(const T* logits, int64_t experts, int64_t k, int32_t* ids, float* values) {
  int64_t chosen = 0;
  for (int64_t expert = 0; expert < experts; ++expert) {
    const float logit = ToFloat(logits[expert]);
    if (chosen == k && !(logit > values[k - 1])) {
      continue;
    }
    int64_t place = chosen < k ? chosen++ : k - 1;
    for (; place > 0 && logit > values[place - 1]; --place) {
      values[place] = values[place - 1];
      ids[place] = ids[place - 1];
    }
    values[place] = logit;
    ids[place] = static_cast<int32_t>(expert);
  }
}

template <class T>
float SumOfExponentials(const T* logits, int64_t experts, float largest) {
  float sum = 0;
  for (int64_t expert = 0; expert < experts; ++expert) {
    sum += std::exp(ToFloat(logits[expert]) - largest);
  }
  return sum;
}

template <class T>
void RouteRow(const T* logits, int64_t experts, int64_t k, bool normalize, int32_t* ids,
              float* weights) {
  ChooseLargest(logits, experts, k, ids, weights);
  const float largest = weights[0];
  const float sum = SumOfExponentials(logits, experts, largest);
  if (std::isnan(sum)) {  // a NaN among the logits, or nothing finite: the row's result is NaN too
    for (int64_t i = 0; i < k; ++i) {
      ids[i] = static_cast<int32_t>(i);
      weights[i] = std::numeric_limits<float>::quiet_NaN();
    }
    return;
  }
  float chosen = 0;
  for (int64_t i = 0; i < k; ++i) {
    weights[i] = std::exp(weights[i] - largest) / sum;
    chosen += weights[i];
  }
  for (int64_t i = 0; i < k; ++i) {
    weights[i] = ToFloat(FromFloat<T>(normalize ? weights[i] / chosen : weights[i]));
  }
}

// Rows as the kernels read them times rows of a weight that lie densely.
MatMulOperands OperandsOf(const TensorView& rows, int64_t columns, const void* weight,
                          const TensorView& out) {
  return {.x = rows.data,
          .x_stride = rows.row_stride,
          .tokens = rows.rows(),
          .weight = weight,
          .weight_stride = columns,
          .columns = columns,
          .bias = nullptr,
          .out = out.data,
          .out_stride = out.row_stride};
}

void AddWeighted(const float* products, int64_t count, float weight, float* sums) {
  for (int64_t i = 0; i < count; ++i) {
    sums[i] += weight * products[i];
  }
}

}  // namespace

void CpuOps::DoRouteTopK(TensorView logits, bool normalize, const Routing& routing) {
  WithActivationType(logits.dtype, [&]<class T>() {
    threads_.ParallelFor(
        logits.rows(), kGrainWork / (logits.columns() * 16) + 1, [&](int64_t begin, int64_t end) {
          for (int64_t row = begin; row < end; ++row) {
            RouteRow(logits.Row<T>(row), logits.columns(), routing.ids.columns(), normalize,
                     routing.ids.Row<int32_t>(row), routing.weights.Row<float>(row));
          }
        });
  });
}

// Counts, then places: pairs_ and hits_ of these experts, ascending rows inside an expert.
void CpuOps::GroupByExpert(const Routing& routing, const ExpertWeights& experts) {
  const int64_t count = experts.count();
  const auto for_each_pair = [&](auto&& visit) {
    for (int64_t row = 0; row < routing.ids.rows(); ++row) {
      for (int64_t slot = 0; slot < routing.ids.columns(); ++slot) {
        const int64_t expert = routing.ids.Row<int32_t>(row)[slot] - experts.first;
        if (expert >= 0 && expert < count) {
          visit(static_cast<size_t>(expert), routing.weights.Row<float>(row)[slot], row);
        }
      }
    }
  };
  next_pair_.assign(static_cast<size_t>(count), 0);
  for_each_pair([&](size_t expert, float, int64_t) { ++next_pair_[expert]; });
  hits_.clear();
  hits_.reserve(static_cast<size_t>(count));
  int64_t first = 0;
  for (int64_t expert = 0; expert < count; ++expert) {
    const int64_t rows = std::exchange(next_pair_[static_cast<size_t>(expert)], first);
    if (rows > 0) {
      hits_.push_back({expert, first, rows});
    }
    first += rows;
  }
  pairs_.resize(static_cast<size_t>(first));
  for_each_pair([&](size_t expert, float weight, int64_t row) {
    pairs_[static_cast<size_t>(next_pair_[expert]++)] = {row, weight};
  });
}

// Blocks of columns of all experts in one row of work: each thread activates what it has just
// computed, and none waits at the border of two experts.
void CpuOps::GateUpOfExperts(const TensorView& x, const ExpertWeights& experts,
                             const ExpertScratch& scratch) {
  const ActKernels& kernels = kernels_.For(x.dtype);
  const int64_t columns = experts.columns();
  const int64_t step = kernels.feature_step;
  const int64_t blocks = RoundedUp(columns, step) / step;
  const int64_t hits = static_cast<int64_t>(hits_.size());
  const int64_t pairs = static_cast<int64_t>(pairs_.size());
  const TensorView rows =
      CopyProductRows(x, pairs, [&](int64_t i) { return pairs_[static_cast<size_t>(i)].row; });
  WithActivationType(x.dtype, [&]<class T>() {
    const auto compute = [&](const ExpertHit& hit, int64_t begin, int64_t end) {
      const TensorView gate_up = scratch.gate_up.Rows(hit.first, hit.rows);
      const MatMulOperands operands = OperandsOf(rows.Rows(hit.first, hit.rows), x.columns(),
                                                 experts.gate_up.Row<T>(hit.expert), gate_up);
      kernels.multiply_to_act(operands, begin, end);
      kernels.multiply_to_act(operands, columns + begin, columns + end);
      for (int64_t i = 0; i < hit.rows; ++i) {
        const T* gate = gate_up.Row<T>(i) + begin;
        kernels.silu_multiply(gate, gate + columns, end - begin,
                              scratch.activated.Row<T>(hit.first + i) + begin);
      }
    };
    threads_.ParallelFor(hits * blocks, Grain(2 * step, x.columns(), RowsPerHit(pairs, hits)),
                         [&](int64_t first, int64_t last) {
                           for (int64_t next = first; first < last; first = next) {
                             const int64_t hit = first / blocks;
                             next = std::min(last, (hit + 1) * blocks);
                             compute(hits_[static_cast<size_t>(hit)], (first - hit * blocks) * step,
                                     std::min(columns, (next - hit * blocks) * step));
                           }
                         });
  });
}

// Adds an expert's columns [begin, end) of the result to its rows.
void CpuOps::AddDownOfExpert(const TensorView& rows, const ExpertHit& hit,
                             const ExpertWeights& experts, int64_t begin, int64_t end,
                             const TensorView& out) const {
  const ActKernels& kernels = kernels_.For(experts.down.dtype);
  const int64_t columns = experts.columns();
  const int64_t step = kTileFeatures / kernels.feature_step * kernels.feature_step;
  const char* const weight = static_cast<const char*>(experts.down.data) +
                             hit.expert * experts.down.row_stride * SizeOf(experts.down.dtype);
  alignas(64) float products[kTileTokens * kTileFeatures];
  for (int64_t feature = begin; feature < end; feature += step) {
    const int64_t features = std::min(step, end - feature);
    for (int64_t first = hit.first; first < hit.first + hit.rows; first += kTileTokens) {
      const int64_t tokens = std::min(kTileTokens, hit.first + hit.rows - first);
      const TensorView tile(products, DType::kF32, Shape{tokens, features}, features);
      kernels.multiply_to_fp32(
          OperandsOf(rows.Rows(first, tokens), columns,
                     weight + feature * columns * SizeOf(experts.down.dtype), tile),
          0, features);
      for (int64_t i = 0; i < tokens; ++i) {
        const ExpertPair& pair = pairs_[static_cast<size_t>(first + i)];
        AddWeighted(tile.Row<float>(i), features, pair.weight, out.Row<float>(pair.row) + feature);
      }
    }
  }
}

// Each thread sums its columns of the result over the experts in ascending order: no thread waits
// for another, and the order of a row's sum is that of its experts alone.
void CpuOps::DownOfExperts(const TensorView& activated, const ExpertWeights& experts,
                           const TensorView& out) {
  const int64_t step = kernels_.For(activated.dtype).feature_step;
  const TensorView rows = ProductRows(activated);
  threads_.ParallelFor(RoundedUp(out.columns(), step) / step,
                       Grain(step, experts.columns(), activated.rows()),
                       [&](int64_t first, int64_t last) {
                         const int64_t begin = first * step;
                         const int64_t end = std::min(out.columns(), last * step);
                         for (int64_t row = 0; row < out.rows(); ++row) {
                           std::fill(out.Row<float>(row) + begin, out.Row<float>(row) + end, 0.0f);
                         }
                         for (const ExpertHit& hit : hits_) {
                           AddDownOfExpert(rows, hit, experts, begin, end, out);
                         }
                       });
}

void CpuOps::DoRoutedFfn(TensorView x, const Routing& routing, const ExpertWeights& experts,
                         const ExpertScratch& scratch, TensorView out) {
  GroupByExpert(routing, experts);
  const int64_t pairs = static_cast<int64_t>(pairs_.size());
  CHECK_LE(pairs, scratch.activated.rows()) << "an expert occurs twice in a row's routing";
  GateUpOfExperts(x, experts, scratch);
  DownOfExperts(scratch.activated.Rows(0, pairs), experts, out);
}

void CpuOps::DoCountIds(TensorView ids, TensorView counts) {
  uint32_t* const count = static_cast<uint32_t*>(counts.data);  // unsigned: it wraps around
  for (int64_t row = 0; row < ids.rows(); ++row) {
    for (int64_t i = 0; i < ids.columns(); ++i) {
      const int32_t id = ids.Row<int32_t>(row)[i];
      if (id >= 0 && id < counts.rows()) {
        ++count[id];
      }
    }
  }
}

void CpuOps::DoAddGated(TensorView x, TensorView gate, TensorView out) {
  WithActivationType(gate.dtype, [&]<class T>() {
    threads_.ParallelFor(
        out.rows(), kGrainWork / (4 * out.columns()) + 1, [&](int64_t begin, int64_t end) {
          for (int64_t row = begin; row < end; ++row) {
            const float logit = ToFloat(*gate.Row<T>(row));
            const float factor = ToFloat(FromFloat<T>(1.0f / (1.0f + std::exp(-logit))));
            const float* from = x.Row<float>(row);
            float* to = out.Row<float>(row);
            for (int64_t k = 0; k < out.columns(); ++k) {
              to[k] += factor * from[k];
            }
          }
        });
  });
}

}  // namespace cohort
