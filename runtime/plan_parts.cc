#include "runtime/plan_parts.h"

#include <algorithm>
#include <iterator>
#include <utility>

#include "kernels/check.h"

namespace cohort {
namespace {

template <class T>
void MoveAll(std::vector<T>& from, std::vector<T>& to) {
  to.insert(to.end(), std::make_move_iterator(from.begin()), std::make_move_iterator(from.end()));
}

}  // namespace

void AppendPart(StepPlan part, int group, int64_t slots, StepPlan& whole) {
  CHECK_EQ(part.epoch, whole.epoch);
  CHECK_EQ(part.step, whole.step);
  const uint32_t first = static_cast<uint32_t>(group * slots);
  for (AdmitSequence& admit : part.admits) {
    admit.slot += first;
  }
  for (SequenceRows& rows : part.rows) {
    rows.slot += first;
  }
  for (uint32_t& slot : part.releases) {
    slot += first;
  }
  MoveAll(part.admits, whole.admits);
  MoveAll(part.rows, whole.rows);
  MoveAll(part.releases, whole.releases);
}

absl::StatusOr<StepPlan> PartOf(StepPlan whole, int group, int groups, int64_t slots) {
  const int64_t first = group * slots;
  int64_t largest = 0;
  // Whether the slot is not the group's; if it is, it becomes the group's own number of it.
  const auto is_foreign = [&](uint32_t& slot) {
    largest = std::max<int64_t>(largest, slot);
    const bool own = slot >= first && slot < first + slots;
    slot -= own ? static_cast<uint32_t>(first) : 0;
    return !own;
  };
  std::erase_if(whole.admits, [&](AdmitSequence& admit) { return is_foreign(admit.slot); });
  std::erase_if(whole.rows, [&](SequenceRows& rows) { return is_foreign(rows.slot); });
  std::erase_if(whole.releases, is_foreign);
  if (largest >= groups * slots) {
    return absl::InternalError(
        absl::StrCat("the plan names slot ", largest, " of ", groups * slots));
  }
  return whole;
}

GroupRows RowsOfGroups(const StepPlan& whole, int groups, int64_t slots) {
  GroupRows counts;
  counts.all.resize(static_cast<size_t>(groups));
  counts.wanted.resize(static_cast<size_t>(groups));
  for (const SequenceRows& rows : whole.rows) {
    const int64_t group = int64_t{rows.slot} / slots;
    if (group >= groups) {
      continue;
    }
    const std::vector<int32_t>& targets = rows.score_targets;
    const bool samples_another = rows.sample && (targets.empty() || targets.back() < 0);
    counts.all[static_cast<size_t>(group)] += static_cast<int64_t>(rows.tokens.size());
    counts.wanted[static_cast<size_t>(group)] +=
        std::count_if(targets.begin(), targets.end(), [](int32_t target) { return target >= 0; }) +
        (samples_another ? 1 : 0);
  }
  return counts;
}

}  // namespace cohort
