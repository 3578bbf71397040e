#include "runtime/recordable_slots.h"

#include <gtest/gtest.h>

namespace cohort {
namespace {

constexpr SamplingParameters kTopK = {.temperature = 1, .top_k = 7};

AdmitSequence Admission(uint32_t slot, const SamplingParameters& sampling) {
  return {.slot = slot, .prompt_tokens = 3, .sampling = sampling};
}

SequenceRows SlotRows(uint32_t slot, size_t count = 1) {
  SequenceRows rows;
  rows.slot = slot;
  rows.tokens.resize(count);
  rows.sample = true;
  return rows;
}

StepPlan PlanOfRows(std::vector<SequenceRows> rows) {
  StepPlan plan;
  plan.rows = std::move(rows);
  return plan;
}

// Two groups of four slots, in which 0 and 5 hold prompts of three tokens.
RecordableSlots TwoGroups() {
  RecordableSlots slots(0, 2, 4, 100, false);
  StepPlan plan = PlanOfRows({SlotRows(0, 3), SlotRows(5, 3)});
  plan.admits = {Admission(0, {}), Admission(5, kTopK)};
  EXPECT_EQ(slots.KindOf(plan), std::nullopt);
  slots.Follow(plan);
  return slots;
}

TEST(RecordableSlots, AStepIsAsLargeAsThatOfTheLargestGroup) {
  RecordableSlots slots = TwoGroups();
  EXPECT_EQ(slots.KindOf(PlanOfRows({SlotRows(0), SlotRows(5)})),
            (StepKind{.rows = 1, .candidates = 7}));
  EXPECT_EQ(slots.KindOf(PlanOfRows({SlotRows(0)})), (StepKind{.rows = 1, .candidates = 1}));
  StepPlan plan = PlanOfRows({SlotRows(6, 3)});
  plan.admits = {Admission(6, {.temperature = 1})};
  slots.Follow(plan);
  EXPECT_EQ(slots.KindOf(PlanOfRows({SlotRows(0), SlotRows(5), SlotRows(6)})),
            (StepKind{.rows = 2, .candidates = 7, .by_mass = true}));
}

TEST(RecordableSlots, WhatIsComputedAsItComesIsSoForAllGroups) {
  RecordableSlots slots = TwoGroups();
  EXPECT_EQ(slots.KindOf(PlanOfRows({})), std::nullopt);
  EXPECT_EQ(slots.KindOf(PlanOfRows({SlotRows(0), SlotRows(7)})), std::nullopt)
      << "nobody is in slot 7";
  EXPECT_EQ(slots.KindOf(PlanOfRows({SlotRows(0), SlotRows(5, 2)})), std::nullopt);
  StepPlan plan = PlanOfRows({SlotRows(0), SlotRows(5)});
  plan.rows[1].sample = false;
  EXPECT_EQ(slots.KindOf(plan), std::nullopt);
  plan = PlanOfRows({SlotRows(0), SlotRows(5)});
  plan.rows[1].score_targets = {3};
  EXPECT_EQ(slots.KindOf(plan), std::nullopt);
  plan = PlanOfRows({SlotRows(0), SlotRows(5)});
  plan.admits = {Admission(6, {})};
  EXPECT_EQ(slots.KindOf(plan), std::nullopt);
}

TEST(RecordableSlots, OthersAreNotFollowed) {
  RecordableSlots slots(4, 1, 4, 100, false);
  StepPlan plan = PlanOfRows({SlotRows(0, 3), SlotRows(5, 3)});
  plan.admits = {Admission(0, {.logprobs = 2}), Admission(5, kTopK)};
  slots.Follow(plan);
  plan = PlanOfRows({SlotRows(0, 9), SlotRows(5)});
  plan.admits = {Admission(1, {})};
  EXPECT_EQ(slots.KindOf(plan), (StepKind{.rows = 1, .candidates = 7}));
}

TEST(RecordableSlots, ReleasedSlotsHoldNothing) {
  RecordableSlots slots = TwoGroups();
  StepPlan plan = PlanOfRows({SlotRows(0), SlotRows(5)});
  plan.releases = {5};
  slots.Follow(plan);
  EXPECT_EQ(slots.KindOf(PlanOfRows({SlotRows(0), SlotRows(5)})), std::nullopt);
  EXPECT_NE(slots.KindOf(PlanOfRows({SlotRows(0)})), std::nullopt);
  slots.Reset();
  EXPECT_EQ(slots.KindOf(PlanOfRows({SlotRows(0)})), std::nullopt);
}

TEST(RecordableSlots, IdsAreHeldBackUntilEnoughAreGenerated) {
  RecordableSlots slots(0, 1, 1, 100, false);
  StepPlan plan = PlanOfRows({SlotRows(0, 3)});
  plan.admits = {Admission(0, {})};
  plan.admits[0].min_tokens = 2;
  plan.admits[0].held_back_ids = {4};
  slots.Follow(plan);
  // The first token was chosen with the prompt; this step chooses the second.
  EXPECT_EQ(slots.KindOf(PlanOfRows({SlotRows(0)})), std::nullopt);
  slots.Follow(PlanOfRows({SlotRows(0)}));
  EXPECT_NE(slots.KindOf(PlanOfRows({SlotRows(0)})), std::nullopt);
}

TEST(RecordableSlots, WholeRowsAreReadWhereARankHasThem) {
  for (const bool has_whole_rows : {false, true}) {
    RecordableSlots slots(0, 1, 2, 1000, has_whole_rows);
    StepPlan plan = PlanOfRows({SlotRows(0, 3), SlotRows(1, 3)});
    plan.admits = {Admission(0, {}), Admission(1, {.temperature = 1, .top_p = 0.9f})};
    slots.Follow(plan);
    EXPECT_EQ(slots.KindOf(PlanOfRows({SlotRows(0)})), (StepKind{.rows = 1, .candidates = 1}));
    const auto kind = slots.KindOf(PlanOfRows({SlotRows(0), SlotRows(1)}));
    ASSERT_EQ(kind.has_value(), has_whole_rows);
    if (has_whole_rows) {
      EXPECT_EQ(*kind, (StepKind{.rows = 2, .candidates = 128, .whole_rows = true}));
    }
  }
}

}  // namespace
}  // namespace cohort
