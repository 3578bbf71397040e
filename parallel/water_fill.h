// Levelling: hands out equal units so that the fullest of several holders stays as low as it can.
#ifndef COHORT_PARALLEL_WATER_FILL_H_
#define COHORT_PARALLEL_WATER_FILL_H_

#include <cstdint>
#include <vector>

#include "absl/types/span.h"

namespace cohort {

// Units per holder, in the order of `loads`, such that their sum is `units`, each holder gets at
// least `minimum`, and the largest load + units * unit_load is minimal. Loads may be negative;
// unit_load is positive; `minimum` times the number of holders is at most `units`. Ties go to the
// earlier holders.
//   loads {5, 0, 2}, unit_load 2, units 4, minimum 0 -> {0, 3, 1}: loads become {5, 6, 4}.
std::vector<int64_t> WaterFill(absl::Span<const int64_t> loads, int64_t unit_load, int64_t units,
                               int64_t minimum);

}  // namespace cohort

#endif  // COHORT_PARALLEL_WATER_FILL_H_
