#include "kernels/cpu/thread_pool.h"

#include <sched.h>

#include <algorithm>
#include <system_error>

#include "kernels/check.h"

namespace cohort {
namespace {

// Some 10 microseconds, the order of a futex wake-up.
constexpr int kSpins = 20000;

// More chunks than threads, so that a thread that was held up does not hold up the rest.
constexpr int64_t kChunksPerThread = 4;

int AllowedCores() {
  cpu_set_t set;
  CPU_ZERO(&set);
  if (sched_getaffinity(0, sizeof(set), &set) != 0) {
    return static_cast<int>(std::thread::hardware_concurrency());
  }
  return CPU_COUNT(&set);
}

}  // namespace

absl::StatusOr<std::unique_ptr<ThreadPool>> ThreadPool::Create(int threads) {
  if (threads < 1) {
    return absl::InvalidArgumentError(
        absl::StrCat("a CPU device needs at least 1 thread, got ", threads));
  }
  std::unique_ptr<ThreadPool> pool(new ThreadPool());
  RETURN_IF_ERROR(pool->Start(threads));
  return pool;
}

absl::Status ThreadPool::Start(int threads) {
  spins_ = threads <= AllowedCores() ? kSpins : 0;
  try {
    workers_.reserve(static_cast<size_t>(threads - 1));
    for (int i = 1; i < threads; ++i) {
      workers_.emplace_back([this] { WorkerLoop(); });
    }
  } catch (const std::exception& error) {
    return absl::ResourceExhaustedError(absl::StrCat("only ", workers_.size() + 1, " of ", threads,
                                                     " threads could be started: ", error.what()));
  }
  return absl::OkStatus();
}

ThreadPool::~ThreadPool() {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    stopping_ = true;
    published_.fetch_add(1, std::memory_order_release);
  }
  wake_workers_.notify_all();
  for (std::thread& worker : workers_) {
    worker.join();
  }
}

void ThreadPool::ParallelFor(int64_t count, int64_t grain, Body body) {
  const int64_t pieces = threads() * kChunksPerThread;
  const int64_t chunk = std::max({int64_t{1}, grain, (count + pieces - 1) / pieces});
  if (count <= chunk || workers_.empty()) {
    if (count > 0) {
      body(0, count);
    }
    return;
  }
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    CHECK(job_.body == nullptr) << "ParallelFor inside ParallelFor";
    job_ = {&body, count, chunk};
    next_.store(0, std::memory_order_relaxed);
    published_.fetch_add(1, std::memory_order_release);
  }
  wake_workers_.notify_all();
  RunChunks(body, count, chunk);
  {
    // Closes the job: a worker that wakes up now finds nothing, so only those inside are awaited.
    const std::lock_guard<std::mutex> lock(mutex_);
    job_.body = nullptr;
  }
  for (int i = 0; i < spins_; ++i) {
    if (active_.load(std::memory_order_acquire) == 0) {
      return;
    }
  }
  std::unique_lock<std::mutex> lock(mutex_);
  wake_caller_.wait(lock, [this] { return active_.load(std::memory_order_acquire) == 0; });
}

void ThreadPool::RunChunks(Body body, int64_t count, int64_t chunk) {
  while (true) {
    const int64_t begin = next_.fetch_add(chunk, std::memory_order_relaxed);
    if (begin >= count) {
      return;
    }
    body(begin, std::min(count, begin + chunk));
  }
}

void ThreadPool::AwaitPublished(uint64_t seen) {
  for (int i = 0; i < spins_; ++i) {
    if (published_.load(std::memory_order_acquire) != seen) {
      return;
    }
  }
  std::unique_lock<std::mutex> lock(mutex_);
  wake_workers_.wait(lock,
                     [this, seen] { return published_.load(std::memory_order_relaxed) != seen; });
}

void ThreadPool::WorkerLoop() {
  uint64_t seen = 0;
  while (true) {
    AwaitPublished(seen);
    Job job;
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      seen = published_.load(std::memory_order_relaxed);
      if (stopping_) {
        return;
      }
      job = job_;
      if (job.body == nullptr) {
        continue;
      }
      active_.fetch_add(1, std::memory_order_relaxed);
    }
    RunChunks(*job.body, job.count, job.chunk);
    if (active_.fetch_sub(1, std::memory_order_acq_rel) == 1) {
      const std::lock_guard<std::mutex> lock(mutex_);
      wake_caller_.notify_one();
    }
  }
}

}  // namespace cohort
