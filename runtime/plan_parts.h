// One plan for several data-parallel groups. Slot s of group g is slot g * slots + s of the whole
// plan and of its result; the groups' rows lie one after the other, in order of the groups.
#ifndef COHORT_RUNTIME_PLAN_PARTS_H_
#define COHORT_RUNTIME_PLAN_PARTS_H_

#include <cstdint>

#include "runtime/step_plan.h"

namespace cohort {

// What the scheduler of group `group` planned becomes the next part of `whole`.
void AppendPart(StepPlan part, int group, int64_t slots, StepPlan& whole);

// The part of group `group` of `groups`, with the group's own slots. INTERNAL when the plan names a
// slot of no group.
absl::StatusOr<StepPlan> PartOf(StepPlan whole, int group, int groups, int64_t slots);

}  // namespace cohort

#endif  // COHORT_RUNTIME_PLAN_PARTS_H_
