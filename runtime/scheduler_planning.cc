// Which rows the next step computes, and who gives up KV blocks for them.
#include <algorithm>
#include <utility>

#include "kernels/check.h"
#include "runtime/scheduler_state.h"

namespace cohort {

std::optional<StepPlan> Scheduler::State::Next(uint64_t step) {
  CHECK_GT(step, last_step_);
  StepPlan plan;
  plan.epoch = epoch_;
  plan.step = step;
  in_flight_.push_back({.step = plan.step, .rows = {}});
  order_ = running_;
  prefilling_.clear();
  next_blocks_.clear();
  blocks_coming_.reset();
  blocks_claimed_ = 0;
  plan.rows.reserve(order_.size());
  in_flight_.back().rows.reserve(order_.size());

  const int64_t decodes = PlanRunning(/*prefilling=*/false, options_.max_batch_tokens, plan);
  int64_t budget = options_.max_batch_tokens - decodes;
  if (decodes > 0) {
    budget = std::min(budget, options_.max_prefill_tokens);
  }
  budget -= PlanRunning(/*prefilling=*/true, budget, plan);
  PlanAdmissions(budget, plan);
  if (plan.rows.empty()) {
    CHECK(plan.admits.empty());
    in_flight_.pop_back();
    return std::nullopt;
  }
  // Ranks compute plans in order, so later plans may read what this one writes; this one may not.
  for (Sequence* sequence : prefilling_) {
    CacheBlocks(*sequence);
  }
  plan.releases.assign(slots_to_release_.begin(), slots_to_release_.end());
  slots_to_release_.clear();
  last_step_ = step;
  CHECK_LE(plan.tokens(), options_.max_batch_tokens);
  return plan;
}

// Rows of the running sequences that decode, or of those that prefill; returns their number. A
// sequence is one or the other when Next() begins and decoding is never left, so none comes twice.
int64_t Scheduler::State::PlanRunning(bool prefilling, int64_t budget, StepPlan& plan) {
  int64_t planned = 0;
  for (Sequence* sequence : order_) {
    if (planned == budget) {
      break;
    }
    const bool can_run = sequence->has_slot() && !sequence->paused && !sequence->preempted;
    if (can_run && sequence->is_prefilling() == prefilling) {
      planned += PlanRows(*sequence, budget - planned, plan);
    }
  }
  return planned;
}

// As many rows as the sequence has and budget and blocks allow, with the blocks that they reach;
// returns their number.
int64_t Scheduler::State::PlanRows(Sequence& sequence, int64_t budget, StepPlan& plan) {
  int64_t count = std::min(sequence.plannable(), budget);
  if (count <= 0) {
    return 0;
  }
  const int64_t first = sequence.planned();
  const int64_t held = static_cast<int64_t>(sequence.blocks.size());
  int64_t wanted = CeilDivide(first + count, options_.block_size) - held;
  if (wanted > pool_.available()) {
    MakeRoom(sequence, wanted);
    wanted = std::min(wanted, pool_.available());
    count = std::min(count, (held + wanted) * options_.block_size - first);
    if (count <= 0) {
      return 0;
    }
  }
  if (sequence.is_prefilling()) {
    prefilling_.push_back(&sequence);
    AnnounceBlock(sequence);
  }
  SequenceRows rows = sequence.PlanRows(count, plan.step);
  if (wanted > 0) {
    auto blocks = pool_.Allocate(wanted);
    CHECK_OK(blocks.status());
    sequence.blocks.insert(sequence.blocks.end(), blocks->begin(), blocks->end());
  }
  rows.appended_blocks.assign(sequence.blocks.begin() + sequence.blocks_told,
                              sequence.blocks.end());
  sequence.blocks_told = static_cast<int64_t>(sequence.blocks.size());
  ++sequence.plans_in_flight;
  in_flight_.back().rows.push_back({.sequence = &sequence,
                                    .first_position = first,
                                    .end_position = sequence.planned(),
                                    .has_result = rows.sample || !rows.score_targets.empty()});
  plan.rows.push_back(std::move(rows));
  return count;
}

// Preempts until `blocks` are available, at once or when plans in flight have been committed.
void Scheduler::State::MakeRoom(const Sequence& needy, int64_t blocks) {
  while (pool_.available() + UnclaimedBlocks() < blocks) {
    Sequence* victim = VictimFor(needy);
    if (victim == nullptr) {
      return;
    }
    Preempt(*victim);
  }
  // Others that lack blocks find more.
  blocks_claimed_ += std::max<int64_t>(blocks - pool_.available(), 0);
}

// A paused sequence, else the least urgent one, if it is less urgent than the one in need.
Sequence* Scheduler::State::VictimFor(const Sequence& needy) const {
  for (auto other = running_.rbegin(); other != running_.rend(); ++other) {
    if ((*other)->paused && !(*other)->preempted) {
      return *other;
    }
  }
  for (auto other = running_.rbegin(); other != running_.rend() && *other != &needy; ++other) {
    if (!(*other)->preempted) {
      return *other;
    }
  }
  return nullptr;
}

void Scheduler::State::Preempt(Sequence& sequence) {
  CHECK(!sequence.preempted) << "request " << sequence.id();
  ++counts_.preemptions;
  if (sequence.plans_in_flight > 0) {
    blocks_coming().Add(sequence);
  }
  sequence.preempted = true;
  ++preempting_;
  if (sequence.plans_in_flight == 0) {
    FinishPreemption(sequence);
  }
}

void FreedBlocks::Add(const Sequence& sequence) {
  for (const int32_t block : sequence.blocks) {
    count_ += ++references_[block] == pool_->references(block) ? 1 : 0;
  }
}

FreedBlocks& Scheduler::State::blocks_coming() {
  if (!blocks_coming_.has_value()) {
    blocks_coming_.emplace(pool_);
    for (const auto& [sequence, owned] : ending_) {
      blocks_coming_->Add(*sequence);
    }
    for (const Sequence* sequence : running_) {
      if (sequence->preempted) {
        blocks_coming_->Add(*sequence);
      }
    }
  }
  return *blocks_coming_;
}

}  // namespace cohort
