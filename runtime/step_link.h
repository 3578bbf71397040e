// The way from the engine to one rank: plans out, results back, in order. Implementations: a thread
// of this process (tests), a ring in shared memory (local ranks), the Cluster stream (other nodes).
#ifndef COHORT_RUNTIME_STEP_LINK_H_
#define COHORT_RUNTIME_STEP_LINK_H_

#include <cstdint>
#include <deque>
#include <memory>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "absl/types/span.h"
#include "kernels/status.h"
#include "runtime/step_plan.h"

namespace cohort {

// Send and Receive are called from the engine's thread; Abort from any.
class StepLink {
 public:
  virtual ~StepLink() = default;
  virtual std::string name() const = 0;  // "rank 3 (pid 4711)", for messages

  // `plan_bytes` is an encoded StepPlan. UNAVAILABLE once aborted; DEADLINE_EXCEEDED when the ring
  // stays full.
  virtual absl::Status Send(StringView plan_bytes, absl::Time deadline) = 0;

  // The next encoded StepResult. DEADLINE_EXCEEDED says what was awaited; UNAVAILABLE once aborted;
  // a rank that failed a step answers with that step's status here.
  virtual absl::StatusOr<std::string> Receive(absl::Time deadline) = 0;

  // Every Send and Receive, present or future, returns UNAVAILABLE with `reason`.
  virtual void Abort(absl::Status reason) = 0;
};

// All ranks of the group of one epoch: sends each plan to all, gathers all results, compares
// digests and checks that the first rank answered what the plan asked. Of several data-parallel
// groups, the first rank of each answers for the group's rows, and digests are those of a group.
// After a failure only Abort is sensible. Send and Receive from one thread, Abort from any.
class Executor {
 public:
  // `links` in rank order, not empty, as many for each of `data_parallel` groups. `step_timeout`
  // bounds each step.
  Executor(uint64_t epoch, std::vector<std::unique_ptr<StepLink>> links,
           absl::Duration step_timeout, int data_parallel = 1);

  uint64_t epoch() const { return epoch_; }
  absl::Status Send(const StepPlan& plan);
  // The result of the oldest plan that has none yet. INTERNAL, naming the ranks, when digests
  // differ.
  absl::StatusOr<StepResult> Receive();
  void Abort(absl::Status reason);  // any thread

 private:
  // What the result of a sent plan must hold for one slot.
  struct ExpectedSequence {
    uint32_t slot = 0;
    bool sampled = false;
    int32_t token_top = -1;  // most probable ids beside each token; -1: no log-probabilities
    size_t logprobs = 0;
    size_t score_top = 0;  // in all
  };
  struct ExpectedResult {
    uint64_t step = 0;
    std::vector<ExpectedSequence> sequences;
  };

  absl::StatusOr<StepResult> ReceiveFrom(StepLink& link, const ExpectedResult& expected,
                                         absl::Time deadline);
  int32_t& TokenTop(uint32_t slot);
  ExpectedResult Expect(const StepPlan& plan);
  static bool IsAnswer(const ExpectedSequence& asked, const SequenceResult& answer);
  static absl::Status CheckAnswer(const ExpectedResult& expected, const StepResult& result);
  absl::StatusOr<StepResult> Join(std::vector<StepResult> results,
                                  const ExpectedResult& expected) const;
  // Of one group, whose first rank is `first`.
  absl::Status CompareDigests(absl::Span<const StepResult> results, size_t first) const;

  uint64_t epoch_;
  std::vector<std::unique_ptr<StepLink>> links_;
  size_t group_ranks_;  // ranks of each data-parallel group
  absl::Duration step_timeout_;
  std::deque<ExpectedResult> outstanding_;  // plans without a result, oldest first
  std::vector<int32_t> token_top_of_slot_;  // as the slot was admitted
};

}  // namespace cohort

#endif  // COHORT_RUNTIME_STEP_LINK_H_
