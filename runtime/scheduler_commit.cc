// What becomes of sequences and of their slots and blocks when results come.
#include <algorithm>
#include <utility>

#include "kernels/check.h"
#include "runtime/scheduler_state.h"

namespace cohort {

std::vector<RequestUpdate> Scheduler::State::Commit(const StepResult& result) {
  CHECK(!in_flight_.empty()) << "a result of step " << result.step << " without a plan";
  const PlanInFlight plan = std::move(in_flight_.front());
  in_flight_.pop_front();
  CHECK_EQ(result.epoch, epoch_);
  CHECK_EQ(result.step, plan.step);
  std::vector<RequestUpdate> updates;
  updates.reserve(plan.rows.size());
  auto sequence_result = result.sequences.begin();
  for (const PlannedRows& rows : plan.rows) {
    const SequenceResult* own = nullptr;
    if (rows.has_result) {
      CHECK(sequence_result != result.sequences.end()) << "step " << plan.step;
      CHECK_EQ(sequence_result->slot, rows.sequence->slot) << "step " << plan.step;
      own = &*sequence_result++;
    }
    if (std::optional<RequestUpdate> update = CommitRows(rows, own); update.has_value()) {
      updates.push_back(*std::move(update));
    }
  }
  CHECK(sequence_result == result.sequences.end()) << "step " << plan.step;
  return updates;
}

std::optional<RequestUpdate> Scheduler::State::CommitRows(const PlannedRows& rows,
                                                          const SequenceResult* result) {
  Sequence& sequence = *rows.sequence;
  --sequence.plans_in_flight;
  counts_.prompt_tokens_computed += static_cast<uint64_t>(std::max<int64_t>(
      std::min(rows.end_position, sequence.prompt_tokens()) - rows.first_position, 0));
  if (sequence.ended) {
    if (sequence.plans_in_flight == 0) {
      GiveBack(sequence);
      ending_.erase(&sequence);
    }
    return std::nullopt;
  }
  RequestUpdate update;
  update.id = sequence.id();
  update.first_index = sequence.generated_tokens();
  update.scheduled = !std::exchange(sequence.reported, true);
  if (result != nullptr) {
    sequence.Accept(rows.first_position, rows.end_position, *result, options_.eos_token_ids,
                    update);
  }
  if (update.finish.has_value() && update.finish->reason == FinishReason::kError) {
    DistrustBlocks(sequence);
  } else {
    CacheBlocks(sequence);
  }
  const bool is_news = update.scheduled || !update.tokens.empty() || update.finish.has_value();
  if (update.finish.has_value()) {
    update.finish = sequence.WithCounts(*std::move(update.finish));
    End(sequence);
  } else if (sequence.preempted && sequence.plans_in_flight == 0) {
    FinishPreemption(sequence);
  }
  return is_news ? std::make_optional(std::move(update)) : std::nullopt;
}

// Blocks whose every position is planned and whose every token is known are found from now on.
void Scheduler::State::CacheBlocks(Sequence& sequence) {
  const int64_t full = std::min(sequence.planned(), sequence.size()) / options_.block_size;
  const size_t size = static_cast<size_t>(options_.block_size);
  for (; options_.prefix_caching && sequence.blocks_cached < full; ++sequence.blocks_cached) {
    const size_t index = static_cast<size_t>(sequence.blocks_cached);
    const int32_t block = sequence.blocks[index];
    const PrefixCache::Found found =
        cache_.Insert(sequence.cache_node, sequence.tokens().subspan(index * size, size), block);
    if (found.block == block) {
      pool_.Keep(block);
    }
    sequence.cache_node = found.node;
  }
}

// Logits that are not numbers may come of keys and values that are not.
void Scheduler::State::DistrustBlocks(const Sequence& sequence) {
  for (const int32_t block : sequence.blocks) {
    cache_.Erase(block);
    pool_.Drop(block);
  }
}

// The request is finished; what it holds is given back now, or when the last plan in flight that
// names it is committed.
void Scheduler::State::End(Sequence& sequence) {
  const auto found = by_id_.find(sequence.id());
  std::unique_ptr<Sequence> owned = std::move(found->second);
  by_id_.erase(found);
  if (!sequence.has_slot()) {
    Dequeue(sequence);
  } else {
    RemoveFromRunning(sequence);
  }
  paused_ -= sequence.paused ? 1 : 0;
  if (sequence.plans_in_flight > 0) {
    sequence.ended = true;
    ending_.emplace(&sequence, std::move(owned));
  } else if (sequence.has_slot()) {
    GiveBack(sequence);
  }
}

// Nothing is lost but time: the tokens are kept, and most blocks can be found in the prefix cache
// until others need them.
void Scheduler::State::FinishPreemption(Sequence& sequence) {
  RemoveFromRunning(sequence);
  GiveBack(sequence);
  sequence.Restart();
  Enqueue(sequence);
}

void Scheduler::State::RemoveFromRunning(const Sequence& sequence) {
  const auto found = std::lower_bound(running_.begin(), running_.end(), &sequence, MoreUrgent());
  CHECK(found != running_.end() && *found == &sequence) << "request " << sequence.id();
  running_.erase(found);
  preempting_ -= sequence.preempted ? 1 : 0;
}

void Scheduler::State::GiveBack(Sequence& sequence) {
  pool_.Release(sequence.blocks);
  free_slots_.push_back(sequence.slot);
  slots_to_release_.insert(sequence.slot);
}

}  // namespace cohort
