#include "parallel/region_communicator.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/time/clock.h"
#include "parallel/thread_communicator.h"
#include "tests/parallel/spawn_ranks.h"

namespace cohort {
namespace {

using testing::HasSubstr;
using testing::Not;

constexpr absl::Duration kSoon = absl::Milliseconds(60);
constexpr absl::Duration kNever = absl::Hours(10);

void ReduceFloats(Communicator& group, int64_t count) {
  std::vector<float> values(count);
  group.AllReduceSum(TensorView(values.data(), DType::kF32, {count}));
}

TEST(RegionCommunicator, ADeadlineNamesTheCollectiveItsNumberAndTheMissingRanks) {
  const auto ranks = MakeThreadCommunicators(4, kSoon);
  ReduceFloats(*ranks[2], 0);
  ReduceFloats(*ranks[2], 7);
  EXPECT_THAT(std::string(ranks[2]->status().message()),
              HasSubstr("group ranks 0, 1, 3 had not arrived after 60ms"));

  // Rank 2 has posted, so it does not count as missing although it has given up.
  ReduceFloats(*ranks[0], 0);
  ReduceFloats(*ranks[0], 7);
  const absl::Status status = ranks[0]->status();
  EXPECT_EQ(status.code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_THAT(std::string(status.message()),
              HasSubstr("all-reduce #2 (28 bytes, fp32) on group rank 0 of 4"));
  EXPECT_THAT(std::string(status.message()), HasSubstr("group ranks 1, 3 had not arrived"));
  ReduceFloats(*ranks[0], 7);
  EXPECT_EQ(ranks[0]->status(), status) << "the first failure sticks";
}

TEST(RegionCommunicator, AbortFromAnotherThreadWakesAWaitingRank) {
  const auto ranks = MakeThreadCommunicators(3, kNever);
  for (int round = 0; round < 2; ++round) {
    std::thread waiting([&] { ReduceFloats(*ranks[round], 100); });
    const absl::Time start = absl::Now();
    ranks[round]->Abort();
    waiting.join();
    EXPECT_LT(absl::Now() - start, absl::Seconds(5));
    EXPECT_EQ(ranks[round]->status().code(), absl::StatusCode::kAborted);
    EXPECT_THAT(std::string(ranks[round]->status().message()),
                HasSubstr("group rank " + std::to_string(round)));
  }
  EXPECT_TRUE(ranks[2]->status().ok()) << "an abort is this rank's alone";
}

// The abort comes at any point of the waiter's way into its sleep.
TEST(RegionCommunicator, NoAbortIsLost) {
  for (int round = 0; round < 300; ++round) {
    const auto ranks = MakeThreadCommunicators(2, kNever);
    std::thread waiting([&] { ranks[0]->Barrier(); });
    std::thread aborting([&] { ranks[0]->Abort(); });
    waiting.join();
    aborting.join();
    ASSERT_EQ(ranks[0]->status().code(), absl::StatusCode::kAborted);
  }
}

TEST(RegionCommunicator, RanksThatOutliveTheOthersKeepTheSharedState) {
  auto ranks = MakeThreadCommunicators(2, absl::Seconds(30));
  std::thread other([first = std::move(ranks[0])] { ReduceFloats(*first, 7); });
  ReduceFloats(*ranks[1], 7);
  EXPECT_TRUE(ranks[1]->status().ok());
  other.join();
  ranks[1]->Abort();
}

TEST(RegionCommunicator, SizesThatDisagreeAreAnErrorThatNamesBoth) {
  SpawnRanks(2, [](Communicator& group) {
    ReduceFloats(group, 4);
    ReduceFloats(group, group.rank() == 0 ? 5 : 6);
    EXPECT_EQ(group.status().code(), absl::StatusCode::kInternal);
    EXPECT_THAT(std::string(group.status().message()), HasSubstr("all-reduce #2 (20 bytes, fp32)"));
    EXPECT_THAT(std::string(group.status().message()), HasSubstr("all-reduce #2 (24 bytes, fp32)"));
  });
}

TEST(RegionCommunicator, OperationsThatDisagreeAreAnErrorThatNamesBoth) {
  SpawnRanks(2, [](Communicator& group) {
    if (group.rank() == 0) {
      group.Barrier();
    } else {
      ReduceFloats(group, 1);
    }
    EXPECT_EQ(group.status().code(), absl::StatusCode::kInternal);
    EXPECT_THAT(std::string(group.status().message()), HasSubstr("barrier #1"));
    EXPECT_THAT(std::string(group.status().message()), HasSubstr("all-reduce #1"));
  });
}

TEST(RegionCommunicator, ARankThatSkippedAnEmptyCollectiveIsFoundOut) {
  SpawnRanks(2, [](Communicator& group) {
    ReduceFloats(group, 0);
    if (group.rank() == 1) {
      ReduceFloats(group, 0);
    }
    group.Barrier();
    EXPECT_THAT(std::string(group.status().message()), HasSubstr("barrier #2"));
    EXPECT_THAT(std::string(group.status().message()), HasSubstr("barrier #3"));
  });
}

TEST(RegionCommunicator, TheLastRankToArriveDoesNotFail) {
  const auto ranks = MakeThreadCommunicators(2, kSoon);
  ranks[0]->Barrier();
  EXPECT_EQ(ranks[0]->status().code(), absl::StatusCode::kDeadlineExceeded);
  // Rank 0 did post before it gave up; it is the next collective that it misses.
  ranks[1]->Barrier();
  EXPECT_TRUE(ranks[1]->status().ok());
  ranks[1]->Barrier();
  EXPECT_THAT(std::string(ranks[1]->status().message()), HasSubstr("group rank 0 had not arrived"));
  EXPECT_THAT(std::string(ranks[1]->status().message()), Not(HasSubstr("ranks")));
}

}  // namespace
}  // namespace cohort
