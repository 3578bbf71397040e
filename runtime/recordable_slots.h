// Which steps a device can repeat from a recording, told from the plans alone.
#ifndef COHORT_RUNTIME_RECORDABLE_SLOTS_H_
#define COHORT_RUNTIME_RECORDABLE_SLOTS_H_

#include <cstdint>
#include <optional>
#include <vector>

#include "runtime/step_plan.h"

namespace cohort {

// What recordings differ in.
struct StepKind {
  int64_t rows = 0;         // of the group that has most
  int32_t candidates = 0;   // that tell every row's choice (RecordedCandidatesFor)
  bool by_mass = false;     // some rows are chosen by mass
  bool whole_rows = false;  // some rows may be chosen from all their logits
  bool operator==(const StepKind&) const = default;
};

// Follows the slots of the groups that make the same steps: of one data-parallel group, or of all
// where they exchange rows. Then every rank of every group says the same of a plan.
class RecordableSlots {
 public:
  // Those from `first_slot` on. Ids below `valid_ids` may be chosen. `has_whole_rows`: a rank has
  // all columns of the logits.
  RecordableSlots(int64_t first_slot, int groups, int64_t slots_per_group, int64_t valid_ids,
                  bool has_whole_rows);

  void Reset();  // no slot holds a sequence
  // Nothing where a row of the plan is computed as it comes: of a prompt, with scores, with a
  // choice that records do not tell; or where there is none.
  std::optional<StepKind> KindOf(const StepPlan& plan);
  // The plan is under way. Slots that are not followed may be among its own.
  void Follow(const StepPlan& plan);

 private:
  struct Slot {
    bool is_live = false;
    bool by_mass = false;
    bool whole_row = false;
    int32_t candidates = 0;
    uint64_t length = 0;       // positions planned so far
    uint64_t free_length = 0;  // from this length on no id is held back
  };

  // Null for a slot that is not followed.
  Slot* Find(uint32_t slot);

  int64_t first_slot_;
  int64_t slots_per_group_;
  int64_t valid_ids_;
  bool has_whole_rows_;
  std::vector<Slot> slots_;
  std::vector<int64_t> rows_of_group_;  // of the plan that is looked at
};

}  // namespace cohort

#endif  // COHORT_RUNTIME_RECORDABLE_SLOTS_H_
