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

}  // namespace
}  // namespace cohort
