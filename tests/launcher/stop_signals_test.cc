#include "launcher/stop_signals.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <future>

namespace cohort {
namespace {

TEST(StopSignals, CountsEachSignalOnce) {
  StopSignals signals;
  EXPECT_FALSE(signals.Wait(absl::ZeroDuration()));
  ASSERT_EQ(kill(getpid(), SIGTERM), 0);
  EXPECT_TRUE(signals.Wait(absl::Seconds(30)));
  ASSERT_EQ(kill(getpid(), SIGINT), 0);
  EXPECT_TRUE(signals.Wait(absl::Seconds(30)));
  EXPECT_FALSE(signals.Wait(absl::ZeroDuration()));
}

TEST(StopSignals, TheWatcherCallsAndEnds) {
  StopSignals signals;
  std::promise<void> called;
  {
    const SignalWatcher watcher(signals, [&called] { called.set_value(); });
    ASSERT_EQ(kill(getpid(), SIGINT), 0);
    EXPECT_EQ(called.get_future().wait_for(std::chrono::seconds(30)), std::future_status::ready);
  }
  const SignalWatcher idle(signals, [] { FAIL() << "no signal was sent"; });
}

}  // namespace
}  // namespace cohort
