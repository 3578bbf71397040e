// Runs the ranks of a group as threads of the test.
#ifndef COHORT_TESTS_PARALLEL_SPAWN_RANKS_H_
#define COHORT_TESTS_PARALLEL_SPAWN_RANKS_H_

#include <functional>
#include <memory>
#include <thread>
#include <vector>

#include "absl/time/time.h"
#include "parallel/communicator.h"
#include "parallel/thread_communicator.h"

namespace cohort {

// Calls `body` once per rank of a new group, each call on its own thread, and returns when all have
// returned. A collective that not all ranks join fails after `timeout`: check
// communicator.status().
inline void SpawnRanks(int size, const std::function<void(Communicator&)>& body,
                       absl::Duration timeout = absl::Seconds(60)) {
  const std::vector<std::unique_ptr<Communicator>> ranks = MakeThreadCommunicators(size, timeout);
  std::vector<std::thread> threads;
  for (const std::unique_ptr<Communicator>& communicator : ranks) {
    threads.emplace_back([&body, &communicator] { body(*communicator); });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
}

}  // namespace cohort

#endif  // COHORT_TESTS_PARALLEL_SPAWN_RANKS_H_
