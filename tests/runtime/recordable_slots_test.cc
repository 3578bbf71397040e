#include "runtime/recordable_slots.h"

#include <gtest/gtest.h>

namespace cohort {
namespace {

constexpr SamplingParameters kTopK = {.temperature = 1, .top_k = 7};

AdmitSequence Admit(uint32_t slot, const SamplingParameters& sampling) {
  return {.slot = slot, .prompt_tokens = 3, .sampling = sampling};
}

SequenceRows Rows(uint32_t slot, size_t count = 1) {
  SequenceRows rows;
  rows.slot = slot;
  rows.tokens.resize(count);
  rows.sample = true;
  return rows;
}

StepPlan Plan(std::vector<SequenceRows> rows) {
  StepPlan plan;
  plan.rows = std::move(rows);
  return plan;
}

// Two groups of four slots, in which 0 and 5 hold prompts of three tokens.
RecordableSlots TwoGroups() {
  RecordableSlots slots(0, 2, 4, 100);
  StepPlan plan = Plan({Rows(0, 3), Rows(5, 3)});
  plan.admits = {Admit(0, {}), Admit(5, kTopK)};
  EXPECT_EQ(slots.KindOf(plan), std::nullopt);
  slots.Follow(plan);
  return slots;
}

TEST(RecordableSlots, AStepIsAsLargeAsThatOfTheLargestGroup) {
  RecordableSlots slots = TwoGroups();
  EXPECT_EQ(slots.KindOf(Plan({Rows(0), Rows(5)})), (StepKind{.rows = 1, .candidates = 7}));
  EXPECT_EQ(slots.KindOf(Plan({Rows(0)})), (StepKind{.rows = 1, .candidates = 1}));
  StepPlan plan = Plan({Rows(6, 3)});
  plan.admits = {Admit(6, {.temperature = 1})};
  slots.Follow(plan);
  EXPECT_EQ(slots.KindOf(Plan({Rows(0), Rows(5), Rows(6)})),
            (StepKind{.rows = 2, .candidates = 7, .by_mass = true}));
}

TEST(RecordableSlots, WhatIsComputedAsItComesIsSoForAllGroups) {
  RecordableSlots slots = TwoGroups();
  EXPECT_EQ(slots.KindOf(Plan({})), std::nullopt);
  EXPECT_EQ(slots.KindOf(Plan({Rows(0), Rows(7)})), std::nullopt) << "nobody is in slot 7";
  EXPECT_EQ(slots.KindOf(Plan({Rows(0), Rows(5, 2)})), std::nullopt);
  StepPlan plan = Plan({Rows(0), Rows(5)});
  plan.rows[1].sample = false;
  EXPECT_EQ(slots.KindOf(plan), std::nullopt);
  plan = Plan({Rows(0), Rows(5)});
  plan.rows[1].score_targets = {3};
  EXPECT_EQ(slots.KindOf(plan), std::nullopt);
  plan = Plan({Rows(0), Rows(5)});
  plan.admits = {Admit(6, {})};
  EXPECT_EQ(slots.KindOf(plan), std::nullopt);
}

TEST(RecordableSlots, OthersAreNotFollowed) {
  RecordableSlots slots(4, 1, 4, 100);
  StepPlan plan = Plan({Rows(0, 3), Rows(5, 3)});
  plan.admits = {Admit(0, {.logprobs = 2}), Admit(5, kTopK)};
  slots.Follow(plan);
  plan = Plan({Rows(0, 9), Rows(5)});
  plan.admits = {Admit(1, {})};
  EXPECT_EQ(slots.KindOf(plan), (StepKind{.rows = 1, .candidates = 7}));
}

TEST(RecordableSlots, ReleasedSlotsHoldNothing) {
  RecordableSlots slots = TwoGroups();
  StepPlan plan = Plan({Rows(0), Rows(5)});
  plan.releases = {5};
  slots.Follow(plan);
  EXPECT_EQ(slots.KindOf(Plan({Rows(0), Rows(5)})), std::nullopt);
  EXPECT_NE(slots.KindOf(Plan({Rows(0)})), std::nullopt);
  slots.Reset();
  EXPECT_EQ(slots.KindOf(Plan({Rows(0)})), std::nullopt);
}

TEST(RecordableSlots, IdsAreHeldBackUntilEnoughAreGenerated) {
  RecordableSlots slots(0, 1, 1, 100);
  StepPlan plan = Plan({Rows(0, 3)});
  plan.admits = {Admit(0, {})};
  plan.admits[0].min_tokens = 2;
  plan.admits[0].held_back_ids = {4};
  slots.Follow(plan);
  // The first token was chosen with the prompt; this step chooses the second.
  EXPECT_EQ(slots.KindOf(Plan({Rows(0)})), std::nullopt);
  slots.Follow(Plan({Rows(0)}));
  EXPECT_NE(slots.KindOf(Plan({Rows(0)})), std::nullopt);
}

}  // namespace
}  // namespace cohort
