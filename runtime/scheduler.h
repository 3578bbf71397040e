// Continuous batching with chunked prefill over paged KV blocks. A pure object: no threads, clock,
// device or RPC. Next() writes a plan, Commit() takes its result; Next() may be called again before
// the Commit() of the plan before (a sequence's next token is then named as "what it sampled in
// that step").
//
// Order: larger priorities first, and in order of arrival inside one. Prefixes that earlier
// requests computed are taken from a cache. When KV blocks run out, the least urgent sequences wait
// again and are recomputed later (runtime/README.md has the rules).
#ifndef COHORT_RUNTIME_SCHEDULER_H_
#define COHORT_RUNTIME_SCHEDULER_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "runtime/block_pool.h"
#include "runtime/request.h"
#include "runtime/step_plan.h"

namespace cohort {

struct SchedulerOptions {
  int64_t blocks = 0;                // KV blocks of every rank
  int64_t block_size = 16;           // tokens
  int64_t max_running = 256;         // sequences with a slot; lowered to max_batch_tokens, so that
                                     // every one of them has a row in every step
  int64_t max_batch_tokens = 512;    // rows of one step
  int64_t max_prefill_tokens = 256;  // of these, rows of prefill in a step that also decodes, so
                                     // that prompts do not hold up those who are being answered
  int64_t max_model_len = 0;         // prompt + completion, tokens
  // With --yarn auto: requests of at most so many positions go without YaRN; 0: all are alike.
  int64_t plain_rope_positions = 0;
  // With dual chunk attention: the length of a longer prompt counts in every row of it; 0: never.
  int64_t unscaled_positions = 0;
  int64_t max_waiting = 1024;                     // requests in the queue
  int64_t max_waiting_tokens = int64_t{1} << 22;  // ids in the queue
  bool prefix_caching = true;
  std::vector<int32_t> eos_token_ids;
};

// RESOURCE_EXHAUSTED where a queue of so many requests and tokens has no room for a prompt of
// `prompt_tokens`. A queue without requests has room for any.
absl::Status CheckQueueRoom(const SchedulerOptions& options, int64_t waiting,
                            int64_t waiting_tokens, int64_t prompt_tokens);

// All of the scheduler's life, over all epochs.
struct SchedulerCounts {
  uint64_t prompt_tokens_computed = 0;  // committed; recomputed ones too
  uint64_t preemptions = 0;
  uint64_t prefix_queried_tokens = 0;  // of prompts that were looked up in the prefix cache
  uint64_t prefix_hit_tokens = 0;      // of these, tokens that were found
};

class Scheduler {
 public:
  explicit Scheduler(SchedulerOptions options);
  ~Scheduler();

  // RESOURCE_EXHAUSTED when the queue is full; INVALID_ARGUMENT (naming value and limit) when the
  // request can never run: an empty prompt, prompt + max_tokens over max_model_len, or more blocks
  // than the pool has.
  absl::Status Add(RequestId id, Request request);
  // The INVALID_ARGUMENT of Add.
  absl::Status CheckRunnable(const Request& request) const;

  // The request ends with `finish` (its counts are filled in); its blocks are free as soon as no
  // sent plan names them. nullopt when it is unknown or already finished.
  std::optional<RequestUpdate> Cancel(RequestId id, Finish finish);

  // A paused request is not planned; results of plans in flight still come. It keeps its blocks
  // until others need them. Unknown ids are ignored.
  void SetPaused(RequestId id, bool paused);

  // The next plan, or nullopt when nothing can run before the next Commit (or at all).
  std::optional<StepPlan> Next();
  // The same as step `step`, later than all before: steps in which this scheduler has no part leave
  // gaps (data_parallel_scheduler.h).
  std::optional<StepPlan> Next(uint64_t step);

  // Results arrive in the order of the plans. A sequence that ended while later plans already named
  // it ignores what those return.
  std::vector<RequestUpdate> Commit(const StepResult& result);

  // A group was lost: plans in flight and cached prefixes are forgotten, every unfinished request
  // waits again from its prompt plus what it had generated (in its old order), and steps count from
  // 1 in `epoch`.
  void Requeue(uint64_t epoch);
  void SetEpoch(uint64_t epoch) { Requeue(epoch); }

  bool idle() const;  // nothing waiting, running or in flight
  int64_t running() const;
  int64_t waiting() const;                    // paused ones included
  int64_t paused() const;                     // waiting or running
  int64_t in_flight() const;                  // plans without a result
  std::vector<RequestId> unfinished() const;  // in order of arrival
  int64_t tokens() const;                     // of unfinished requests, as far as they are known
  int64_t waiting_tokens() const;             // of these, of those that wait
  // Of a request that is not added yet: tokens of its prompt that it would find in the cache now.
  int64_t CachedTokens(const Request& request) const;
  const SchedulerCounts& counts() const;
  const BlockPool& blocks() const;
  const SchedulerOptions& options() const;

 private:
  class State;
  std::unique_ptr<State> state_;
};

}  // namespace cohort

#endif  // COHORT_RUNTIME_SCHEDULER_H_
