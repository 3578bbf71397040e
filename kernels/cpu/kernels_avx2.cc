// The kernels for AVX2 with FMA.
#include "kernels/cpu/body_includes.h"

#pragma GCC push_options
#pragma GCC target("avx2,fma")

#define COHORT_BODY_NAMESPACE avx2
#define COHORT_BODY_WIDTH 8
#define COHORT_BODY_NARROW_FEATURES 2
#define COHORT_BODY_WIDE_FEATURES 2
#define COHORT_BODY_PRODUCTS "kernels/cpu/body_products.h"

namespace cohort::avx2 {
#include "kernels/cpu/body.h"
}  // namespace cohort::avx2

#pragma GCC pop_options
