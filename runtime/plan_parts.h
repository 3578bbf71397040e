// One plan for several data-parallel groups. Slot s of group g is slot g * slots + s of the whole
// plan and of its result; the groups' rows lie one after the other, in order of the groups.
#ifndef COHORT_RUNTIME_PLAN_PARTS_H_
#define COHORT_RUNTIME_PLAN_PARTS_H_

#include <cstdint>
#include <vector>

#include "runtime/step_plan.h"

namespace cohort {

// What the scheduler of group `group` planned becomes the next part of `whole`.
void AppendPart(StepPlan part, int group, int64_t slots, StepPlan& whole);

// The part of group `group` of `groups`, with the group's own slots. INTERNAL when the plan names a
// slot of no group.
absl::StatusOr<StepPlan> PartOf(StepPlan whole, int group, int groups, int64_t slots);

// Rows of every group of a plan, and those whose logits are wanted: the last where it is sampled
// from, and all with a score target.
struct GroupRows {
  std::vector<int64_t> all;
  std::vector<int64_t> wanted;
};

// Slots beyond all groups' are left out.
GroupRows RowsOfGroups(const StepPlan& whole, int groups, int64_t slots);

}  // namespace cohort

#endif  // COHORT_RUNTIME_PLAN_PARTS_H_
