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

TEST(BlockPool, KeptBlocksAreCachedAndTakenLastTheOldestFirst) {
  std::vector<int32_t> evicted;
  BlockPool pool(4, [&](int32_t block) { evicted.push_back(block); });
  const std::vector<int32_t> first = *pool.Allocate(2);   // 0, 1
  const std::vector<int32_t> second = *pool.Allocate(1);  // 2
  pool.Keep(0);
  pool.Keep(1);
  pool.Keep(2);
  pool.Release(second);
  pool.Release(first);
  EXPECT_EQ(pool.used(), 0);
  EXPECT_EQ(pool.cached(), 3);
  EXPECT_EQ(pool.available(), 4);
  pool.AddReference(2);  // somebody finds it
  EXPECT_EQ(pool.used(), 1);
  pool.Release({2});
  EXPECT_EQ(*pool.Allocate(2), (std::vector<int32_t>{3, 1})) << "free ones first, then ends";
  EXPECT_EQ(evicted, (std::vector<int32_t>{1}));
  EXPECT_EQ(*pool.Allocate(2), (std::vector<int32_t>{0, 2}));
  EXPECT_EQ(evicted, (std::vector<int32_t>{1, 0, 2}));
  pool.Release({0, 1, 2, 3});
  EXPECT_EQ(pool.cached(), 0) << "a new owner has not said that it is worth keeping";
}

TEST(BlockPool, ADroppedBlockIsFreeWithItsLastReference) {
  BlockPool pool(2, [](int32_t block) { ADD_FAILURE() << "block " << block << " was evicted"; });
  const std::vector<int32_t> blocks = *pool.Allocate(2);
  pool.Keep(0);
  pool.Keep(1);
  pool.Drop(0);
  pool.Release(blocks);
  EXPECT_EQ(pool.cached(), 1);
  pool.Drop(1);
  pool.Drop(1);
  EXPECT_EQ(pool.cached(), 0);
  EXPECT_EQ(pool.Allocate(2)->size(), 2u);
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
