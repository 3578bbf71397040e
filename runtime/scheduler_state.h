// The scheduler's own header: its state, shared by the sources that admit (scheduler_admission.cc),
// plan (scheduler_planning.cc), commit (scheduler_commit.cc) and answer (scheduler.cc).
#ifndef COHORT_RUNTIME_SCHEDULER_STATE_H_
#define COHORT_RUNTIME_SCHEDULER_STATE_H_

#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <set>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "runtime/prefix_cache.h"
#include "runtime/scheduler.h"
#include "runtime/scheduler_sequence.h"

namespace cohort {

inline int64_t CeilDivide(int64_t a, int64_t b) { return (a + b - 1) / b; }

// The order in which sequences are admitted, planned and given blocks; preemption goes backwards.
struct MoreUrgent {
  bool operator()(const Sequence* a, const Sequence* b) const {
    const int32_t a_priority = a->request().priority;
    const int32_t b_priority = b->request().priority;
    return a_priority != b_priority ? a_priority > b_priority : a->arrival() < b->arrival();
  }
};

// How many blocks are available once some sequences have given theirs back.
class FreedBlocks {
 public:
  explicit FreedBlocks(const BlockPool& pool) : pool_(&pool) {}
  void Add(const Sequence& sequence);
  int64_t count() const { return count_; }

 private:
  const BlockPool* pool_;
  absl::flat_hash_map<int32_t, int32_t> references_;  // given back, per block
  int64_t count_ = 0;
};

class Scheduler::State {
 public:
  explicit State(SchedulerOptions options);

  // scheduler.cc
  absl::Status Add(RequestId id, Request request);
  std::optional<RequestUpdate> Cancel(RequestId id, Finish finish);
  void SetPaused(RequestId id, bool paused);
  void Requeue(uint64_t epoch);
  std::vector<RequestId> unfinished() const;
  int64_t tokens() const;
  absl::Status CheckRunnable(const Request& request) const;
  // scheduler_admission.cc
  int64_t CachedTokens(const Request& request) const;
  // scheduler_planning.cc
  std::optional<StepPlan> Next(uint64_t step);
  // scheduler_commit.cc
  std::vector<RequestUpdate> Commit(const StepResult& result);

  // Read by Scheduler's accessors.
  SchedulerOptions options_;
  SchedulerCounts counts_;
  BlockPool pool_;
  // Every sequence is in exactly one of these; pointers to it stay good until it is gone.
  using Queue = std::set<Sequence*, MoreUrgent>;
  Queue waiting_;
  Queue parked_;                    // waiting and paused
  std::vector<Sequence*> running_;  // with a slot, most urgent first
  absl::flat_hash_map<const Sequence*, std::unique_ptr<Sequence>>
      ending_;  // ended, kept while plans in flight name them
  int64_t paused_ = 0;
  int64_t waiting_tokens_ = 0;  // of waiting_ and parked_
  uint64_t last_step_ = 0;

  // The rows of one sequence in a plan in flight.
  struct PlannedRows {
    Sequence* sequence = nullptr;
    int64_t first_position = 0;
    int64_t end_position = 0;
    bool has_result = false;
  };
  struct PlanInFlight {
    uint64_t step = 0;
    std::vector<PlannedRows> rows;  // in the plan's order
  };
  std::deque<PlanInFlight> in_flight_;

 private:
  // scheduler.cc
  bool HasPlainRope(const Request& request, int64_t prompt_tokens) const;
  std::string CacheSalt(const Request& request, int64_t prompt_tokens) const;
  void ResetSlots();
  void Enqueue(Sequence& sequence);  // into waiting_ or parked_
  void Dequeue(Sequence& sequence);

  // scheduler_planning.cc
  int64_t PlanRunning(bool prefilling, int64_t budget, StepPlan& plan);
  int64_t PlanRows(Sequence& sequence, int64_t budget, StepPlan& plan);
  void MakeRoom(const Sequence& needy, int64_t blocks);
  Sequence* VictimFor(const Sequence& needy) const;
  void Preempt(Sequence& sequence);
  FreedBlocks& blocks_coming();
  int64_t UnclaimedBlocks() { return blocks_coming().count() - blocks_claimed_; }

  // scheduler_admission.cc
  void PlanAdmissions(int64_t budget, StepPlan& plan);
  struct Prefix {
    std::vector<PrefixCache::Found> blocks;
    bool is_coming = false;  // more of it: this very plan computes the block after these
  };
  Prefix FindPrefix(const Sequence& sequence);
  PrefixCache::Node RootOf(const Sequence& sequence);
  std::vector<PrefixCache::Found> CachedBlocks(PrefixCache::Node root,
                                               absl::Span<const int32_t> tokens) const;
  void AnnounceBlock(const Sequence& sequence);
  bool CouldFindSlot(const Sequence& candidate) const;
  bool FindSlot(const Sequence& candidate);
  bool FindBlocks(const Sequence& candidate, const Prefix& prefix);
  std::vector<Sequence*> VictimsFor(const Sequence& candidate) const;
  void Admit(Sequence& sequence, const Prefix& prefix, StepPlan& plan);
  int64_t DemandOf(const Sequence& sequence, int64_t blocks) const;
  int64_t DemandOfRunning() const;

  // scheduler_commit.cc
  std::optional<RequestUpdate> CommitRows(const PlannedRows& rows, const SequenceResult* result);
  void CacheBlocks(Sequence& sequence);
  void DistrustBlocks(const Sequence& sequence);
  void End(Sequence& sequence);
  void FinishPreemption(Sequence& sequence);
  void GiveBack(Sequence& sequence);
  void RemoveFromRunning(const Sequence& sequence);

  PrefixCache cache_;
  absl::flat_hash_map<RequestId, std::unique_ptr<Sequence>> by_id_;  // unfinished
  uint64_t arrivals_ = 0;
  int64_t preempting_ = 0;               // of running_, those that are preempted
  std::vector<uint32_t> free_slots_;     // a stack
  std::set<uint32_t> slots_to_release_;  // given back since the last plan, for its `releases`
  uint64_t epoch_ = 0;

  // Of the Next() in progress.
  std::vector<Sequence*> order_;              // running_ as it was at the beginning
  std::vector<Sequence*> prefilling_;         // those with rows of prefill in the plan
  absl::flat_hash_set<size_t> next_blocks_;   // of those, hashes of the block each computes first
  std::optional<FreedBlocks> blocks_coming_;  // with commits of plans in flight
  int64_t blocks_claimed_ = 0;                // of these, by running sequences
  int64_t demand_ = 0;                        // blocks that running sequences are about to reach
};

}  // namespace cohort

#endif  // COHORT_RUNTIME_SCHEDULER_STATE_H_
