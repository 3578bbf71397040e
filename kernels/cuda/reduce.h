// The arithmetic of an all-reduce, apart from its transport.
#ifndef COHORT_KERNELS_CUDA_REDUCE_H_
#define COHORT_KERNELS_CUDA_REDUCE_H_

#include <cstdint>

#include "kernels/cuda_plugin.h"

namespace cohort::cuda {

// out[i] = the sum over ranks of parts[rank][i], in rank order, in fp32, rounded once. Rank `own`
// takes its part from `out` instead. fp32 or bf16 by `dtype` (CohortCudaDType).
void SumInRankOrder(CohortCudaDevice* device, int32_t dtype, const void* parts, int32_t world,
                    int32_t own, int64_t count, void* out);

}  // namespace cohort::cuda

#endif  // COHORT_KERNELS_CUDA_REDUCE_H_
