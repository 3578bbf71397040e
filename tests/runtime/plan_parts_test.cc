#include "runtime/plan_parts.h"

#include <gtest/gtest.h>

namespace cohort {
namespace {

constexpr int64_t kSlots = 4;

StepPlan PartWith(uint32_t admitted, uint32_t released) {
  StepPlan part;
  part.epoch = 3;
  part.step = 9;
  part.admits = {{.slot = admitted, .prompt_tokens = 2, .sampling = {}}};
  for (const uint32_t slot : {admitted, admitted + 1}) {
    part.rows.emplace_back();
    part.rows.back().slot = slot;
    part.rows.back().tokens = {{.id = static_cast<int32_t>(slot)}};
  }
  part.releases = {released};
  return part;
}

TEST(PlanParts, EveryGroupFindsItsOwnPartAgain) {
  const std::vector<StepPlan> parts = {PartWith(0, 3), PartWith(2, 0), PartWith(1, 3)};
  StepPlan whole;
  whole.epoch = 3;
  whole.step = 9;
  for (const int group : {0, 2}) {  // the second has nothing to do
    AppendPart(parts[static_cast<size_t>(group)], group, kSlots, whole);
  }
  EXPECT_EQ(whole.rows[2].slot, 9u);
  EXPECT_EQ(whole.releases, (std::vector<uint32_t>{3, 11}));
  for (const int group : {0, 2}) {
    EXPECT_EQ(*PartOf(whole, group, 3, kSlots), parts[static_cast<size_t>(group)]) << group;
  }
  StepPlan idle;
  idle.epoch = 3;
  idle.step = 9;
  EXPECT_EQ(*PartOf(whole, 1, 3, kSlots), idle);
}

TEST(PlanParts, ASlotOfNoGroupIsNotPassedOver) {
  StepPlan whole = PartWith(0, 8);
  const absl::Status status = PartOf(whole, 0, 2, kSlots).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInternal);
  EXPECT_EQ(status.message(), "the plan names slot 8 of 8");
}

TEST(PlanParts, RowsAndWantedOnesAreCountedByGroup) {
  StepPlan whole;
  whole.rows.resize(4);
  whole.rows[0].slot = 1;  // a prompt that is not over
  whole.rows[0].tokens.resize(5);
  whole.rows[1].slot = 3;  // scored, and sampled from its last row, which has a target too
  whole.rows[1].tokens.resize(3);
  whole.rows[1].score_targets = {-1, 7, 8};
  whole.rows[1].sample = true;
  whole.rows[2].slot = 8;  // the same without a target there
  whole.rows[2].tokens.resize(2);
  whole.rows[2].score_targets = {7, -1};
  whole.rows[2].sample = true;
  whole.rows[3].slot = 11;  // a decode
  whole.rows[3].tokens.resize(1);
  whole.rows[3].sample = true;
  const GroupRows counts = RowsOfGroups(whole, 3, kSlots);
  EXPECT_EQ(counts.all, (std::vector<int64_t>{8, 0, 3}));
  EXPECT_EQ(counts.wanted, (std::vector<int64_t>{2, 0, 3}));
}

}  // namespace
}  // namespace cohort
