// The kernels for AVX-512.
#include "kernels/cpu/body_includes.h"

#pragma GCC push_options
#pragma GCC target("avx2,fma,avx512f,avx512bw,avx512dq,avx512vl")

#define COHORT_BODY_NAMESPACE avx512
#define COHORT_BODY_WIDTH 16
#define COHORT_BODY_NARROW_FEATURES 4
#define COHORT_BODY_WIDE_FEATURES 6
#define COHORT_BODY_PRODUCTS "kernels/cpu/body_products.h"

namespace cohort::avx512 {
#include "kernels/cpu/body.h"
}  // namespace cohort::avx512

#pragma GCC pop_options
