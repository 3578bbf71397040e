#include "runtime/host_cpus.h"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <vector>

#include "tests/runtime/checkpoint_writer.h"

namespace cohort {
namespace {

std::vector<int> Listed(const std::optional<cpu_set_t>& cpus) {
  std::vector<int> listed;
  for (int cpu = 0; cpus.has_value() && cpu < CPU_SETSIZE; ++cpu) {
    if (CPU_ISSET(static_cast<size_t>(cpu), &*cpus)) {
      listed.push_back(cpu);
    }
  }
  return listed;
}

std::optional<cpu_set_t> Mine() {
  cpu_set_t mine;
  CHECK(sched_getaffinity(0, sizeof(mine), &mine) == 0);
  return mine;
}

TEST(HostCpus, ReadsListsAsTheSystemWritesThem) {
  EXPECT_EQ(Listed(ParseCpuList("0-2,8,10-11\n")), (std::vector<int>{0, 1, 2, 8, 10, 11}));
  EXPECT_EQ(Listed(ParseCpuList("5")), std::vector<int>{5});
  for (const char* bad : {"", "\n", "a", "3-1", "-1", "1,", "0-99999", "1-2-3"}) {
    EXPECT_EQ(ParseCpuList(bad), std::nullopt) << bad;
  }
}

TEST(HostCpus, ANodeHasThoseThatThisProcessMayUse) {
  const TemporaryDirectory directory;
  ASSERT_EQ(mkdir((directory.path() + "/node1").c_str(), 0755), 0);
  directory.Write("node1/cpulist", "0-1023\n");
  EXPECT_EQ(Listed(CpusOfNode(1, directory.path())), Listed(Mine()));
  EXPECT_EQ(CpusOfNode(0, directory.path()), std::nullopt);
  directory.Write("node1/cpulist", "nonsense\n");
  EXPECT_EQ(CpusOfNode(1, directory.path()), std::nullopt);
}

TEST(HostCpus, AThreadIsBoundAndFreedAgain) {
  const std::vector<int> before = Listed(Mine());
  {
    const ScopedCpus bound(ParseCpuList(absl::StrCat(before.back())));
    EXPECT_EQ(Listed(Mine()), std::vector<int>{before.back()});
  }
  EXPECT_EQ(Listed(Mine()), before);
  const ScopedCpus unbound(std::nullopt);
  EXPECT_EQ(Listed(Mine()), before);
}

}  // namespace
}  // namespace cohort
