#include "kernels/reduction_sizes.h"

#include <gtest/gtest.h>

#include <limits>

namespace cohort {
namespace {

constexpr float kNever = std::numeric_limits<float>::infinity();

TEST(ChooseBorders, EachSizeGoesTheFastestWay) {
  const std::vector<ReductionTimes> times = {
      {4, 5, 8, 20}, {8, 6, 8, 20}, {16, 9, 9.5f, 20}, {32, 15, 11, 21}, {64, 28, 24, 22}};
  EXPECT_EQ(ChooseBorders(times), (ReductionBorders{.one_shot = 16, .two_shot = 32}));
}

TEST(ChooseBorders, AWayThatNeverWinsIsNotTaken) {
  EXPECT_EQ(ChooseBorders({{4, 9, 8, 7}, {8, 9, 8, 7}}), ReductionBorders());
  EXPECT_EQ(ChooseBorders({{4, 5, 8, 7}, {8, 6, 8, 7}}), (ReductionBorders{.one_shot = 8}));
  EXPECT_EQ(ChooseBorders({{4, 9, 5, 7}, {8, 9, 6, 7}}), (ReductionBorders{.two_shot = 8}));
  EXPECT_EQ(ChooseBorders({}), ReductionBorders());
}

TEST(ChooseBorders, OneBadTimeInTheMiddleMovesNothing) {
  EXPECT_EQ(ChooseBorders({{4, 5, 8, 20}, {8, 23, 24, 20}, {16, 6, 9, 20}, {32, 30, 29, 21}}),
            (ReductionBorders{.one_shot = 16}));
}

TEST(ChooseBorders, WhatDoesNotGoInOneExchangeGoesInTwo) {
  EXPECT_EQ(ChooseBorders({{4, 5, 6, 20}, {8, kNever, 8, 20}}),
            (ReductionBorders{.one_shot = 4, .two_shot = 8}));
}

}  // namespace
}  // namespace cohort
