// The threads of one CpuDevice. Driven by one thread at a time: the caller of ParallelFor, which
// takes part in the work.
#ifndef COHORT_KERNELS_CPU_THREAD_POOL_H_
#define COHORT_KERNELS_CPU_THREAD_POOL_H_

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "absl/functional/function_ref.h"
#include "kernels/status.h"

namespace cohort {

class ThreadPool {
 public:
  // Receives a half-open range of indices.
  using Body = absl::FunctionRef<void(int64_t begin, int64_t end)>;

  // Starts threads - 1 workers. INVALID_ARGUMENT below one thread; RESOURCE_EXHAUSTED when the
  // system refuses one.
  static absl::StatusOr<std::unique_ptr<ThreadPool>> Create(int threads);

  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int threads() const { return static_cast<int>(workers_.size()) + 1; }

  // Calls `body` on disjoint ranges that cover [0, count), each of at least `grain` indices but
  // the last, and returns when all are done. Which thread gets which range is a matter of timing.
  // `body` must not call ParallelFor.
  void ParallelFor(int64_t count, int64_t grain, Body body);

 private:
  ThreadPool() = default;
  absl::Status Start(int threads);
  void WorkerLoop();
  void RunChunks(Body body, int64_t count, int64_t chunk);
  // Waits until published_ differs from `seen`: spins a little where every thread has a core, then
  // sleeps.
  void AwaitPublished(uint64_t seen);

  struct Job {
    const Body* body = nullptr;  // null between jobs
    int64_t count = 0;
    int64_t chunk = 1;
  };

  std::vector<std::thread> workers_;
  int spins_ = 0;  // polls before a waiting thread sleeps

  std::mutex mutex_;
  std::condition_variable wake_workers_;
  std::condition_variable wake_caller_;
  Job job_;                // guarded by mutex_
  bool stopping_ = false;  // guarded by mutex_

  std::atomic<uint64_t> published_{0};  // jobs so far; written under mutex_
  std::atomic<int> active_{0};          // workers inside the job; raised under mutex_
  std::atomic<int64_t> next_{0};        // first index nobody took
};

}  // namespace cohort

#endif  // COHORT_KERNELS_CPU_THREAD_POOL_H_
