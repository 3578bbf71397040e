#include "launcher/agent_seats.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace cohort {
namespace {

using testing::ElementsAre;

TEST(ShareRanks, GivesEachAgentOneAndTheRestByCores) {
  EXPECT_THAT(ShareRanks(1, {8}), ElementsAre(1));
  EXPECT_THAT(ShareRanks(4, {2, 2}), ElementsAre(2, 2));
  EXPECT_THAT(ShareRanks(3, {2, 2}), ElementsAre(2, 1));
  EXPECT_THAT(ShareRanks(4, {64, 16}), ElementsAre(3, 1));
  EXPECT_THAT(ShareRanks(4, {1, 64}), ElementsAre(1, 3));
  EXPECT_THAT(ShareRanks(3, {1, 1000, 1}), ElementsAre(1, 1, 1));
  EXPECT_THAT(ShareRanks(8, {4, 8, 4}), ElementsAre(2, 4, 2));
}

AgentDescription Node(const std::string& name, int cores = 2) {
  return {.name = name, .address = "10.0.0." + name, .cores = cores, .local = false};
}
AgentDescription Local() { return {.name = "local", .address = "", .cores = 2, .local = true}; }

TEST(AgentSeats, TheLocalAgentHasTheFirstRanksWheneverItComes) {
  AgentSeats seats(3, 6);
  EXPECT_EQ(seats.Join(Node("2")), Range{});
  EXPECT_EQ(seats.Join(Node("3")), Range{});
  EXPECT_FALSE(seats.HasRoom(/*local=*/false));
  EXPECT_TRUE(seats.HasRoom(/*local=*/true));
  EXPECT_FALSE(seats.decided());
  EXPECT_EQ(seats.Join(Local()), (Range{0, 2}));
  EXPECT_TRUE(seats.decided());
  EXPECT_EQ(seats.SeatOf(1), 0);
  EXPECT_EQ(seats.SeatOf(3), 1);
  EXPECT_EQ(seats.SeatOf(5), 2);
}

TEST(AgentSeats, WhoeverTakesAFreePlaceHasItsRanks) {
  AgentSeats seats(3, 6);
  seats.Join(Local());
  seats.Join(Node("2"));
  seats.Join(Node("3"));
  EXPECT_EQ(seats.Lose("3", "a reason"), (Range{4, 6}));
  EXPECT_EQ(seats.Lose("2", "another"), (Range{2, 4}));
  EXPECT_EQ(seats.Lose("2", "another"), Range{}) << "it is not there";
  EXPECT_EQ(seats.taken(), 1);
  EXPECT_EQ(seats.Join(Node("9", /*cores=*/64)), (Range{2, 4}));
  EXPECT_EQ(seats.Awaited(),
            "1 more agent to join, of 3 (agent '3' at 10.0.0.3 was lost: a reason)");
  EXPECT_EQ(seats.Join(Node("2")), (Range{4, 6}));
  EXPECT_EQ(seats.Awaited(), "");
}

TEST(AgentSeats, TellsWhoIsThereAndWhoIsNot) {
  AgentSeats seats(2, 3);
  seats.Join(Local());
  EXPECT_EQ(seats.status()[1].state, "awaited");
  seats.Join(Node("2"));
  EXPECT_TRUE(seats.Contains("2"));
  EXPECT_EQ(seats.status()[1].state, "joined");
  EXPECT_EQ(seats.status()[1].address, "10.0.0.2");
  EXPECT_EQ(seats.status()[1].first_rank, 2);
  EXPECT_EQ(seats.status()[1].ranks, 1);
  seats.Lose("2", "a reason");
  EXPECT_FALSE(seats.Contains("2"));
  EXPECT_EQ(seats.status()[1].state, "lost");
  EXPECT_EQ(seats.status()[1].loss, "agent '2' at 10.0.0.2 was lost: a reason");
}

}  // namespace
}  // namespace cohort
