#include "parallel/host_communicator.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <functional>
#include <string>
#include <thread>
#include <vector>

#include "absl/time/clock.h"
#include "tests/parallel/fork_ranks.h"

namespace cohort {
namespace {

using testing::HasSubstr;

TEST(HostCommunicator, ARegionIsAnAnonymousFileOfTheDeclaredSizeThatExecCloses) {
  const absl::StatusOr<int> region = CreateHostCommunicatorRegion(3);
  ASSERT_TRUE(region.ok()) << region.status();
  struct stat file;
  ASSERT_EQ(fstat(*region, &file), 0);
  EXPECT_EQ(file.st_size, HostCommunicatorRegionBytes(3));
  EXPECT_EQ(file.st_nlink, 0u);
  EXPECT_NE(fcntl(*region, F_GETFD) & FD_CLOEXEC, 0);
  close(*region);
}

TEST(HostCommunicator, RefusesARegionOfAnotherGroupSize) {
  const absl::StatusOr<int> region = CreateHostCommunicatorRegion(3);
  ASSERT_TRUE(region.ok()) << region.status();
  const auto communicator = MakeHostCommunicator(*region, {.rank = 0, .size = 4});
  EXPECT_EQ(communicator.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(communicator.status().message()),
              HasSubstr(std::to_string(HostCommunicatorRegionBytes(3)) + " bytes"));
  EXPECT_THAT(
      std::string(communicator.status().message()),
      HasSubstr("a group of 4 ranks needs " + std::to_string(HostCommunicatorRegionBytes(4))));
  close(*region);
}

TEST(HostCommunicator, RefusesADescriptorThatIsNotOpen) {
  const auto communicator = MakeHostCommunicator(-1, {.rank = 0, .size = 2});
  EXPECT_EQ(communicator.status().code(), absl::StatusCode::kInvalidArgument);
}

TEST(HostCommunicator, RefusesOptionsOutsideTheirRange) {
  const std::vector<HostCommunicatorOptions> bad = {
      {.rank = 2, .size = 2},
      {.rank = -1, .size = 2},
      {.rank = 0, .size = 0},
      {.rank = 0, .size = 2, .timeout = absl::ZeroDuration()},
      {.rank = 0, .size = 2, .spin_iterations = -1},
  };
  for (const HostCommunicatorOptions& options : bad) {
    EXPECT_EQ(MakeHostCommunicator(-1, options).status().code(),
              absl::StatusCode::kInvalidArgument);
  }
  EXPECT_EQ(CreateHostCommunicatorRegion(0).status().code(), absl::StatusCode::kInvalidArgument);
}

TEST(HostCommunicator, AGroupOfOneIgnoresTheRegion) {
  const auto communicator = MakeHostCommunicator(-1, {.rank = 0, .size = 1});
  ASSERT_TRUE(communicator.ok()) << communicator.status();
  EXPECT_EQ((*communicator)->size(), 1);
}

TEST(HostCommunicator, TheDescriptorMayBeClosedOnceMapped) {
  const absl::StatusOr<int> region = CreateHostCommunicatorRegion(2);
  ASSERT_TRUE(region.ok()) << region.status();
  const auto first = MakeHostCommunicator(*region, {.rank = 0, .size = 2});
  const auto second = MakeHostCommunicator(*region, {.rank = 1, .size = 2});
  ASSERT_TRUE(first.ok() && second.ok());
  close(*region);
  std::thread other([&] { (*second)->Barrier(); });
  (*first)->Barrier();
  other.join();
  EXPECT_TRUE((*first)->status().ok()) << (*first)->status();
}

// Both ends close with the object.
class Pipe {
 public:
  Pipe() { EXPECT_EQ(pipe2(ends_, O_CLOEXEC), 0); }
  ~Pipe() {
    close(ends_[0]);
    close(ends_[1]);
  }
  void Send() const { EXPECT_EQ(write(ends_[1], "x", 1), 1); }
  bool Receive(absl::Duration timeout) const {
    pollfd waiting = {.fd = ends_[0], .events = POLLIN, .revents = 0};
    char byte;
    return poll(&waiting, 1, static_cast<int>(absl::ToInt64Milliseconds(timeout))) == 1 &&
           read(ends_[0], &byte, 1) == 1;
  }

