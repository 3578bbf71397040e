#include "runtime/worker_memory.h"

#include <gtest/gtest.h>

namespace cohort {
namespace {

TEST(WorkerMemory, FindsTheAvailableBytes) {
  const auto bytes = ParseAvailableMemory(
      "MemTotal:       24537436 kB\nMemFree:  1 kB\nMemAvailable:   16316420 kB\nBuffers: 2 kB\n");
  ASSERT_TRUE(bytes.ok()) << bytes.status();
  EXPECT_EQ(*bytes, int64_t{16316420} * 1024);
  EXPECT_FALSE(ParseAvailableMemory("MemTotal: 1 kB\n").ok());
  EXPECT_FALSE(ParseAvailableMemory("MemAvailable: many kB\n").ok());
}

TEST(WorkerMemory, NamesTheBytesThatDoNotFit) {
  const WorkerMemory needed = {.weights = 1000, .kv = 200, .workspace = 30};
  EXPECT_TRUE(CheckMemory(needed, 1230).ok());
  const absl::Status status = CheckMemory(needed, 1229);
  EXPECT_TRUE(absl::IsResourceExhausted(status)) << status;
  for (const StringView part : {"1230", "1000", "200", "30", "1229"}) {
    EXPECT_NE(status.message().find(part), StringView::npos) << status;
  }
}

}  // namespace
}  // namespace cohort
