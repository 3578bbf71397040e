#include "runtime/expert_load.h"

#include <gtest/gtest.h>

namespace cohort {
namespace {

std::vector<int32_t> Take(ExpertLoad& load, const std::vector<int32_t>& counts, int64_t experts) {
  std::vector<int32_t> gained = {7};  // of another time
  load.Take(counts, experts, gained);
  return gained;
}

TEST(ExpertLoad, IsWhatAllLayersGainedSinceTheLastLook) {
  ExpertLoad load;
  const std::vector<int32_t> first = {1, 2, -1, 10, 20, 0};
  EXPECT_EQ(Take(load, first, 3), (std::vector<int32_t>{11, 22, -1}));
  EXPECT_EQ(Take(load, first, 3), (std::vector<int32_t>{0, 0, 0}));
  // The third wrapped around.
  EXPECT_EQ(Take(load, {1, 5, 4, 12, 20, 1}, 3), (std::vector<int32_t>{2, 3, 6}));
}

TEST(ExpertLoad, IsEmptyWithoutSparseLayers) {
  ExpertLoad load;
  EXPECT_TRUE(Take(load, {}, 0).empty());
}

}  // namespace
}  // namespace cohort
