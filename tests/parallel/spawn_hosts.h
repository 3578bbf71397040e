// Runs the ranks of a group over several hosts as threads of the test. A host is a shared memory
// region and a loopback address of its own (127.0.0.1, 127.0.0.2, ...).
#ifndef COHORT_TESTS_PARALLEL_SPAWN_HOSTS_H_
#define COHORT_TESTS_PARALLEL_SPAWN_HOSTS_H_

#include <gtest/gtest.h>
#include <unistd.h>

#include <csignal>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "parallel/cluster_communicator.h"

namespace cohort {

// {2, 1}: ranks 0 and 1 on the first host, rank 2 on the second.
inline ClusterLayout MakeLayout(const std::vector<int>& ranks_of_hosts) {
  ClusterLayout layout;
  int64_t end = 0;
  for (const int ranks : ranks_of_hosts) {
    layout.hosts.push_back({end, end + ranks});
    end += ranks;
  }
  return layout;
}

// As `cohort rank` does: a process with a mesh ignores broken pipes.
inline const bool kBrokenPipesAreIgnored = std::signal(SIGPIPE, SIG_IGN) != SIG_ERR;

// The leaders' ends, by host, connected to each other.
inline std::vector<std::shared_ptr<GlooMesh>> ConnectHosts(const ClusterLayout& layout) {
  const size_t hosts = layout.hosts.size();
  std::vector<std::string> agents;
  for (size_t host = 0; host < hosts; ++host) agents.push_back("agent-" + std::to_string(host));
  std::vector<std::shared_ptr<GlooMesh>> meshes;
  for (size_t host = 0; host < hosts; ++host) {
    meshes.push_back(ListenForHosts(layout, static_cast<int>(layout.hosts[host].begin), agents,
                                    "127.0.0." + std::to_string(host + 1), absl::Seconds(30))
                         .value());
  }
  std::vector<std::thread> threads;
  for (size_t host = 0; host < hosts; ++host) {
    threads.emplace_back([&meshes, host, hosts] {
      std::vector<std::string> peers;
      for (size_t peer = 0; peer < hosts; ++peer) {
        peers.push_back(meshes[peer]->listeners()[host]);
      }
      EXPECT_EQ(meshes[host]->Connect(peers), absl::OkStatus());
    });
  }
  for (std::thread& thread : threads) thread.join();
  return meshes;
}

// One communicator per rank, in rank order.
inline std::vector<std::unique_ptr<Communicator>> MakeClusterCommunicators(
    const ClusterLayout& layout, absl::Duration timeout = absl::Seconds(60)) {
  const std::vector<std::shared_ptr<GlooMesh>> meshes = ConnectHosts(layout);
  std::vector<std::unique_ptr<Communicator>> ranks;
  for (size_t host = 0; host < layout.hosts.size(); ++host) {
    const int region = CreateHostCommunicatorRegion(layout.size()).value();
    for (int64_t rank = layout.hosts[host].begin; rank < layout.hosts[host].end; ++rank) {
      const bool is_leader = layout.IsLeader(static_cast<int>(rank));
      ranks.push_back(
          MakeClusterCommunicator(
              region, {.rank = static_cast<int>(rank), .size = layout.size(), .timeout = timeout},
              layout, is_leader ? meshes[host] : nullptr)
              .value());
    }
    close(region);
  }
  return ranks;
}

// Calls `body` once per rank, each call on its own thread.
inline void SpawnHosts(const std::vector<int>& ranks_of_hosts,
                       const std::function<void(Communicator&)>& body) {
  const auto ranks = MakeClusterCommunicators(MakeLayout(ranks_of_hosts));
  std::vector<std::thread> threads;
  for (const std::unique_ptr<Communicator>& communicator : ranks) {
    threads.emplace_back([&body, &communicator] { body(*communicator); });
  }
  for (std::thread& thread : threads) thread.join();
}

}  // namespace cohort

#endif  // COHORT_TESTS_PARALLEL_SPAWN_HOSTS_H_