 private:
  int ends_[2];
};

// `call` makes one collective.
void CallUntilFailure(Communicator& group, const std::function<void(Communicator&)>& call,
                      const Pipe* under_way) {
  for (int round = 0; group.status().ok(); ++round) {
    call(group);
    if (round == 20 && under_way != nullptr) {
      under_way->Send();
    }
  }
}

void ReduceOnce(Communicator& group) {
  std::vector<float> values(20000);
  group.AllReduceSum(TensorView(values.data(), DType::kF32, {20000}));
}

// More than one step of rows.
void ExchangeOnce(Communicator& group) {
  const int64_t rows = 30 * group.size();
  std::vector<float> sent(static_cast<size_t>(rows * 1000)), received(sent);
  std::vector<int32_t> counts(static_cast<size_t>(group.size()), 30), received_counts(counts);
  const auto view = [&](std::vector<float>& values, std::vector<int32_t>& row_counts) {
    return ExchangeView{.rows = TensorView(values.data(), DType::kF32, {rows, 1000}),
                        .counts = TensorView(row_counts.data(), DType::kI32, {group.size()})};
  };
  group.AllToAll(view(sent, counts), view(received, received_counts));
}

// Rank 2 is a process, ranks 0 and 1 are threads here with mappings of their own.
void ExpectTheOthersReturnOnceAborted(const std::function<void(Communicator&)>& call) {
  const absl::StatusOr<int> region = CreateHostCommunicatorRegion(3);
  ASSERT_TRUE(region.ok()) << region.status();
  const Pipe under_way;
  const pid_t victim = fork();
  ASSERT_GE(victim, 0);
  if (victim == 0) {
    RunRankProcess(*region, {.rank = 2, .size = 3},
                   [&](Communicator& group) { CallUntilFailure(group, call, &under_way); });
  }
  const auto first = MakeHostCommunicator(*region, {.rank = 0, .size = 3});
  const auto second = MakeHostCommunicator(*region, {.rank = 1, .size = 3});
  ASSERT_TRUE(first.ok() && second.ok());
  close(*region);
  std::thread first_worker([&] { CallUntilFailure(**first, call, nullptr); });
  std::thread second_worker([&] { CallUntilFailure(**second, call, nullptr); });

  EXPECT_TRUE(under_way.Receive(absl::Seconds(60)));
  EXPECT_EQ(kill(victim, SIGKILL), 0);
  int wait_status = 0;
  EXPECT_EQ(waitpid(victim, &wait_status, 0), victim);
  EXPECT_TRUE(WIFSIGNALED(wait_status));

  const absl::Time start = absl::Now();
  (*first)->Abort();
  (*second)->Abort();
  first_worker.join();
  second_worker.join();
  EXPECT_LT(absl::Now() - start, absl::Seconds(5));
  EXPECT_EQ((*first)->status().code(), absl::StatusCode::kAborted) << (*first)->status();
  EXPECT_EQ((*second)->status().code(), absl::StatusCode::kAborted) << (*second)->status();
}

TEST(HostProcess, RanksOfAKilledProcessReturnOnceTheyAreAborted) {
  ExpectTheOthersReturnOnceAborted(ReduceOnce);
  ExpectTheOthersReturnOnceAborted(ExchangeOnce);
}

TEST(HostProcess, ADeadlineNamesARankThatNeverCame) {
  ForkRanks({.size = 2, .timeout = absl::Milliseconds(100)}, [](Communicator& group) {
    if (group.rank() == 1) {
      return;
    }
    group.Barrier();
    EXPECT_EQ(group.status().code(), absl::StatusCode::kDeadlineExceeded);
    EXPECT_THAT(std::string(group.status().message()),
                HasSubstr("group rank 1 had not arrived after 100ms"));
  });
}

}  // namespace
}  // namespace cohort
