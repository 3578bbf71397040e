#include "kernels/cpu/thread_pool.h"

#include <gtest/gtest.h>

#include <algorithm>

namespace cohort {
namespace {

std::unique_ptr<ThreadPool> MakePool(int threads) {
  absl::StatusOr<std::unique_ptr<ThreadPool>> pool = ThreadPool::Create(threads);
  EXPECT_TRUE(pool.ok()) << pool.status();
  return std::move(pool).value();
}

TEST(ThreadPool, CoversEveryIndexOnce) {
  for (const int threads : {1, 2, 3, 9}) {
    const auto pool = MakePool(threads);
    EXPECT_EQ(pool->threads(), threads);
    for (const int64_t count : {0, 1, 2, 7, 100, 1001}) {
      for (const int64_t grain : {0, 1, 8, 5000}) {
        std::vector<int> visits(static_cast<size_t>(count), 0);
        pool->ParallelFor(count, grain, [&](int64_t begin, int64_t end) {
          ASSERT_LT(begin, end);
          ASSERT_TRUE(end == count || end - begin >= grain);
          for (int64_t i = begin; i < end; ++i) {
            ++visits[static_cast<size_t>(i)];
          }
        });
        EXPECT_EQ(visits, std::vector<int>(static_cast<size_t>(count), 1));
      }
    }
  }
}

// What one job wrote is visible to the next, whoever runs it.
TEST(ThreadPool, ManySmallJobsFollowEachOther) {
  const auto pool = MakePool(3);
  std::vector<int64_t> values(64, 0);
  constexpr int kJobs = 2000;
  for (int job = 0; job < kJobs; ++job) {
    pool->ParallelFor(64, 1, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        values[static_cast<size_t>(i)] += 1;
      }
    });
    if (job % 100 == 0) {
      std::rotate(values.begin(), values.begin() + 1, values.end());
    }
  }
  EXPECT_EQ(values, std::vector<int64_t>(64, kJobs));
}

TEST(ThreadPool, OneThreadWorksOnTheCaller) {
  const auto pool = MakePool(1);
  const std::thread::id caller = std::this_thread::get_id();
  int calls = 0;
  pool->ParallelFor(1000, 1, [&](int64_t begin, int64_t end) {
    EXPECT_EQ(std::this_thread::get_id(), caller);
    EXPECT_EQ(end - begin, 1000);
    ++calls;
  });
  EXPECT_EQ(calls, 1);
}

TEST(ThreadPool, IdlePoolsEnd) {
  for (int round = 0; round < 20; ++round) {
    MakePool(4);
  }
}

TEST(ThreadPool, RefusesNoThreads) {
  EXPECT_EQ(ThreadPool::Create(0).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(ThreadPool::Create(-3).status().code(), absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace cohort
