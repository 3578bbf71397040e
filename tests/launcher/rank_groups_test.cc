// The ranks of an epoch over two agents, as threads: each finds its groups by the memory that its
// agent gave it and by what the others say of their listeners.
#include "launcher/rank_groups.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <csignal>
#include <map>
#include <thread>

#include "launcher/epoch_memory.h"
#include "tests/launcher/epoch_fixture.h"

namespace cohort {
namespace {

// As `cohort rank` does: a process with a mesh ignores broken pipes.
const bool kBrokenPipesAreIgnored = std::signal(SIGPIPE, SIG_IGN) != SIG_ERR;

// The regions of a rank, as they come out of its control socket.
std::vector<FileDescriptor> RegionsOf(const EpochMemory& memory, int rank) {
  const std::vector<int> descriptors = memory.DescriptorsOf(rank);
  std::vector<FileDescriptor> regions;
  for (size_t i = 2; i < descriptors.size(); ++i) regions.emplace_back(dup(descriptors[i]));
  return regions;
}

RankGroupsOptions OptionsOf(int rank, const std::string& agent) {
  RankGroupsOptions options;
  options.rank = rank;
  options.address = agent == "a" ? "127.0.0.1" : "127.0.0.2";
  options.timeout = absl::Seconds(60);
  options.connect_timeout = absl::Seconds(30);
  return options;
}

// What the members' world ranks, as powers of two, add up to.
float SumOfRanks(const RankList& ranks) {
  float sum = 0;
  for (const int rank : ranks) sum += static_cast<float>(1 << rank);
  return sum;
}

void ExpectGroup(Communicator& communicator, int rank, const RankList& ranks) {
  EXPECT_EQ(communicator.size(), static_cast<int>(ranks.size()));
  float value = static_cast<float>(1 << rank);
  communicator.AllReduceSum(TensorView(&value, DType::kF32, {1}));
  EXPECT_EQ(value, SumOfRanks(ranks)) << "rank " << rank << ": " << communicator.status();
}

void ExpectGroupsReachEachOther(const std::vector<std::string>& agents, int tp) {
  const v1::BeginEpoch begin = EpochOf(agents, tp, /*exchanges_experts=*/true);
  const int world = static_cast<int>(agents.size());
  const Parallelism parallelism{.tp = tp, .dp = world / tp};
  std::map<std::string, EpochMemory> memories;
  std::vector<std::unique_ptr<RankGroups>> ranks;
  v1::EpochPeers peers;
  for (int rank = 0; rank < world; ++rank) {
    const std::string& agent = agents[static_cast<size_t>(rank)];
    if (memories.count(agent) == 0) {
      Range own{rank, rank};
      while (own.end < world && agents[static_cast<size_t>(own.end)] == agent) ++own.end;
      memories[agent] = EpochMemory::Create(begin, own).value();
    }
    ranks.push_back(
        RankGroups::Prepare(OptionsOf(rank, agent), begin, RegionsOf(memories[agent], rank))
            .value());
    if (ranks.back()->listens()) *peers.add_agents() = ranks.back()->listeners();
  }
  EXPECT_EQ(peers.agents_size(), static_cast<int>(ListeningRanks(begin)->size()));
  std::vector<std::thread> threads;
  for (int rank = 0; rank < world; ++rank) {
    threads.emplace_back([&, rank] {
      RankGroups& groups = *ranks[static_cast<size_t>(rank)];
      ASSERT_EQ(groups.Connect(peers), absl::OkStatus());
      const auto communicators = groups.MakeCommunicators();
      ASSERT_TRUE(communicators.ok()) << communicators.status();
      ExpectGroup(*communicators->tensor, rank, TensorGroup(parallelism, rank));
      ExpectGroup(*communicators->data, rank, DataGroup(parallelism, rank));
    });
  }
  for (std::thread& thread : threads) thread.join();
}

TEST(RankGroups, ReachEachOtherOnOneAgent) {
  ExpectGroupsReachEachOther({"a", "a", "a", "a"}, 2);
  ExpectGroupsReachEachOther({"a", "a", "a"}, 1);
}

TEST(RankGroups, ReachEachOtherOverTwoAgents) {
  ExpectGroupsReachEachOther({"a", "a", "b", "b"}, 2);
  ExpectGroupsReachEachOther({"a", "a", "a", "b", "b", "b"}, 2);
  ExpectGroupsReachEachOther({"a", "b", "b"}, 3);
}

TEST(RankGroups, RefusesMemoryOfAnotherNumberOfGroups) {
  const v1::BeginEpoch begin = EpochOf({"a", "a"}, 1, /*exchanges_experts=*/true);
  const EpochMemory memory = EpochMemory::Create(begin, {0, 2}).value();
  std::vector<FileDescriptor> regions = RegionsOf(memory, 0);
  ASSERT_EQ(regions.size(), 2u);
  regions.pop_back();
  EXPECT_TRUE(absl::IsInvalidArgument(
      RankGroups::Prepare(OptionsOf(0, "a"), begin, std::move(regions)).status()));
}

TEST(RankGroups, NamesARankThatDoesNotListen) {
  const v1::BeginEpoch begin = EpochOf({"a", "b"}, 2, /*exchanges_experts=*/false);
  const EpochMemory memory = EpochMemory::Create(begin, {0, 1}).value();
  const auto groups = RankGroups::Prepare(OptionsOf(0, "a"), begin, RegionsOf(memory, 0)).value();
  v1::EpochPeers peers;
  *peers.add_agents() = groups->listeners();
  const absl::Status status = groups->Connect(peers);
  EXPECT_EQ(status.message(), "rank 1 does not listen for 2 agents");
}

}  // namespace
}  // namespace cohort
