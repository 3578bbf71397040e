#include "runtime/prefix_cache.h"

#include <gtest/gtest.h>

#include <map>
#include <random>

namespace cohort {
namespace {

using Node = PrefixCache::Node;

TEST(PrefixCache, FindsWhatWasInsertedAfterItsPrefix) {
  PrefixCache cache(8, 2);
  const Node root = cache.Root("");
  EXPECT_FALSE(cache.Find(root, {1, 2}).has_value());
  const auto first = cache.Insert(root, {1, 2}, 5);
  const auto second = cache.Insert(first.node, {3, 4}, 6);
  EXPECT_EQ(first.block, 5);
  EXPECT_EQ(cache.Find(root, {1, 2})->block, 5);
  EXPECT_EQ(cache.Find(first.node, {3, 4})->block, 6);
  EXPECT_EQ(cache.Find(first.node, {3, 4})->node, second.node);
  EXPECT_FALSE(cache.Find(root, {3, 4}).has_value()) << "only after its prefix";
  EXPECT_FALSE(cache.Find(first.node, {3, 5}).has_value());
  EXPECT_EQ(cache.size(), 2);
}

TEST(PrefixCache, TheFirstBlockOfAPrefixStays) {
  PrefixCache cache(8, 2);
  const Node root = cache.Root("");
  const auto first = cache.Insert(root, {1, 2}, 5);
  const auto again = cache.Insert(root, {1, 2}, 7);
  EXPECT_EQ(again.block, 5);
  EXPECT_EQ(again.node, first.node);
  cache.Erase(7);  // it is not there
  EXPECT_TRUE(cache.Find(root, {1, 2}).has_value());
}

TEST(PrefixCache, WhatFollowsALostBlockIsNotFoundThoughThePrefixComesBack) {
  PrefixCache cache(8, 2);
  const Node root = cache.Root("");
  const auto first = cache.Insert(root, {1, 2}, 5);
  cache.Insert(first.node, {3, 4}, 6);
  cache.Erase(5);
  EXPECT_FALSE(cache.Find(root, {1, 2}).has_value());
  const auto back = cache.Insert(root, {1, 2}, 5);
  EXPECT_NE(back.node, first.node) << "nodes are never reused";
  EXPECT_FALSE(cache.Find(back.node, {3, 4}).has_value());
}

TEST(PrefixCache, SaltsDoNotFindEachOther) {
  PrefixCache cache(2, 2);
  cache.Insert(cache.Root("a"), {1, 2}, 0);
  EXPECT_TRUE(cache.Find(cache.Root("a"), {1, 2}).has_value());
  EXPECT_FALSE(cache.Find(cache.Root("b"), {1, 2}).has_value());
  EXPECT_FALSE(cache.Find(cache.Root(""), {1, 2}).has_value()) << "a third salt: all are forgotten";
  EXPECT_FALSE(cache.Find(cache.Root("a"), {1, 2}).has_value());
}

TEST(PrefixCache, ClearForgetsEverything) {
  PrefixCache cache(4, 1);
  cache.Insert(cache.Root(""), {1}, 3);
  cache.Clear();
  EXPECT_EQ(cache.size(), 0);
  EXPECT_FALSE(cache.Find(cache.Root(""), {1}).has_value());
  cache.Insert(cache.Root(""), {1}, 3);
  EXPECT_EQ(cache.size(), 1);
}

TEST(PrefixCacheDeathTest, ABlockHoldsOnePrefix) {
  PrefixCache cache(4, 1);
  cache.Insert(cache.Root(""), {1}, 3);
  EXPECT_DEATH(cache.Insert(cache.Root(""), {2}, 3), "block 3 is in the cache already");
  EXPECT_DEATH(cache.Insert(cache.Root(""), {2}, 4), "block 4 of 4");
}

TEST(PrefixCache, AgreesWithAMapOfWholePrefixesUnderRandomOperations) {
  std::mt19937_64 random(7);
  constexpr int32_t kBlocks = 40;
  PrefixCache cache(kBlocks, 2);
  // Of each node the whole prefix; of each block the prefix that it ends.
  std::map<Node, std::vector<int32_t>> prefix_of = {{cache.Root(""), {}}};
  std::map<int32_t, std::vector<int32_t>> held;
  std::map<int32_t, Node> node_of;
  for (int operation = 0; operation < 20'000; ++operation) {
    const int32_t block = static_cast<int32_t>(random() % kBlocks);
    if (random() % 4 == 0 || held.count(block) > 0) {
      cache.Erase(block);
      held.erase(block);
      continue;
    }
    // After a random node that is still found, or the root.
    Node parent = cache.Root("");
    if (!held.empty() && random() % 3 > 0) {
      auto chosen = held.begin();
      std::advance(chosen, static_cast<int64_t>(random() % held.size()));
      parent = node_of.at(chosen->first);
    }
    const std::vector<int32_t> tokens = {static_cast<int32_t>(random() % 3),
                                         static_cast<int32_t>(random() % 3)};
    std::vector<int32_t> whole = prefix_of.at(parent);
    whole.insert(whole.end(), tokens.begin(), tokens.end());
    const auto found = cache.Insert(parent, tokens, block);
    if (found.block == block) {
      held[block] = whole;
      node_of[block] = found.node;
      ASSERT_TRUE(prefix_of.emplace(found.node, whole).second) << "a node came twice";
    }
    ASSERT_EQ(held.at(found.block), whole);
    ASSERT_EQ(cache.size(), static_cast<int64_t>(held.size()));
  }
}

}  // namespace
}  // namespace cohort
