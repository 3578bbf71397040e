// The threads of one CpuDevice. Driven by one thread at a time: the caller of ParallelFor, which
// takes part in the work.
#ifndef COHORT_KERNELS_CPU_THREAD_POOL_H_
#define COHORT_KERNELS_CPU_THREAD_POOL_H_

#include <atomic>
#include <cstdint>
#include <memory>
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
  // the last, and returns when all are done. Each thread takes one stretch of [0, count) piece by
  // piece, then helps the others: which thread gets which range is a matter of timing. `body` must
  // not call ParallelFor. Allocates nothing.
  void ParallelFor(int64_t count, int64_t grain, Body body);

 private:
  // What one thread is to do first; [next, end) is left of it.
  struct alignas(64) Stretch {
    std::atomic<int64_t> next{0};
    int64_t end = 0;
  };

  ThreadPool() = default;
  absl::Status Start(int threads);
  void WorkerLoop(int thread);
  void RunPieces(int thread);
  // False when the job is over: then nothing of it may be read.
  bool EnterJob();
  void LeaveJob();
  // Waits until `word` differs from `value`: spins a little where every thread has a core, then
  // sleeps.
  void AwaitChange(const std::atomic<uint32_t>& word, uint32_t value) const;

  std::vector<std::thread> workers_;
  int spins_ = 0;  // polls before a waiting thread sleeps

  // The job. Written while nobody is inside, read by those inside.
  const Body* body_ = nullptr;
  int64_t piece_ = 1;                     // indices taken at a time
  std::unique_ptr<Stretch[]> stretches_;  // [threads]

  // kOpen while workers may enter, plus the number of workers inside.
  static constexpr uint32_t kOpen = 1u << 31;
  alignas(64) std::atomic<uint32_t> inside_{0};
  alignas(64) std::atomic<uint32_t> published_{0};  // jobs so far; wraps
  std::atomic<bool> stopping_{false};
};

}  // namespace cohort

#endif  // COHORT_KERNELS_CPU_THREAD_POOL_H_
