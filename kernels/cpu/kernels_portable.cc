// The kernels for any x86-64.
#include "kernels/cpu/body_includes.h"

#define COHORT_BODY_NAMESPACE portable
#define COHORT_BODY_WIDTH 4
#define COHORT_BODY_NARROW_FEATURES 2
#define COHORT_BODY_WIDE_FEATURES 2
#define COHORT_BODY_PRODUCTS "kernels/cpu/body_products.h"

namespace cohort::portable {
#include "kernels/cpu/body.h"
}  // namespace cohort::portable
