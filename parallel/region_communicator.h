// The one implementation behind thread_communicator and host_communicator.
//
// A collective is a row of steps. In a step every rank puts its data into one of its two buffers
// (by the step's parity), posts the step, and waits until all ranks have posted it; then it reads
// theirs. A buffer is written again two steps later: by then everyone has posted the step in
// between, and a rank posts only after it has read what the previous step brought. So one wait per
// step suffices, within and across collectives.
//
//   all-reduce, small   1 step: whole payload; every rank sums all of it.
//   all-reduce, large   2 steps per chunk: inputs, of which rank r sums part r; then the sums.
//   all-gather          1 step per chunk.
//   all-to-all          1 step for the counts, then 1 per chunk of the longest of all ranks' rows.
//   barrier             1 step without data.
//
// In a group that spans hosts, each host has a region with places for all ranks, and one rank of it
// (the leader) has a bridge: once its host's ranks have posted a step, it exchanges them for those
// of the other hosts, which it posts on their behalf. A rank of another host posts a step only
// after its own host has read the last one, so buffers are reused as on one host.
#ifndef COHORT_PARALLEL_REGION_COMMUNICATOR_H_
#define COHORT_PARALLEL_REGION_COMMUNICATOR_H_

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "parallel/communicator.h"
#include "parallel/region_bridge.h"
#include "parallel/shared_region.h"

namespace cohort {

struct RegionCommunicatorOptions {
  int rank = 0;
  int size = 1;
  absl::Duration timeout;   // of every collective, positive
  int spin_iterations = 0;  // before sleeping
};

class RegionCommunicator : public Communicator {
 public:
  // The ranks that are threads own the region together; a process is the only owner of its mapping.
  // `bridge`: of the leader of a host in a group that spans hosts, over the same region; else null.
  RegionCommunicator(std::shared_ptr<const SharedRegion> region,
                     const RegionCommunicatorOptions& options,
                     std::unique_ptr<RegionBridge> bridge = nullptr);

  int rank() const override { return rank_; }
  int size() const override { return size_; }
  void AllReduceSum(TensorView inout) override;
  void AllGather(TensorView shard, absl::Span<const Range> parts, TensorView out) override;
  void AllToAll(const ExchangeView& send, const ExchangeView& receive) override;
  void Barrier() override;
  void Abort() override;
  absl::Status status() const override;

 private:
  // Starts the next collective. False when it must not run: an earlier failure or an abort.
  bool Begin(uint32_t kind, int64_t bytes);
  // Makes `step_` visible to the others once this rank's buffer is filled, and waits for them all.
  // `bytes` is what they read of it. False after a failure.
  bool PostAndWait(StepBytes bytes);
  void Post(int rank);
  bool CrossHosts(StepBytes bytes);
  bool WaitFor(int peer);
  void StartClock();
  bool SleepUntilPosted(int peer);
  bool AnnouncementsAgree();

  // The single-step and the two-step all-reduce of `count` elements at `data`.
  bool ReduceDirect(std::byte* data, DType dtype, int64_t count);
  bool ReduceByParts(std::byte* data, DType dtype, int64_t count);

  // Of an all-to-all: every rank's counts become exchanged_bytes_; then the rows, chunk by chunk.
  bool TradeCounts(const ExchangeView& send, int64_t row_bytes);
  void TradeRows(const ExchangeView& send, const ExchangeView& receive);
  int64_t& ExchangedBytes(int source, int reader) {
    return exchanged_bytes_[static_cast<size_t>(source) * static_cast<size_t>(size_) +
                            static_cast<size_t>(reader)];
  }

  std::byte* own_buffer() const { return region_->buffer(rank_, step_); }
  void Fail(absl::Status status);
  absl::Status DeadlineError(int first_missing) const;
  std::string Describe(const Announcement& announcement) const;

  const std::shared_ptr<const SharedRegion> region_;
  const int rank_;
  const int size_;
  const absl::Duration timeout_;
  const int spin_iterations_;
  const std::unique_ptr<RegionBridge> bridge_;

  // Of the worker thread.
  Announcement current_;                  // the collective under way
  uint32_t step_ = 1;                     // the next step to be posted
  int64_t deadline_nanos_ = 0;            // of the collective under way; 0 until it has to sleep
  std::vector<const void*> sources_;      // scratch of the sums, one entry per rank
  std::vector<int64_t> exchanged_bytes_;  // scratch of the all-to-all, [from, to]

  // Set by whichever comes first of Abort() and a failure; read in every wait.
  std::atomic<bool> failed_{false};
  mutable std::mutex mutex_;
  absl::Status status_;  // guarded by mutex_
};

}  // namespace cohort

#endif  // COHORT_PARALLEL_REGION_COMMUNICATOR_H_
