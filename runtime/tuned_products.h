// The products of a rank's steps whose algorithms are worth choosing by the clock.
#ifndef COHORT_RUNTIME_TUNED_PRODUCTS_H_
#define COHORT_RUNTIME_TUNED_PRODUCTS_H_

#include <cstdint>
#include <vector>

#include "kernels/product_tuning.h"
#include "parallel/shard_plan.h"

namespace cohort {

// For numbers of tokens from what decode kernels leave to a library up to `max_batch_tokens`. The
// router is not among them: every rank of a tensor group computes it whole, and all must choose the
// same experts, so all use the algorithm that the library names first.
std::vector<ProductShape> TunedProductsOf(const ShardPlan& plan, DType act,
                                          int64_t max_batch_tokens);

}  // namespace cohort

#endif  // COHORT_RUNTIME_TUNED_PRODUCTS_H_
