// The sum of several ranks' values, always added in the same order.
#ifndef COHORT_PARALLEL_RANK_ORDER_SUM_H_
#define COHORT_PARALLEL_RANK_ORDER_SUM_H_

#include <cstddef>
#include <cstdint>

#include "absl/types/span.h"
#include "kernels/tensor.h"

namespace cohort {

// out[i] = ((sources[0][i] + sources[1][i]) + sources[2][i]) + ..., in fp32, rounded once to
// `dtype` (fp32 or bf16). `out` may be one of the sources.
void SumInRankOrder(absl::Span<const void* const> sources, DType dtype, int64_t count, void* out);

}  // namespace cohort

#endif  // COHORT_PARALLEL_RANK_ORDER_SUM_H_
