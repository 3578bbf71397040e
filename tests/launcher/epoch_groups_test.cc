#include "launcher/epoch_groups.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/launcher/epoch_fixture.h"

namespace cohort {
namespace {

using testing::ElementsAre;

// Three tensor groups of two ranks; the middle one lies on both agents.
v1::BeginEpoch ThreeGroupsOnTwoAgents(bool exchanges_experts) {
  return EpochOf({"a", "a", "a", "b", "b", "b"}, 2, exchanges_experts);
}

TEST(EpochGroups, ATensorGroupIsConsecutiveRanksWhereverTheyAre) {
  const auto groups = GroupsOf(ThreeGroupsOnTwoAgents(false), 3).value();
  ASSERT_EQ(groups.size(), 1u);
  EXPECT_THAT(groups[0].ranks, ElementsAre(2, 3));
  EXPECT_TRUE(groups[0].spans_hosts());
  EXPECT_THAT(groups[0].hosts.agents, ElementsAre("a", "b"));
  EXPECT_THAT(groups[0].hosts.layout.hosts, ElementsAre(Range{0, 1}, Range{1, 2}));
  EXPECT_EQ(groups[0].IndexOf(3), 1);
  EXPECT_EQ(groups[0].LeaderOf(1), 3);
  EXPECT_FALSE(GroupsOf(ThreeGroupsOnTwoAgents(false), 4).value()[0].spans_hosts());
}

TEST(EpochGroups, ADataGroupIsTheRanksOfEqualIndexWhereRowsForExpertsAreExchanged) {
  const auto groups = GroupsOf(ThreeGroupsOnTwoAgents(true), 2).value();
  ASSERT_EQ(groups.size(), 2u);
  EXPECT_THAT(groups[1].ranks, ElementsAre(0, 2, 4));
  EXPECT_THAT(groups[1].hosts.layout.hosts, ElementsAre(Range{0, 2}, Range{2, 3}));
  EXPECT_EQ(groups[1].LeaderOf(1), 4);
}

TEST(EpochGroups, TheRanksThatConnectNodesAreTheFirstOfTheirGroupThere) {
  EXPECT_THAT(ListeningRanks(ThreeGroupsOnTwoAgents(false)).value(), ElementsAre(2, 3));
  EXPECT_THAT(ListeningRanks(ThreeGroupsOnTwoAgents(true)).value(), ElementsAre(0, 1, 2, 3, 4));
  EXPECT_THAT(ListeningRanks(EpochOf({"a", "a", "b", "b"}, 2, false)).value(), ElementsAre())
      << "groups that lie on one node each have nothing to say to each other";
  EXPECT_THAT(ListeningRanks(EpochOf({"a", "a", "b", "b"}, 0, false)).value(), ElementsAre(0, 2))
      << "one group of all members";
}

TEST(EpochGroups, OfGroupsOfGpusTheFirstRanksSpeakWhereverTheOthersAre) {
  v1::BeginEpoch two_groups = EpochOf({"a", "a", "b", "b"}, 2, false);
  two_groups.set_on_gpus(true);
  EXPECT_THAT(ListeningRanks(two_groups).value(), ElementsAre(0, 2));
  two_groups.set_exchanges_experts(true);
  EXPECT_THAT(ListeningRanks(two_groups).value(), ElementsAre(0, 1, 2));
  v1::BeginEpoch alone = EpochOf({"a", "b"}, 1, false);
  alone.set_on_gpus(true);
  EXPECT_THAT(ListeningRanks(alone).value(), ElementsAre()) << "nobody to join";
}

TEST(EpochGroups, RefusesWhatNoCoordinatorSends) {
  EXPECT_TRUE(absl::IsInvalidArgument(GroupsOf(EpochOf({"a", "a", "a"}, 2, false), 0).status()));
  EXPECT_TRUE(absl::IsInvalidArgument(GroupsOf(EpochOf({"a", "b", "a"}, 1, false), 0).status()));
  EXPECT_TRUE(absl::IsInvalidArgument(GroupsOf(EpochOf({"a", "a"}, 2, false), 2).status()));
}

}  // namespace
}  // namespace cohort
