#include "runtime/scheduler.h"

#include <algorithm>
#include <list>
#include <set>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "kernels/check.h"
#include "runtime/scheduler_sequence.h"

namespace cohort {
namespace {

using SequenceList = std::list<Sequence>;  // nodes move between lists and never in memory

int64_t CeilDivide(int64_t a, int64_t b) { return (a + b - 1) / b; }

SchedulerOptions Checked(SchedulerOptions options) {
  CHECK_GE(options.blocks, 1);
  CHECK_GE(options.block_size, 1);
  CHECK_GE(options.max_running, 1);
  CHECK_GE(options.max_batch_tokens, 1);
  CHECK_GE(options.max_model_len, 1);
  options.max_running = std::min(options.max_running, options.max_batch_tokens);
  return options;
}

}  // namespace

class Scheduler::State {
 public:
  explicit State(SchedulerOptions options)
      : options_(Checked(std::move(options))), pool_(options_.blocks) {
    ResetSlots();
  }

  absl::Status Add(RequestId id, Request request);
  std::optional<RequestUpdate> Cancel(RequestId id, Finish finish);
  void SetPaused(RequestId id, bool paused);
  std::optional<StepPlan> Next();
  std::vector<RequestUpdate> Commit(const StepResult& result);
  void Requeue(uint64_t epoch);
  std::vector<RequestId> unfinished() const;

  // Read by Scheduler's accessors.
  SchedulerOptions options_;
  BlockPool pool_;
  SequenceList waiting_;  // in order of arrival
  SequenceList running_;  // with a slot, in order of arrival; all before waiting_
  SequenceList ending_;   // ended, kept while plans in flight name them
  uint64_t prompt_tokens_computed_ = 0;

  // The rows of one sequence in a plan in flight.
  struct PlannedRows {
    SequenceList::iterator sequence;
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
  absl::Status CheckRunnable(const Request& request) const;
  void ResetSlots();
  int64_t PlanRunning(bool prefilling, int64_t budget, StepPlan& plan);
  void PlanAdmissions(int64_t budget, StepPlan& plan);
  void Admit(SequenceList::iterator sequence, int64_t blocks_needed, StepPlan& plan);
  int64_t PlanRows(SequenceList::iterator sequence, int64_t budget, StepPlan& plan);
  std::optional<RequestUpdate> CommitRows(const PlannedRows& rows, const SequenceResult* result);
  void End(SequenceList::iterator sequence);
  void GiveBack(Sequence& sequence);

