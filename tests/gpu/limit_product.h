// The fastest bf16 matrix product that cuBLASLt has for a shape: the limit of prefill.
#ifndef COHORT_TESTS_GPU_LIMIT_PRODUCT_H_
#define COHORT_TESTS_GPU_LIMIT_PRODUCT_H_

#include <cstdint>
#include <vector>

#include "kernels/cuda/device.h"

namespace cohort::gpu {

// Seconds of each of `repetitions` products x [tokens, inner] times w [columns, inner]^T, by the
// fastest of the algorithms that cuBLASLt's heuristics propose. Empty, with a line on standard
// error, where something fails.
std::vector<double> ProductSeconds(CohortCudaDevice* device, int64_t tokens, int64_t inner,
                                   int64_t columns, int repetitions);

}  // namespace cohort::gpu

#endif  // COHORT_TESTS_GPU_LIMIT_PRODUCT_H_
