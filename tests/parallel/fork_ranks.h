// Runs the ranks of a group as processes over one shared memory region. Tests that use it are named
// HostProcess, because ThreadSanitizer does not follow fork and leaves them out.
#ifndef COHORT_TESTS_PARALLEL_FORK_RANKS_H_
#define COHORT_TESTS_PARALLEL_FORK_RANKS_H_

#include <gtest/gtest.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

#include <functional>
#include <memory>
#include <vector>

#include "parallel/host_communicator.h"

namespace cohort {

constexpr unsigned kRankProcessSeconds = 120;  // a stuck rank ends by SIGALRM

// The child of a fork: joins the group, runs `body`, exits with 1 when an expectation failed.
[[noreturn]] inline void RunRankProcess(int region_fd, const HostCommunicatorOptions& options,
                                        const std::function<void(Communicator&)>& body) {
  alarm(kRankProcessSeconds);
  absl::StatusOr<std::unique_ptr<Communicator>> communicator =
      MakeHostCommunicator(region_fd, options);
  EXPECT_TRUE(communicator.ok()) << communicator.status();
  if (communicator.ok()) {
    body(**communicator);
  }
  _exit(testing::Test::HasFailure() ? 1 : 0);
}

// Calls `body` once per rank, each call in its own process, and expects all of them to succeed.
inline void ForkRanks(const HostCommunicatorOptions& group,
                      const std::function<void(Communicator&)>& body) {
  const absl::StatusOr<int> region = CreateHostCommunicatorRegion(group.size);
  ASSERT_TRUE(region.ok()) << region.status();
  std::vector<pid_t> children;
  for (int rank = 0; rank < group.size; ++rank) {
    const pid_t child = fork();
    ASSERT_GE(child, 0);
    if (child == 0) {
      HostCommunicatorOptions options = group;
      options.rank = rank;
      RunRankProcess(*region, options, body);
    }
    children.push_back(child);
  }
  close(*region);
  for (int rank = 0; rank < group.size; ++rank) {
    int wait_status = 0;
    ASSERT_EQ(waitpid(children[rank], &wait_status, 0), children[rank]);
    EXPECT_TRUE(WIFEXITED(wait_status) && WEXITSTATUS(wait_status) == 0)
        << "group rank " << rank << " ended with wait status " << wait_status;
  }
}

}  // namespace cohort

#endif  // COHORT_TESTS_PARALLEL_FORK_RANKS_H_
