// The schedulers of all data-parallel groups as one: each group has its own sequences, blocks and
// prefix cache; a step has one plan, with the rows of every group. Pure, like Scheduler. With one
// group it is that group's scheduler.
//
// A new request goes to the group that has the least to hold once it is there: the tokens of its
// unfinished requests and those of the new prompt that its cache does not have. So a group with a
// cached prefix is preferred until it is busier than others by more than the prefix saves. Equals
// take turns.
#ifndef COHORT_RUNTIME_DATA_PARALLEL_SCHEDULER_H_
#define COHORT_RUNTIME_DATA_PARALLEL_SCHEDULER_H_

#include <cstdint>
#include <deque>
#include <optional>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "runtime/scheduler.h"

namespace cohort {

// Of one group, or of all together.
struct SchedulerLoad {
  int64_t running = 0;
  int64_t waiting = 0;        // paused ones included
  int64_t paused = 0;         // waiting or running
  int64_t blocks_used = 0;    // by sequences
  int64_t blocks_cached = 0;  // unused, with prefixes that requests may find
  int64_t blocks_total = 0;
  SchedulerCounts counts;
};

class DataParallelScheduler {
 public:
  // `options` of every group, except that the queue's limits are those of all groups together.
  DataParallelScheduler(const SchedulerOptions& options, int groups);

  // As those of Scheduler.
  absl::Status Add(RequestId id, Request request);
  std::optional<RequestUpdate> Cancel(RequestId id, Finish finish);
  void SetPaused(RequestId id, bool paused);
  std::optional<StepPlan> Next();  // nullopt when no group has rows
  std::vector<RequestUpdate> Commit(StepResult result);
  void Requeue(uint64_t epoch);
  void SetEpoch(uint64_t epoch) { Requeue(epoch); }

  int64_t in_flight() const { return static_cast<int64_t>(in_flight_.size()); }
  std::vector<RequestId> unfinished() const;  // in order of arrival
  int64_t block_size() const { return options_.block_size; }
  std::vector<SchedulerLoad> loads() const;  // by group
  SchedulerLoad load() const;                // of all together

 private:
  struct Place {
    size_t group = 0;
    uint64_t arrival = 0;
  };
  struct PlanInFlight {
    uint64_t step = 0;
    std::vector<size_t> groups;  // with rows in it
  };

  size_t ChooseGroup(const Request& request) const;
  Scheduler* GroupOf(RequestId id);  // null when it is unknown or finished

  const SchedulerOptions options_;
  std::deque<Scheduler> schedulers_;              // by group
  std::vector<uint64_t> last_arrivals_;           // by group, of the request that went there last
  absl::flat_hash_map<RequestId, Place> places_;  // of unfinished requests
  uint64_t arrivals_ = 0;
  std::deque<PlanInFlight> in_flight_;
  uint64_t epoch_ = 0;
  uint64_t last_step_ = 0;
};

}  // namespace cohort

#endif  // COHORT_RUNTIME_DATA_PARALLEL_SCHEDULER_H_
