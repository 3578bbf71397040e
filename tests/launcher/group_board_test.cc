#include "launcher/group_board.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <thread>
#include <vector>

#include "absl/time/clock.h"

namespace cohort {
namespace {

GroupStatus InState(const std::string& state) {
  GroupStatus group;
  group.state = state;
  group.awaited = "waiting for a test";
  return group;
}

TEST(GroupBoard, WakesWhoeverWaitsForService) {
  GroupBoard board(InState("starting"));
  absl::Status status = absl::UnknownError("");
  std::thread waiting([&] { status = board.WaitUntilServing(absl::InfiniteFuture()); });
  board.Publish(InState("serving"), absl::OkStatus());
  waiting.join();
  EXPECT_EQ(status, absl::OkStatus());
  EXPECT_EQ(board.group().state, "serving");
}

TEST(GroupBoard, ADeadlineSaysWhatWasAwaited) {
  const GroupBoard board(InState("recovering"));
  EXPECT_EQ(board.WaitUntilServing(absl::Now()),
            absl::DeadlineExceededError("the group does not serve yet: waiting for a test"));
}

TEST(GroupBoard, AFailureAndADrainEndTheWait) {
  GroupBoard board(InState("starting"));
  board.Publish(InState("starting"), absl::NotFoundError("no tensor"));
  EXPECT_EQ(board.WaitUntilServing(absl::InfiniteFuture()), absl::NotFoundError("no tensor"));
  EXPECT_EQ(board.failure(), absl::NotFoundError("no tensor"));
  board.Publish(InState("draining"), absl::OkStatus());
  EXPECT_TRUE(absl::IsUnavailable(board.WaitUntilServing(absl::InfiniteFuture())));
}

TEST(GroupBoard, TellsOnlyOfChanges) {
  GroupBoard board(InState("starting"));
  std::vector<bool> changes;
  board.OnServingChange([&](bool serving) { changes.push_back(serving); });
  for (const char* state : {"starting", "serving", "serving", "recovering", "draining"}) {
    board.Publish(InState(state), absl::OkStatus());
  }
  EXPECT_THAT(changes, testing::ElementsAre(true, false));
}

}  // namespace
}  // namespace cohort
