#include "kernels/cpu/thread_pool.h"

#include <immintrin.h>
#include <sched.h>

#include <algorithm>
#include <system_error>

#include "kernels/check.h"

namespace cohort {
namespace {

// Some 40 microseconds, a few times a futex wake-up: longer than a step is serial between two jobs,
// shorter than the time from step to step.
constexpr int kSpins = 2000;

// More pieces than threads, so that a thread that was held up does not hold up the rest.
constexpr int64_t kPiecesPerThread = 4;

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
  stretches_ = std::make_unique<Stretch[]>(static_cast<size_t>(threads));
  try {
    workers_.reserve(static_cast<size_t>(threads - 1));
    for (int thread = 1; thread < threads; ++thread) {
      workers_.emplace_back([this, thread] { WorkerLoop(thread); });
    }
  } catch (const std::exception& error) {
    return absl::ResourceExhaustedError(absl::StrCat("only ", workers_.size() + 1, " of ", threads,
                                                     " threads could be started: ", error.what()));
  }
  return absl::OkStatus();
}

ThreadPool::~ThreadPool() {
  stopping_.store(true);
  published_.fetch_add(1);
  published_.notify_all();
  for (std::thread& worker : workers_) {
    worker.join();
  }
}

void ThreadPool::ParallelFor(int64_t count, int64_t grain, Body body) {
  const int64_t most_pieces = threads() * kPiecesPerThread;
  const int64_t piece = std::max({int64_t{1}, grain, (count + most_pieces - 1) / most_pieces});
  if (count <= piece || workers_.empty()) {
    if (count > 0) {
      body(0, count);
    }
    return;
  }
  CHECK(body_ == nullptr) << "ParallelFor inside ParallelFor";
  body_ = &body;
  piece_ = piece;
  const int64_t pieces = (count + piece - 1) / piece;
  for (int64_t thread = 0; thread < threads(); ++thread) {
    Stretch& stretch = stretches_[static_cast<size_t>(thread)];
    stretch.next.store(thread * pieces / threads() * piece, std::memory_order_relaxed);
    stretch.end = std::min(count, (thread + 1) * pieces / threads() * piece);
  }
  inside_.store(kOpen, std::memory_order_release);
  published_.fetch_add(1, std::memory_order_release);
  published_.notify_all();
  RunPieces(0);
  // A worker that wakes up after this line finds the door closed: only those inside are awaited.
  for (uint32_t inside = inside_.fetch_and(~kOpen) & ~kOpen; inside != 0;
       inside = inside_.load(std::memory_order_acquire)) {
    AwaitChange(inside_, inside);
  }
  body_ = nullptr;
}

void ThreadPool::RunPieces(int thread) {
  for (int i = 0; i < threads(); ++i) {
    Stretch& stretch = stretches_[static_cast<size_t>((thread + i) % threads())];
    for (int64_t begin;
         (begin = stretch.next.fetch_add(piece_, std::memory_order_relaxed)) < stretch.end;) {
      (*body_)(begin, std::min(stretch.end, begin + piece_));
    }
  }
}

bool ThreadPool::EnterJob() {
  uint32_t inside = inside_.load(std::memory_order_relaxed);
  while ((inside & kOpen) != 0) {
    if (inside_.compare_exchange_weak(inside, inside + 1, std::memory_order_acquire,
                                      std::memory_order_relaxed)) {
      return true;
    }
  }
  return false;
}

void ThreadPool::LeaveJob() {
  inside_.fetch_sub(1, std::memory_order_release);
  inside_.notify_one();
}

void ThreadPool::AwaitChange(const std::atomic<uint32_t>& word, uint32_t value) const {
  for (int i = 0; i < spins_; ++i) {
    if (word.load(std::memory_order_acquire) != value) {
      return;
    }
    _mm_pause();
  }
  word.wait(value, std::memory_order_acquire);
}

void ThreadPool::WorkerLoop(int thread) {
  uint32_t seen = 0;
  while (true) {
    AwaitChange(published_, seen);
    seen = published_.load(std::memory_order_acquire);
    if (stopping_.load(std::memory_order_acquire)) {
      return;
    }
    if (EnterJob()) {
      RunPieces(thread);
      LeaveJob();
    }
  }
}

}  // namespace cohort
