#include "launcher/rank_memory.h"

#include <gtest/gtest.h>

namespace cohort {
namespace {

TEST(RankMemory, ArrivesAsItWasSent) {
  const WorkerMemory memory = {.weights = 3, .kv = int64_t{1} << 40, .workspace = 5};
  EXPECT_EQ(FromMessage(ToMessage(memory)), memory);
}

}  // namespace
}  // namespace cohort
