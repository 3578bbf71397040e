// Continuous batching with chunked prefill over paged KV blocks. A pure object: no threads, clock,
// device or RPC. Next() writes a plan, Commit() takes its result; Next() may be called again before
// the Commit() of the plan before (a sequence's next token is then named as "what it sampled in
// that step").
#ifndef COHORT_RUNTIME_SCHEDULER_H_
#define COHORT_RUNTIME_SCHEDULER_H_

#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <vector>

#include "runtime/block_pool.h"
#include "runtime/request.h"
#include "runtime/step_plan.h"

namespace cohort {

struct SchedulerOptions {
  int64_t blocks = 0;              // KV blocks of every rank
  int64_t block_size = 16;         // tokens
  int64_t max_running = 256;       // sequences with a slot; lowered to max_batch_tokens, so that
                                   // every one of them has a row in every step
  int64_t max_batch_tokens = 512;  // rows of one step
  int64_t max_model_len = 0;       // prompt + completion, tokens
  int64_t max_waiting = 1024;      // requests in the queue
  std::vector<int32_t> eos_token_ids;
};

// What a Commit or Cancel did to one request.
struct RequestUpdate {
  RequestId id = 0;
  int64_t first_index = 0;       // of `tokens` among the generated ones
  std::vector<int32_t> tokens;   // new since the last update
  bool scheduled = false;        // first rows planned by the committed step
  std::optional<Finish> finish;  // timing left empty (the scheduler has no clock)
};

class Scheduler {
 public:
  explicit Scheduler(SchedulerOptions options);
  ~Scheduler();

  // RESOURCE_EXHAUSTED when the queue is full; INVALID_ARGUMENT (naming value and limit) when the
  // request can never run: an empty prompt, prompt + max_tokens over max_model_len, or more blocks
  // than the pool has.
  absl::Status Add(RequestId id, Request request);

  // The request ends with `finish` (its counts are filled in); its blocks are free as soon as no
  // sent plan names them. nullopt when it is unknown or already finished.
  std::optional<RequestUpdate> Cancel(RequestId id, Finish finish);

  // A paused request keeps what it holds and is not planned; results of plans in flight still come.
  // Unknown ids are ignored.
  void SetPaused(RequestId id, bool paused);

  // The next plan, or nullopt when nothing can run before the next Commit (or at all).
  std::optional<StepPlan> Next();

  // Results arrive in the order of the plans. A sequence that ended while later plans already named
  // it ignores what those return.
  std::vector<RequestUpdate> Commit(const StepResult& result);

  // A group was lost: plans in flight are forgotten, every unfinished request waits again from its
  // prompt plus what it had generated (in its old order), and steps count from 1 in `epoch`.
  void Requeue(uint64_t epoch);
  void SetEpoch(uint64_t epoch) { Requeue(epoch); }

  bool idle() const;  // nothing waiting, running or in flight
  int64_t running() const;
  int64_t waiting() const;
  int64_t in_flight() const;                  // plans without a result
  std::vector<RequestId> unfinished() const;  // in order of arrival
  uint64_t prompt_tokens_computed() const;    // committed, over all epochs, recomputed ones too
  const BlockPool& blocks() const;
  const SchedulerOptions& options() const;

 private:
  class State;
  std::unique_ptr<State> state_;
};

}  // namespace cohort

#endif  // COHORT_RUNTIME_SCHEDULER_H_
