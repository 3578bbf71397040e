// What only a group over several hosts can do wrong; the suite of communicator_test.cc runs on it
// too.
#include "parallel/cluster_communicator.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include <string>
#include <thread>
#include <vector>

#include "absl/time/clock.h"
#include "tests/parallel/fork_ranks.h"
#include "tests/parallel/spawn_hosts.h"

// gloo forgets what getaddrinfo gave it when an address cannot be bound.
extern "C" const char* __lsan_default_suppressions();
extern "C" const char* __lsan_default_suppressions() {
  return "leak:gloo::transport::tcp::CreateDeviceAttr\n";
}

namespace cohort {
namespace {

using testing::HasSubstr;

constexpr absl::Duration kLong = absl::Seconds(60);

std::string Message(const absl::Status& status) { return std::string(status.message()); }

TEST(ClusterCommunicator, TheFirstRankOfAHostLeadsIt) {
  const ClusterLayout layout = MakeLayout({2, 1, 3});
  EXPECT_EQ(layout.size(), 6);
  std::vector<int> hosts;
  std::vector<bool> leaders;
  for (int rank = 0; rank < 6; ++rank) {
    hosts.push_back(layout.HostOf(rank));
    leaders.push_back(layout.IsLeader(rank));
  }
  EXPECT_THAT(hosts, testing::ElementsAre(0, 0, 1, 2, 2, 2));
  EXPECT_THAT(leaders, testing::ElementsAre(true, false, true, true, false, false));
}

TEST(ClusterCommunicator, RefusesLayoutsWithoutTwoHostsOrWithAnEmptyOne) {
  const ClusterLayout one = MakeLayout({3});
  const ClusterLayout empty = MakeLayout({1, 0, 2});
  for (const ClusterLayout& layout : {one, empty}) {
    EXPECT_TRUE(absl::IsInvalidArgument(
        MakeClusterCommunicator(-1, {.rank = 0, .size = 3}, layout, nullptr).status()));
    const std::vector<std::string> agents(layout.hosts.size(), "a");
    EXPECT_TRUE(
        absl::IsInvalidArgument(ListenForHosts(layout, 0, agents, "127.0.0.1", kLong).status()));
  }
  EXPECT_TRUE(absl::IsInvalidArgument(
      MakeClusterCommunicator(-1, {.rank = 1, .size = 3}, MakeLayout({2, 2}), nullptr).status()));
}

TEST(ClusterCommunicator, AnAddressOfAnotherMachineIsUnavailable) {
  const absl::Status status =
      ListenForHosts(MakeLayout({1, 1}), 0, {"a", "b"}, "192.0.2.1", kLong).status();
  EXPECT_TRUE(absl::IsUnavailable(status)) << status;
  EXPECT_THAT(Message(status), HasSubstr("192.0.2.1"));
}

TEST(ClusterCommunicator, AHostThatNeverConnectsIsNamed) {
  const auto mesh =
      ListenForHosts(MakeLayout({1, 2}), 0, {"a", "b"}, "127.0.0.1", absl::Milliseconds(200))
          .value();
  const auto absent = ListenForHosts(MakeLayout({1, 2}), 1, {"a", "b"}, "127.0.0.2", kLong).value();
  const absl::Status status = mesh->Connect({"", absent->listeners()[0]});
  EXPECT_FALSE(status.ok());
  EXPECT_THAT(Message(status), HasSubstr("group ranks 1 to 2 on agent 'b'"));
}

TEST(ClusterCommunicator, AnAbortWakesAHostThatWaitsForAConnection) {
  const auto mesh = ListenForHosts(MakeLayout({1, 1}), 0, {"a", "b"}, "127.0.0.1", kLong).value();
  // 127.0.0.2 is the greater address: it connects, and nobody does from there.
  const auto absent = ListenForHosts(MakeLayout({1, 1}), 1, {"a", "b"}, "127.0.0.2", kLong).value();
  absl::Status status;
  std::thread waiting([&] { status = mesh->Connect({"", absent->listeners()[0]}); });
  mesh->Abort();
  waiting.join();
  EXPECT_TRUE(absl::IsAborted(status)) << status;
}

TEST(ClusterCommunicator, ADeadlineNamesTheRanksOfTheHostThatDidNotCome) {
  const auto ranks = MakeClusterCommunicators(MakeLayout({1, 2}), absl::Milliseconds(200));
  ranks[0]->Barrier();
  const absl::Status status = ranks[0]->status();
  EXPECT_TRUE(absl::IsDeadlineExceeded(status)) << status;
  EXPECT_THAT(Message(status), HasSubstr("barrier #1 on group rank 0: group ranks 1 to 2 on agent "
                                         "'agent-1' had not arrived"));
}

TEST(ClusterCommunicator, ADeadlineOfOneWhoseLeaderDidNotComeNamesTheLeader) {
  const auto ranks = MakeClusterCommunicators(MakeLayout({2, 1}), absl::Milliseconds(200));
  ranks[1]->Barrier();
  EXPECT_TRUE(absl::IsDeadlineExceeded(ranks[1]->status()));
  EXPECT_THAT(Message(ranks[1]->status()), HasSubstr("group ranks 0, 2 had not arrived"));
}

TEST(ClusterCommunicator, AnAbortWakesEveryRankThatWaitsForAnotherHost) {
  const auto ranks = MakeClusterCommunicators(MakeLayout({2, 1}));
  std::vector<std::thread> waiting;
  for (const int rank : {0, 1}) waiting.emplace_back([&ranks, rank] { ranks[rank]->Barrier(); });
  ranks[0]->Abort();
  ranks[1]->Abort();
  for (std::thread& thread : waiting) thread.join();
  EXPECT_TRUE(absl::IsAborted(ranks[0]->status())) << ranks[0]->status();
  EXPECT_TRUE(absl::IsAborted(ranks[1]->status())) << ranks[1]->status();
}

TEST(ClusterCommunicator, RanksThatDisagreeSaySoOnEveryHost) {
  const auto ranks = MakeClusterCommunicators(MakeLayout({2, 1}));
  std::vector<std::thread> threads;
  for (int rank = 0; rank < 3; ++rank) {
    threads.emplace_back([&ranks, rank] {
      std::vector<float> values(rank == 2 ? 8 : 4);
      ranks[rank]->AllReduceSum(TensorView(values.data(), DType::kF32, {rank == 2 ? 8 : 4}));
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (const auto& rank : ranks) {
    EXPECT_EQ(rank->status().code(), absl::StatusCode::kInternal);
    EXPECT_THAT(Message(rank->status()), HasSubstr("all-reduce #1 (32 bytes, fp32)"));
  }
}

// ---- A host is a process ----

void SendText(int socket, const std::string& text) {
  ASSERT_EQ(send(socket, text.data(), text.size(), 0), static_cast<ssize_t>(text.size()));
}

std::string ReceiveText(int socket) {
  std::string text(1024, '\0');
  const ssize_t bytes = recv(socket, text.data(), text.size(), 0);
  text.resize(bytes > 0 ? static_cast<size_t>(bytes) : 0);
  return text;
}

std::unique_ptr<Communicator> JoinAsOnlyRank(int host, int socket) {
  const ClusterLayout layout = MakeLayout({1, 1});
  std::shared_ptr<GlooMesh> mesh =
      ListenForHosts(layout, host, {"a", "b"}, host == 0 ? "127.0.0.1" : "127.0.0.2", kLong)
          .value();
  SendText(socket, mesh->listeners()[1 - host]);
  std::vector<std::string> peers(2);
  peers[1 - host] = ReceiveText(socket);
  EXPECT_EQ(mesh->Connect(peers), absl::OkStatus());
  const int region = CreateHostCommunicatorRegion(2).value();
  auto communicator =
      MakeClusterCommunicator(region, {.rank = host, .size = 2}, layout, mesh).value();
  close(region);
  return communicator;
}

void ReduceUntilFailure(Communicator& group, int64_t count, int rounds) {
  std::vector<float> values(static_cast<size_t>(count));
  for (int round = 0; round < rounds && group.status().ok(); ++round) {
    group.AllReduceSum(TensorView(values.data(), DType::kF32, {count}));
  }
}

// Between messages or in the middle of one: which it is depends on the moment.
void ExpectAKilledHostIsNoticed(int64_t count) {
  constexpr int kForEver = 1 << 30;
  int ends[2];
  ASSERT_EQ(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends), 0);
  const pid_t victim = fork();
  ASSERT_GE(victim, 0);
  if (victim == 0) {
    alarm(kRankProcessSeconds);
    ReduceUntilFailure(*JoinAsOnlyRank(1, ends[1]), count, kForEver);
    _exit(1);
  }
  const auto communicator = JoinAsOnlyRank(0, ends[0]);
  ReduceUntilFailure(*communicator, count, 20);
  EXPECT_EQ(communicator->status(), absl::OkStatus());
  EXPECT_EQ(kill(victim, SIGKILL), 0);
  const absl::Time start = absl::Now();
  ReduceUntilFailure(*communicator, count, kForEver);
  EXPECT_LT(absl::Now() - start, absl::Seconds(2));
  EXPECT_TRUE(absl::IsUnavailable(communicator->status())) << communicator->status();
  EXPECT_THAT(Message(communicator->status()),
              HasSubstr("the connection to group rank 1 on agent 'b' is lost"));
  EXPECT_EQ(waitpid(victim, nullptr, 0), victim);
  close(ends[0]);
  close(ends[1]);
}

TEST(HostProcess, AKilledHostIsNoticedAtOnceAndNamed) {
  for (int i = 0; i < 10; ++i) {
    ExpectAKilledHostIsNoticed(/*count=*/8);
    ExpectAKilledHostIsNoticed(/*count=*/200000);
  }
}

}  // namespace
}  // namespace cohort
