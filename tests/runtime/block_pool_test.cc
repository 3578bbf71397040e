#include "runtime/block_pool.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <random>

namespace cohort {
namespace {

TEST(BlockPool, HandsOutTheLowestIdsFirst) {
  BlockPool pool(4);
  EXPECT_EQ(*pool.Allocate(2), (std::vector<int32_t>{0, 1}));
  EXPECT_EQ(*pool.Allocate(1), (std::vector<int32_t>{2}));
  EXPECT_EQ(pool.used(), 3);
  EXPECT_EQ(pool.available(), 1);
  EXPECT_EQ(pool.total(), 4);
}

TEST(BlockPool, TakesNothingWhenTooFewAreFree) {
  BlockPool pool(3);
  ASSERT_TRUE(pool.Allocate(2).ok());
  const auto refused = pool.Allocate(2);
  EXPECT_EQ(refused.status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_NE(refused.status().message().find("2 KV blocks wanted, 1 of 3"), StringView::npos);
  EXPECT_EQ(pool.available(), 1);
  EXPECT_TRUE(pool.Allocate(0)->empty());
}

TEST(BlockPool, ABlockIsFreeWhenItsLastReferenceGoes) {
  BlockPool pool(2);
  const std::vector<int32_t> block = *pool.Allocate(1);
  pool.AddReference(block[0]);
  pool.Release(block);
  EXPECT_EQ(pool.used(), 1);
  pool.Release(block);
  EXPECT_EQ(pool.used(), 0);
}

TEST(BlockPoolDeathTest, UsingAFreeBlockIsABug) {
  BlockPool pool(2);
  EXPECT_DEATH(pool.Release({1}), "block 1 has no reference");
  EXPECT_DEATH(pool.AddReference(0), "block 0 is free");
  EXPECT_DEATH(pool.Release({2}), "block 2 of 2");
}

TEST(BlockPool, CountsAgreeWithANaiveModelUnderRandomOperations) {
  for (uint64_t seed = 0; seed < 20; ++seed) {
    SCOPED_TRACE(seed);
    std::mt19937_64 random(seed);
    BlockPool pool(17);
    std::map<int32_t, int> references;
    for (int operation = 0; operation < 500; ++operation) {
      const uint64_t kind = random() % 3;
      if (kind == 0) {
        const auto blocks = pool.Allocate(static_cast<int64_t>(random() % 6));
        for (const int32_t block : blocks.ok() ? *blocks : std::vector<int32_t>()) {
          ASSERT_EQ(references.count(block), 0u);
          references[block] = 1;
        }
      } else if (!references.empty()) {
        auto chosen = references.begin();
        std::advance(chosen, static_cast<int64_t>(random() % references.size()));
        if (kind == 1) {
          pool.AddReference(chosen->first);
          ++chosen->second;
        } else {
          pool.Release({chosen->first});
          if (--chosen->second == 0) {
            references.erase(chosen);
          }
        }
      }
      ASSERT_EQ(pool.used(), static_cast<int64_t>(references.size()));
    }
  }
}

}  // namespace
}  // namespace cohort
