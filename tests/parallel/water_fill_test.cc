#include "parallel/water_fill.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>
#include <random>
#include <vector>

namespace cohort {
namespace {

using Units = std::vector<int64_t>;

int64_t Fullest(const Units& loads, int64_t unit_load, const Units& units) {
  int64_t fullest = loads[0] + unit_load * units[0];
  for (size_t i = 1; i < loads.size(); ++i) {
    fullest = std::max(fullest, loads[i] + unit_load * units[i]);
  }
  return fullest;
}

TEST(WaterFill, RaisesTheLowestFirst) {
  EXPECT_EQ(WaterFill(Units{5, 0, 2}, 2, 4, 0), (Units{0, 3, 1}));
  EXPECT_EQ(WaterFill(Units{0, 0, 0}, 7, 5, 0), (Units{2, 2, 1}));
  EXPECT_EQ(WaterFill(Units{-10, 0}, 1, 10, 0), (Units{10, 0}));
}

TEST(WaterFill, GivesEveryoneTheMinimumWhateverTheLoad) {
  EXPECT_EQ(WaterFill(Units{1000, 0}, 1, 5, 1), (Units{1, 4}));
  EXPECT_EQ(WaterFill(Units{1000, 0}, 1, 2, 1), (Units{1, 1}));
}

TEST(WaterFill, HandsOutNothingWhenThereIsNothing) {
  EXPECT_EQ(WaterFill(Units{3, 1}, 4, 0, 0), (Units{0, 0}));
}

// The lowest possible maximum over all ways to hand out the rest, one holder after the other.
int64_t BestFullest(const Units& loads, int64_t unit_load, int64_t units, int64_t minimum,
                    size_t holder) {
  if (holder + 1 == loads.size()) {
    return units < minimum ? INT64_MAX : loads[holder] + unit_load * units;
  }
  int64_t best = INT64_MAX;
  for (int64_t own = minimum; own <= units; ++own) {
    best =
        std::min(best, std::max(loads[holder] + unit_load * own,
                                BestFullest(loads, unit_load, units - own, minimum, holder + 1)));
  }
  return best;
}

TEST(WaterFill, IsAsGoodAsTryingEverything) {
  for (uint32_t seed = 0; seed < 300; ++seed) {
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    std::mt19937 random(seed);
    Units loads(1 + random() % 4);
    for (int64_t& load : loads) {
      load = static_cast<int64_t>(random() % 41) - 10;
    }
    const int64_t unit_load = 1 + random() % 9;
    const int64_t minimum = random() % 2;
    const auto holders = static_cast<int64_t>(loads.size());
    const int64_t units = minimum * holders + random() % 12;
    const Units result = WaterFill(loads, unit_load, units, minimum);
    EXPECT_EQ(std::accumulate(result.begin(), result.end(), int64_t{0}), units);
    EXPECT_GE(*std::min_element(result.begin(), result.end()), minimum);
    EXPECT_EQ(Fullest(loads, unit_load, result), BestFullest(loads, unit_load, units, minimum, 0));
  }
}

}  // namespace
}  // namespace cohort
