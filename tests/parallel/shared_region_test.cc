#include "parallel/shared_region.h"

#include <gtest/gtest.h>

#include <thread>

namespace cohort {
namespace {

constexpr int64_t kMillisecond = 1'000'000;

TEST(SharedRegion, StepCountersMayWrap) {
  EXPECT_TRUE(HasReached(5, 5));
  EXPECT_TRUE(HasReached(6, 5));
  EXPECT_FALSE(HasReached(4, 5));
  EXPECT_FALSE(HasReached(0xffffffffu, 0));
  EXPECT_TRUE(HasReached(0, 0xffffffffu));
  EXPECT_TRUE(HasReached(1, 0xffffffffu));
}

TEST(SharedRegion, BuffersOfAllRanksAndParitiesFillTheRestOfTheRegion) {
  const auto region = SharedRegion::OnHeap(3);
  const std::byte* expected = region->buffer(0, 0);
  for (int rank = 0; rank < 3; ++rank) {
    for (uint32_t step = 0; step < 2; ++step) {
      EXPECT_EQ(region->buffer(rank, step), expected);
      EXPECT_EQ(region->buffer(rank, step + 2), expected) << "by parity";
      expected += SharedRegion::kBufferBytes;
    }
  }
  const auto* begin = reinterpret_cast<const std::byte*>(&region->control(0));
  EXPECT_EQ(expected - begin, SharedRegion::Bytes(3));
  EXPECT_LE(reinterpret_cast<const std::byte*>(&region->control(2) + 1), region->buffer(0, 0));
}

TEST(SharedRegion, AFutexWaitEndsAtItsDeadline) {
  std::atomic<uint32_t> word{7};
  const int64_t deadline = MonotonicNanos() + 5 * kMillisecond;
  while (FutexWait(word, 7, deadline)) {
  }
  EXPECT_GE(MonotonicNanos(), deadline);
}

TEST(SharedRegion, AFutexWaitDoesNotBeginWhenTheWordHasChanged) {
  std::atomic<uint32_t> word{8};
  EXPECT_TRUE(FutexWait(word, 7, MonotonicNanos() + 3'600'000 * kMillisecond));
}

TEST(SharedRegion, AWakeEndsTheWait) {
  std::atomic<uint32_t> word{0};
  std::thread waker([&] {
    word.store(1);
    FutexWakeAll(word);
  });
  while (word.load() == 0) {
    ASSERT_TRUE(FutexWait(word, 0, MonotonicNanos() + 60'000 * kMillisecond));
  }
  waker.join();
}

}  // namespace
}  // namespace cohort
