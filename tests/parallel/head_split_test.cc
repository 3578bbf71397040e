#include "parallel/head_split.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <vector>

namespace cohort {
namespace {

using Split = HeadSplit;

struct Quality {
  int64_t slowest = 0;   // bytes
  int64_t replicas = 0;  // KV heads read, summed over ranks
};

Quality QualityOf(const HeadCosts& costs, const Split& split) {
  Quality quality;
  for (const Range heads : split) {
    quality.slowest = std::max(quality.slowest, AttentionBytes(costs, heads));
    quality.replicas += KvHeadsOf(costs, heads).size();
  }
  return quality;
}

void ForEachSplit(int64_t heads, int ranks, const std::function<void(const Split&)>& visit) {
  Split split;
  const std::function<void(int64_t)> extend = [&](int64_t begin) {
    const int64_t left = ranks - static_cast<int64_t>(split.size());
    if (left == 1) {
      split.push_back({begin, heads});
      visit(split);
      split.pop_back();
      return;
    }
    for (int64_t end = begin + 1; end <= heads - (left - 1); ++end) {
      split.push_back({begin, end});
      extend(end);
      split.pop_back();
    }
  };
  extend(0);
}

TEST(HeadSplit, ARankReadsEveryKvHeadItsQueriesUse) {
  const HeadCosts costs = {28, 4, 10, 3};
  EXPECT_EQ(KvHeadsOf(costs, {0, 7}), (Range{0, 1}));
  EXPECT_EQ(KvHeadsOf(costs, {6, 8}), (Range{0, 2}));
  EXPECT_EQ(AttentionBytes(costs, {6, 8}), 2 * 10 + 2 * 3);
}

TEST(HeadSplit, SevenHeadGroupsOnEightRanksStayInsideTheirGroups) {
  const std::vector<Split> splits = AttentionSplits({28, 4, 10, 3}, 8);
  ASSERT_EQ(splits.size(), 1u);
  for (const Range heads : splits[0]) {
    EXPECT_TRUE(heads.size() == 3 || heads.size() == 4) << heads.size();
    EXPECT_EQ(KvHeadsOf({28, 4, 10, 3}, heads).size(), 1);
  }
}

TEST(HeadSplit, OffersTheEvenCutAndTheCutAlongGroups) {
  const HeadCosts costs = {28, 4, 10, 3};
  const std::vector<Split> splits = AttentionSplits(costs, 3);
  EXPECT_EQ(QualityOf(costs, splits.front()).slowest, 10 * 10 + 2 * 3);
  EXPECT_EQ(QualityOf(costs, splits.back()).replicas, 4);
}

// A cut that is not offered is beaten by one that is, in both qualities.
TEST(HeadSplit, NoCutIsBetterThanAllThatAreOffered) {
  for (const HeadCosts costs :
       {HeadCosts{6, 2, 5, 2}, HeadCosts{6, 3, 1, 10}, HeadCosts{9, 3, 4, 4},
        HeadCosts{10, 5, 3, 7}, HeadCosts{10, 2, 1, 100}, HeadCosts{8, 8, 2, 9},
        HeadCosts{7, 1, 2, 3}}) {
    for (int ranks = 1; ranks <= costs.query_heads; ++ranks) {
      SCOPED_TRACE(testing::Message() << costs.query_heads << " heads, " << costs.kv_heads
                                      << " KV heads, " << ranks << " ranks");
      const std::vector<Split> offered = AttentionSplits(costs, ranks);
      ForEachSplit(costs.query_heads, ranks, [&](const Split& split) {
        const Quality rival = QualityOf(costs, split);
        EXPECT_TRUE(std::any_of(offered.begin(), offered.end(), [&](const Split& candidate) {
          const Quality quality = QualityOf(costs, candidate);
          return quality.slowest <= rival.slowest && quality.replicas <= rival.replicas;
        }));
      });
    }
  }
}

TEST(HeadSplit, OffersAreOrderedFromEvenToFewReplicas) {
  const HeadCosts costs = {64, 8, 30, 50};
  for (int ranks = 1; ranks <= 64; ++ranks) {
    const std::vector<Split> splits = AttentionSplits(costs, ranks);
    for (size_t i = 1; i < splits.size(); ++i) {
      EXPECT_GT(QualityOf(costs, splits[i]).slowest, QualityOf(costs, splits[i - 1]).slowest);
      EXPECT_LT(QualityOf(costs, splits[i]).replicas, QualityOf(costs, splits[i - 1]).replicas);
    }
    EXPECT_EQ(QualityOf(costs, splits.back()).replicas, std::max(ranks, 8));
  }
}

}  // namespace
}  // namespace cohort
