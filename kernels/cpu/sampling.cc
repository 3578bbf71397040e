#include <algorithm>
#include <cmath>
#include <limits>

#include "kernels/cpu/logit_rows.h"
#include "kernels/cpu/ops.h"

namespace cohort {
namespace {

// One per thread, kept for its life, so that no step allocates.
RowScratch* ThreadScratch() {
  static thread_local RowScratch scratch;
  return &scratch;
}

absl::Span<float> RowOf(const TensorView& logits, int64_t row) {
  return {logits.Row<float>(row), static_cast<size_t>(logits.columns())};
}

// log(softmax(logits)[target]), natural logarithm.
float LogSoftmaxAt(absl::Span<const float> logits, size_t target) {
  float largest = -std::numeric_limits<float>::infinity();
  for (const float logit : logits) {
    largest = std::max(largest, logit);
  }
  double total = 0;
  for (const float logit : logits) {
    total += std::exp(double{logit} - largest);
  }
  return static_cast<float>(double{logits[target]} - largest - std::log(total));
}

}  // namespace

void CpuOps::DoLocalCandidates(TensorView logits, absl::Span<const CandidateRequest> requests,
                               const VocabularySlice& slice, TensorView out) {
  threads_.ParallelFor(logits.rows(), 1, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      Summarise(RowOf(logits, row), requests[static_cast<size_t>(row)], slice, ThreadScratch(),
                out.Row<int32_t>(row));
    }
  });
}

void CpuOps::DoLocalMasses(TensorView logits, absl::Span<const MassRequest> requests,
                           const VocabularySlice& slice, TensorView out) {
  threads_.ParallelFor(out.rows(), 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const MassRequest& request = requests[static_cast<size_t>(i)];
      SumMasses(RowOf(logits, request.row), request, slice, ThreadScratch(), out.Row<int32_t>(i));
    }
  });
}

void CpuOps::DoLocalPick(TensorView logits, absl::Span<const MassRequest> requests,
                         const VocabularySlice& slice, TensorView out) {
  threads_.ParallelFor(out.rows(), 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const MassRequest& request = requests[static_cast<size_t>(i)];
      PickByMass(RowOf(logits, request.row), request, slice, ThreadScratch(), out.Row<int32_t>(i));
    }
  });
}

void CpuOps::DoEditLogits(TensorView logits, absl::Span<const LogitEdits> edits, int64_t first_id,
                          TensorView out) {
  threads_.ParallelFor(logits.rows(), 1, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      CopyEdited(RowOf(logits, row), edits[static_cast<size_t>(row)], first_id, RowOf(out, row));
    }
  });
}

void CpuOps::DoSample(TensorView logits, absl::Span<const SamplingRow> rows, int64_t valid_ids,
                      TensorView out) {
  int32_t* chosen = out.As<int32_t>();
  threads_.ParallelFor(logits.rows(), 1, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      chosen[row] = SampleRow(RowOf(logits, row).subspan(0, static_cast<size_t>(valid_ids)),
                              rows[static_cast<size_t>(row)], ThreadScratch());
    }
  });
}

void CpuOps::DoLogProbability(TensorView logits, TensorView targets, TensorView out) {
  const int32_t* target = targets.As<int32_t>();
  float* result = out.As<float>();
  const size_t columns = static_cast<size_t>(logits.columns());
  threads_.ParallelFor(logits.rows(), 1, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      CHECK_LT(target[row], logits.columns()) << "target of row " << row;
      const absl::Span<const float> all(logits.Row<float>(row), columns);
      result[row] = target[row] < 0 ? 0.0f : LogSoftmaxAt(all, static_cast<size_t>(target[row]));
    }
  });
}

}  // namespace cohort
