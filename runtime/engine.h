// The engine: one thread that owns the scheduler, feeds the group of ranks and tells every
// request's sink what becomes of it. Submit, Cancel, load and the group calls may come from any
// thread.
#ifndef COHORT_RUNTIME_ENGINE_H_
#define COHORT_RUNTIME_ENGINE_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "runtime/data_parallel_scheduler.h"
#include "runtime/request.h"
#include "runtime/step_link.h"

namespace cohort {

struct EngineLoad {
  int64_t running = 0;
  int64_t waiting = 0;
  int64_t paused = 0;            // of those running or waiting
  int64_t kv_blocks_used = 0;    // by sequences
  int64_t kv_blocks_cached = 0;  // unused, with prefixes that requests may find
  int64_t kv_blocks_total = 0;
  int64_t block_size = 0;
  uint64_t epoch = 0;    // of the group that serves; 0 before the first
  bool serving = false;  // a group is there
  bool draining = false;
  uint64_t steps = 0;  // committed, over all epochs
  uint64_t requests_finished = 0;
  uint64_t prompt_tokens = 0;          // computed
  uint64_t generated_tokens = 0;       // delivered
  uint64_t preemptions = 0;            // sequences that gave up their blocks and waited again
  uint64_t prefix_queried_tokens = 0;  // of prompts that were looked up in the prefix cache
  uint64_t prefix_hit_tokens = 0;      // of these, tokens that were found there
  double last_step_milliseconds = 0;
  // Rows that chose each expert so far, of all layers together; empty without experts.
  std::vector<uint64_t> expert_hits;
  std::vector<SchedulerLoad> groups;  // data-parallel ones, which the above are the sums of
};

class Engine {
 public:
  // Told, from the engine's thread, that a step failed or timed out (the group is then gone for the
  // engine).
  using GroupFailure = std::function<void(uint64_t epoch, absl::Status status)>;

  // `options` of each of `data_parallel` groups (data_parallel_scheduler.h).
  Engine(const SchedulerOptions& options, GroupFailure on_group_failure, int data_parallel = 1);
  ~Engine();  // ends every request with UNAVAILABLE, joins the thread

  // UNAVAILABLE without a group or while draining; the errors of Scheduler::Add. On success the
  // sink is called until OnFinish; on an error it never is.
  absl::StatusOr<RequestId> Submit(Request request, std::shared_ptr<RequestSink> sink);

  // Idempotent; unknown ids are ignored. Blocks are free within two step commits.
  void Cancel(RequestId id);

  // From any thread, idempotent, unknown ids are ignored. A paused request (its reader is slow) is
  // not planned until Resume: tokens of the plans already sent still come, then none. It keeps its
  // KV blocks until others need them, and ends by Cancel or its deadline as ever.
  void Pause(RequestId id);
  void Resume(RequestId id);

  // The group of a new epoch is ready to step.
  void GroupReady(std::unique_ptr<Executor> executor);
  // The group of `epoch` is gone: every unfinished request ends with `status` (UNAVAILABLE).
  // Returns at once and aborts the executor, so that a waiting engine thread wakes. A stale epoch
  // is ignored.
  void GroupLost(uint64_t epoch, absl::Status status);

  // No new requests; true when all have finished by the deadline. Those left end with UNAVAILABLE.
  bool Drain(absl::Time deadline);

  EngineLoad load() const;

 private:
  class State;
  std::unique_ptr<State> state_;
};

}  // namespace cohort

#endif  // COHORT_RUNTIME_ENGINE_H_
