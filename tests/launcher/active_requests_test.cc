#include "launcher/active_requests.h"

#include <gtest/gtest.h>

namespace cohort {
namespace {

SchedulerOptions SmallOptions() {
  SchedulerOptions options;
  options.blocks = 4;
  options.max_model_len = 16;
  return options;
}

TEST(ActiveRequests, RefusesAnIdUntilItIsReleased) {
  Engine engine(SmallOptions(), nullptr);
  ActiveRequests active(engine);
  ASSERT_TRUE(active.Reserve("a").ok());
  EXPECT_TRUE(active.Reserve("b").ok());
  EXPECT_TRUE(absl::IsAlreadyExists(active.Reserve("a").status()));
  active.Release("a");
  EXPECT_TRUE(active.Reserve("a").ok());
}

TEST(ActiveRequests, AbortNamesThoseItKnew) {
  Engine engine(SmallOptions(), nullptr);
  ActiveRequests active(engine);
  ASSERT_TRUE(active.Reserve("a").ok());
  EXPECT_EQ(active.Abort({"unknown", "a"}), std::vector<std::string>{"a"});
}

}  // namespace
}  // namespace cohort
