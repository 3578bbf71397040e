#include "runtime/recordable_slots.h"

#include <algorithm>

#include "runtime/step_buckets.h"

namespace cohort {

RecordableSlots::RecordableSlots(int64_t first_slot, int groups, int64_t slots_per_group,
                                 int64_t valid_ids, bool has_whole_rows)
    : first_slot_(first_slot),
      slots_per_group_(slots_per_group),
      valid_ids_(valid_ids),
      has_whole_rows_(has_whole_rows),
      slots_(static_cast<size_t>(groups * slots_per_group)),
      rows_of_group_(static_cast<size_t>(groups)) {}

void RecordableSlots::Reset() { std::fill(slots_.begin(), slots_.end(), Slot()); }

RecordableSlots::Slot* RecordableSlots::Find(uint32_t slot) {
  const int64_t index = int64_t{slot} - first_slot_;
  return index >= 0 && index < static_cast<int64_t>(slots_.size())
             ? &slots_[static_cast<size_t>(index)]
             : nullptr;
}

std::optional<StepKind> RecordableSlots::KindOf(const StepPlan& plan) {
  if (std::any_of(plan.admits.begin(), plan.admits.end(),
                  [this](const AdmitSequence& admit) { return Find(admit.slot) != nullptr; })) {
    return std::nullopt;
  }
  StepKind kind;
  std::fill(rows_of_group_.begin(), rows_of_group_.end(), 0);
  for (const SequenceRows& rows : plan.rows) {
    const Slot* slot = Find(rows.slot);
    if (slot == nullptr) {
      continue;
    }
    if (!slot->is_live || slot->candidates == 0 || slot->length + 1 < slot->free_length ||
        rows.tokens.size() != 1 || !rows.sample || !rows.score_targets.empty()) {
      return std::nullopt;
    }
    kind.candidates = std::max(kind.candidates, slot->candidates);
    kind.by_mass = kind.by_mass || slot->by_mass;
    kind.whole_rows = kind.whole_rows || slot->whole_row;
    ++rows_of_group_[static_cast<size_t>((slot - slots_.data()) / slots_per_group_)];
  }
  kind.rows = *std::max_element(rows_of_group_.begin(), rows_of_group_.end());
  return kind.rows > 0 ? std::optional(kind) : std::nullopt;
}

void RecordableSlots::Follow(const StepPlan& plan) {
  for (const AdmitSequence& admit : plan.admits) {
    if (Slot* slot = Find(admit.slot); slot != nullptr) {
      *slot = {
          .is_live = true,
          .by_mass = IsChosenByMass(admit.sampling, valid_ids_),
          .whole_row = MayNeedWholeRow(admit.sampling, valid_ids_),
          .candidates = RecordedCandidatesFor(admit.sampling, valid_ids_, has_whole_rows_),
          .length = admit.first_position,
          .free_length = admit.held_back_ids.empty() ? 0 : admit.prompt_tokens + admit.min_tokens};
    }
  }
  for (const SequenceRows& rows : plan.rows) {
    if (Slot* slot = Find(rows.slot); slot != nullptr) {
      slot->length += rows.tokens.size();
    }
  }
  for (const uint32_t released : plan.releases) {
    if (Slot* slot = Find(released); slot != nullptr) {
      slot->is_live = false;
    }
  }
}

}  // namespace cohort