  absl::flat_hash_map<RequestId, SequenceList::iterator> by_id_;  // unfinished
  std::vector<uint32_t> free_slots_;                              // a stack
  std::set<uint32_t> slots_to_release_;  // given back since the last plan, for its `releases`
  int64_t blocks_promised_ = 0;          // to running sequences, beyond those allocated
  uint64_t epoch_ = 0;
  uint64_t last_step_ = 0;
};

void Scheduler::State::ResetSlots() {
  free_slots_.clear();
  for (int64_t slot = options_.max_running - 1; slot >= 0; --slot) {
    free_slots_.push_back(static_cast<uint32_t>(slot));  // the lowest are taken first
  }
}

absl::Status Scheduler::State::CheckRunnable(const Request& request) const {
  const int64_t prompt = static_cast<int64_t>(request.prompt.size());
  const int64_t completion = request.score ? 0 : request.stopping.max_tokens;
  if (prompt == 0) {
    return absl::InvalidArgumentError("the prompt is empty; at least one token id is needed");
  }
  if (!request.score && completion < 1) {
    return absl::InvalidArgumentError(
        absl::StrCat("stopping.max_tokens is ", completion, "; it must be at least 1"));
  }
  if (prompt > options_.max_model_len || completion > options_.max_model_len - prompt) {
    return absl::InvalidArgumentError(
        absl::StrCat("a prompt of ", prompt, " tokens plus stopping.max_tokens ", completion,
                     " is over the limit of ", options_.max_model_len, " tokens (max_model_len)"));
  }
  const int64_t blocks =
      CeilDivide(Sequence::PositionsNeeded(prompt, request), options_.block_size);
  if (blocks > pool_.total()) {
    return absl::InvalidArgumentError(absl::StrCat(
        "a prompt of ", prompt, " tokens plus stopping.max_tokens ", completion, " needs ", blocks,
        " KV blocks of ", options_.block_size, " tokens, but there are ", pool_.total(),
        "; shorten the request or serve with more KV memory"));
  }
  return absl::OkStatus();
}

absl::Status Scheduler::State::Add(RequestId id, Request request) {
  CHECK(by_id_.find(id) == by_id_.end()) << "request " << id << " was added before";
  RETURN_IF_ERROR(CheckRunnable(request));
  if (static_cast<int64_t>(waiting_.size()) >= options_.max_waiting) {
    return absl::ResourceExhaustedError(
        absl::StrCat("the queue is full: ", waiting_.size(), " requests are waiting; retry later"));
  }
  waiting_.emplace_back(id, std::move(request));
  by_id_.emplace(id, std::prev(waiting_.end()));
  return absl::OkStatus();
}

std::optional<RequestUpdate> Scheduler::State::Cancel(RequestId id, Finish finish) {
  const auto found = by_id_.find(id);
  if (found == by_id_.end()) {
    return std::nullopt;
  }
  const SequenceList::iterator sequence = found->second;
  RequestUpdate update;
  update.id = id;
  update.first_index = sequence->generated_tokens();
  update.finish = sequence->WithCounts(std::move(finish));
  End(sequence);
  return update;
}

void Scheduler::State::SetPaused(RequestId id, bool paused) {
  if (const auto found = by_id_.find(id); found != by_id_.end()) {
    found->second->paused = paused;
  }
}

std::optional<StepPlan> Scheduler::State::Next() {
  StepPlan plan;
  plan.epoch = epoch_;
  plan.step = last_step_ + 1;
  in_flight_.push_back({.step = plan.step, .rows = {}});
  int64_t budget = options_.max_batch_tokens;
  budget -= PlanRunning(/*prefilling=*/false, budget, plan);
  budget -= PlanRunning(/*prefilling=*/true, budget, plan);
  PlanAdmissions(budget, plan);
  if (plan.rows.empty()) {
    in_flight_.pop_back();
    return std::nullopt;
  }
  plan.releases.assign(slots_to_release_.begin(), slots_to_release_.end());
  slots_to_release_.clear();
  ++last_step_;
  CHECK_LE(plan.tokens(), options_.max_batch_tokens);
  return plan;
}

// Rows of the running sequences that decode, or of those that prefill; returns their number. A
// sequence is one or the other when Next() begins and decoding is never left, so none comes twice.
int64_t Scheduler::State::PlanRunning(bool prefilling, int64_t budget, StepPlan& plan) {
  int64_t planned = 0;
  for (auto sequence = running_.begin(); sequence != running_.end() && planned < budget;
       ++sequence) {
    if (!sequence->paused && sequence->is_prefilling() == prefilling) {
      planned += PlanRows(sequence, budget - planned, plan);
    }
  }
  return planned;
}

// In order of arrival; one that does not fit yet holds back those behind it, so none starves.
void Scheduler::State::PlanAdmissions(int64_t budget, StepPlan& plan) {
  for (auto next = waiting_.begin();
       budget > 0 && next != waiting_.end() && !free_slots_.empty();) {
    const SequenceList::iterator sequence = next++;
    if (sequence->paused) {
      continue;
    }
    const int64_t needed = CeilDivide(sequence->positions_needed(), options_.block_size);
    if (needed > pool_.free() - blocks_promised_) {
      return;
    }
    Admit(sequence, needed, plan);
    budget -= PlanRows(sequence, budget, plan);
  }
}

void Scheduler::State::Admit(SequenceList::iterator sequence, int64_t blocks_needed,
                             StepPlan& plan) {
  running_.splice(running_.end(), waiting_, sequence);
  sequence->slot = free_slots_.back();
  free_slots_.pop_back();
  slots_to_release_.erase(sequence->slot);  // the admission resets it
  sequence->blocks_promised = blocks_needed;
  blocks_promised_ += blocks_needed;
  plan.admits.push_back(
      {.slot = sequence->slot, .sequence_index = 0, .sampling = sequence->request().sampling});
}

// As many rows as the sequence has and the budget allows, with the blocks that they reach; returns
// their number.
int64_t Scheduler::State::PlanRows(SequenceList::iterator sequence, int64_t budget,
                                   StepPlan& plan) {
  const int64_t count = std::min(sequence->plannable(), budget);
  if (count <= 0) {
    return 0;
  }
  const int64_t first = sequence->planned();
  SequenceRows rows = sequence->PlanRows(count, plan.step);
  const int64_t reached = CeilDivide(sequence->planned(), options_.block_size);
  const int64_t appended = reached - static_cast<int64_t>(sequence->blocks.size());
  CHECK_LE(appended, sequence->blocks_promised) << "request " << sequence->id();
  auto blocks = pool_.Allocate(appended);
  CHECK_OK(blocks.status());  // promised at admission
  rows.appended_blocks = std::move(blocks).value();
  sequence->blocks.insert(sequence->blocks.end(), rows.appended_blocks.begin(),
                          rows.appended_blocks.end());
  sequence->blocks_promised -= appended;
  blocks_promised_ -= appended;
  ++sequence->plans_in_flight;
  in_flight_.back().rows.push_back({.sequence = sequence,
                                    .first_position = first,
                                    .end_position = sequence->planned(),
                                    .has_result = rows.sample || sequence->request().score});
  plan.rows.push_back(std::move(rows));
  return count;
}

std::vector<RequestUpdate> Scheduler::State::Commit(const StepResult& result) {
  CHECK(!in_flight_.empty()) << "a result of step " << result.step << " without a plan";
  const PlanInFlight plan = std::move(in_flight_.front());
  in_flight_.pop_front();
  CHECK_EQ(result.epoch, epoch_);
  CHECK_EQ(result.step, plan.step);
  std::vector<RequestUpdate> updates;
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
  prompt_tokens_computed_ += static_cast<uint64_t>(std::max<int64_t>(
      std::min(rows.end_position, sequence.prompt_tokens()) - rows.first_position, 0));
  if (sequence.ended) {
    if (sequence.plans_in_flight == 0) {
      GiveBack(sequence);
      ending_.erase(rows.sequence);
    }
    return std::nullopt;
  }
  RequestUpdate update;
  update.id = sequence.id();
  update.first_index = sequence.generated_tokens();
  update.scheduled = !std::exchange(sequence.reported, true);
  std::optional<Finish> finish;
  update.tokens = sequence.Accept(rows.first_position, rows.end_position, result,
                                  options_.eos_token_ids, finish);
  if (finish.has_value()) {
    update.finish = sequence.WithCounts(*std::move(finish));
    End(rows.sequence);
  } else if (!update.scheduled && update.tokens.empty()) {
    return std::nullopt;
  }
  return update;
}

// The request is finished; what it holds is given back now, or when the last plan in flight that
// names it is committed.
void Scheduler::State::End(SequenceList::iterator sequence) {
  const RequestId id = sequence->id();
  blocks_promised_ -= std::exchange(sequence->blocks_promised, 0);
  if (sequence->plans_in_flight > 0) {
    sequence->ended = true;
    ending_.splice(ending_.end(), running_, sequence);
  } else if (sequence->has_slot()) {
    GiveBack(*sequence);
    running_.erase(sequence);
  } else {
    waiting_.erase(sequence);
  }
  by_id_.erase(id);
}

void Scheduler::State::GiveBack(Sequence& sequence) {
  pool_.Release(sequence.blocks);
  free_slots_.push_back(sequence.slot);
  slots_to_release_.insert(sequence.slot);
  CHECK(blocks_promised_ >= 0 && blocks_promised_ <= pool_.free())
      << blocks_promised_ << " blocks promised, " << pool_.free() << " free";
}

void Scheduler::State::Requeue(uint64_t epoch) {
  in_flight_.clear();
  for (const Sequence& sequence : ending_) {
    pool_.Release(sequence.blocks);
  }
  ending_.clear();
  for (Sequence& sequence : running_) {
    pool_.Release(sequence.blocks);
    sequence.Restart();
  }
  waiting_.splice(waiting_.begin(), running_);
  ResetSlots();
  slots_to_release_.clear();
  blocks_promised_ = 0;
  epoch_ = epoch;
  last_step_ = 0;
  CHECK_EQ(pool_.used(), 0);
}

std::vector<RequestId> Scheduler::State::unfinished() const {
  std::vector<RequestId> ids;
  ids.reserve(by_id_.size());
  for (const SequenceList* list : {&running_, &waiting_}) {
    for (const Sequence& sequence : *list) {
      ids.push_back(sequence.id());
    }
  }
  return ids;
}

Scheduler::Scheduler(SchedulerOptions options)
    : state_(std::make_unique<State>(std::move(options))) {}
Scheduler::~Scheduler() = default;

absl::Status Scheduler::Add(RequestId id, Request request) {
  return state_->Add(id, std::move(request));
}
std::optional<RequestUpdate> Scheduler::Cancel(RequestId id, Finish finish) {
  return state_->Cancel(id, std::move(finish));
}
void Scheduler::SetPaused(RequestId id, bool paused) { state_->SetPaused(id, paused); }
std::optional<StepPlan> Scheduler::Next() { return state_->Next(); }
std::vector<RequestUpdate> Scheduler::Commit(const StepResult& result) {
  return state_->Commit(result);
}
void Scheduler::Requeue(uint64_t epoch) { state_->Requeue(epoch); }

bool Scheduler::idle() const { return running() == 0 && waiting() == 0 && in_flight() == 0; }
int64_t Scheduler::running() const { return static_cast<int64_t>(state_->running_.size()); }
int64_t Scheduler::waiting() const { return static_cast<int64_t>(state_->waiting_.size()); }
int64_t Scheduler::in_flight() const { return static_cast<int64_t>(state_->in_flight_.size()); }
std::vector<RequestId> Scheduler::unfinished() const { return state_->unfinished(); }
uint64_t Scheduler::prompt_tokens_computed() const { return state_->prompt_tokens_computed_; }
const BlockPool& Scheduler::blocks() const { return state_->pool_; }
const SchedulerOptions& Scheduler::options() const { return state_->options_; }

}  // namespace cohort
