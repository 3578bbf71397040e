#include "runtime/performance_model.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

namespace cohort {
namespace {

using ::testing::HasSubstr;

Hardware Named(StringView name) {
  const auto hardware = FindHardware(name);
  EXPECT_TRUE(hardware.ok()) << hardware.status();
  return *hardware;
}

TEST(PerformanceModel, HardwareIsFoundInAnyCase) {
  EXPECT_EQ(Named("H200").memory_bytes, int64_t{143771} << 20);
  EXPECT_EQ(Named("h100").name, "H100");
  EXPECT_TRUE(Named("cpu").is_shared);
  const absl::Status status = FindHardware("H300").status();
  EXPECT_TRUE(absl::IsNotFound(status));
  EXPECT_THAT(std::string(status.message()),
              HasSubstr("'H300' is not one of A100, L40S, H100, H200, B200, CPU"));
}

TEST(PerformanceModel, TheReserveGrowsWithTheMemoryAndNeverExceedsIt) {
  const Hardware large = WithMemory(Named("H200"), 200'000'000'000);
  EXPECT_EQ(large.reserve_bytes, (int64_t{1} << 30) + 4'000'000'000);
  EXPECT_EQ(large.bytes_per_second, Named("H200").bytes_per_second);
  EXPECT_EQ(WithMemory(large, 1000).reserve_bytes, 1000);
}

TEST(PerformanceModel, AStepTakesTheSlowerOfMemoryAndArithmetic) {
  Hardware hardware;
  hardware.bytes_per_second = 100;
  hardware.operations_per_second = 1000;
  EXPECT_DOUBLE_EQ(ComputeSeconds(hardware, {.bytes = 50, .operations = 400}, 1), 0.5);
  EXPECT_DOUBLE_EQ(ComputeSeconds(hardware, {.bytes = 50, .operations = 600}, 1), 0.6);
  EXPECT_DOUBLE_EQ(ComputeSeconds(hardware, {.bytes = 50, .operations = 400}, 3), 1.5);
}

// MSCCL++ on 8 H100; read off a chart to 3-5%.
TEST(PerformanceModel, AllReducePassesThroughThePublishedPoints) {
  const std::vector<std::pair<double, double>> points = {
      {16e3, 6.5}, {32e3, 6.5}, {64e3, 6.6}, {128e3, 6.8}, {256e3, 7.4}, {512e3, 8.3}, {1e6, 10.3}};
  for (const auto& [bytes, microseconds] : points) {
    EXPECT_NEAR(AllReduceSeconds(Named("H100"), {.ranks = 8}, bytes) * 1e6, microseconds,
                0.03 * microseconds)
        << bytes;
  }
}

TEST(PerformanceModel, OneRankWaitsForNobodyAndNodesCostMore) {
  const Hardware h100 = Named("H100");
  EXPECT_EQ(AllReduceSeconds(h100, {}, 1e9), 0);
  EXPECT_EQ(AllToAllSeconds(h100, {}, 1e9), 0);
  const double one = AllReduceSeconds(h100, {.ranks = 8, .nodes = 1}, 1e6);
  const double two = AllReduceSeconds(h100, {.ranks = 8, .nodes = 2}, 1e6);
  EXPECT_NEAR(two - one, 10e-6 + 2 * 1e6 / (4 * 50e9), 1e-9);
  EXPECT_GT(AllToAllSeconds(h100, {.ranks = 16, .nodes = 2}, 1e6),
            AllToAllSeconds(h100, {.ranks = 16, .nodes = 1}, 1e6));
}

TEST(PerformanceModel, DistinctExpertsOfABatch) {
  EXPECT_DOUBLE_EQ(DistinctExperts(64, 8, 1), 8);
  EXPECT_NEAR(DistinctExperts(64, 8, 8), 42.0, 0.05);
  EXPECT_NEAR(DistinctExperts(64, 8, 32), 63.1, 0.05);
}

// By enumeration of every choice of `drawn` experts.
struct Enumerated {
  double busiest = 0;
  double hit = 0;
};
Enumerated Enumerate(const std::vector<int64_t>& groups, int64_t drawn) {
  std::vector<int> group_of;
  for (size_t group = 0; group < groups.size(); ++group) {
    group_of.insert(group_of.end(), static_cast<size_t>(groups[group]), static_cast<int>(group));
  }
  Enumerated sum;
  double choices = 0;
  for (unsigned chosen = 0; chosen < (1u << group_of.size()); ++chosen) {
    if (__builtin_popcount(chosen) != drawn) {
      continue;
    }
    std::vector<int64_t> counts(groups.size());
    for (size_t expert = 0; expert < group_of.size(); ++expert) {
      counts[static_cast<size_t>(group_of[expert])] += chosen >> expert & 1;
    }
    sum.busiest += static_cast<double>(*std::max_element(counts.begin(), counts.end()));
    sum.hit += static_cast<double>(counts.size()) -
               static_cast<double>(std::count(counts.begin(), counts.end(), 0));
    ++choices;
  }
  return {sum.busiest / choices, sum.hit / choices};
}

TEST(PerformanceModel, TheBusiestGroupIsThatOfEveryChoice) {
  for (const std::vector<int64_t>& groups :
       {std::vector<int64_t>{3, 3, 3}, {4, 2, 1, 3}, {10}, {1, 1, 1, 1, 1, 1}, {6, 5}}) {
    for (const int64_t drawn : {1, 2, 3, 5, 6}) {
      const Enumerated expected = Enumerate(groups, drawn);
      EXPECT_NEAR(BusiestGroupExperts(groups, drawn), expected.busiest, 1e-12);
      EXPECT_NEAR(GroupsOfOneToken(groups, drawn), expected.hit, 1e-12);
    }
  }
}

TEST(PerformanceModel, EightOfSixtyFourOnEightGroups) {
  const std::vector<int64_t> groups(8, 8);
  EXPECT_NEAR(BusiestGroupExperts(groups, 8), 2.46, 0.005);
  EXPECT_EQ(BusiestGroupExperts(groups, 64), 8);
}

TEST(PerformanceModel, VeryManyExpertsAreEvenlyHit) {
  const std::vector<int64_t> groups = {500, 500};
  EXPECT_EQ(BusiestGroupExperts(groups, 100), 50);
}

}  // namespace
}  // namespace cohort
