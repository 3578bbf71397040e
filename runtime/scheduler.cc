#include "runtime/scheduler.h"

#include <algorithm>
#include <utility>

#include "kernels/check.h"
#include "runtime/scheduler_state.h"

namespace cohort {
namespace {

SchedulerOptions Checked(SchedulerOptions options) {
  CHECK_GE(options.blocks, 1);
  CHECK_GE(options.block_size, 1);
  CHECK_GE(options.max_running, 1);
  CHECK_GE(options.max_batch_tokens, 1);
  CHECK_GE(options.max_prefill_tokens, 1);
  CHECK_GE(options.max_model_len, 1);
  options.max_running = std::min(options.max_running, options.max_batch_tokens);
  return options;
}

}  // namespace

// Bounds what waiting costs in memory.
absl::Status CheckQueueRoom(const SchedulerOptions& options, int64_t waiting,
                            int64_t waiting_tokens, int64_t prompt_tokens) {
  if (waiting >= options.max_waiting) {
    return absl::ResourceExhaustedError(
        absl::StrCat("the queue is full: ", waiting, " requests are waiting; retry later"));
  }
  if (waiting > 0 && prompt_tokens > options.max_waiting_tokens - waiting_tokens) {
    return absl::ResourceExhaustedError(
        absl::StrCat("the queue is full: ", waiting_tokens, " tokens are waiting, ", prompt_tokens,
                     " more are over its limit of ", options.max_waiting_tokens, "; retry later"));
  }
  return absl::OkStatus();
}

Scheduler::State::State(SchedulerOptions options)
    : options_(Checked(std::move(options))),
      pool_(options_.blocks),
      cache_(options_.blocks, options_.block_size) {
  Requeue(0);
}

void Scheduler::State::ResetSlots() {
  free_slots_.clear();
  for (int64_t slot = options_.max_running - 1; slot >= 0; --slot) {
    free_slots_.push_back(static_cast<uint32_t>(slot));  // the lowest are taken first
  }
  slots_to_release_.clear();
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
  RETURN_IF_ERROR(CheckQueueRoom(options_, static_cast<int64_t>(waiting_.size() + parked_.size()),
                                 waiting_tokens_, static_cast<int64_t>(request.prompt.size())));
  const bool plain_rope = HasPlainRope(request, static_cast<int64_t>(request.prompt.size()));
  auto sequence = std::make_unique<Sequence>(id, ++arrivals_, std::move(request));
  sequence->plain_rope = plain_rope;
  Enqueue(*sequence);
  by_id_.emplace(id, std::move(sequence));
  return absl::OkStatus();
}

bool Scheduler::State::HasPlainRope(const Request& request, int64_t prompt_tokens) const {
  const int64_t completion = request.score ? 0 : request.stopping.max_tokens;
  return prompt_tokens + completion <= options_.plain_rope_positions;
}

// Rows of equal ids are equal only among sequences of one kind: the rotations differ with and
// without YaRN; dual chunk attention scales the rows of a long prompt by its length, and what they
// write into later layers depends on that. The number ends at the first colon, so no request's salt
// reaches another kind.
std::string Scheduler::State::CacheSalt(const Request& request, int64_t prompt_tokens) const {
  int64_t kind = HasPlainRope(request, prompt_tokens) ? 1 : 0;
  if (options_.unscaled_positions > 0 && prompt_tokens > options_.unscaled_positions) {
    kind = prompt_tokens;
  }
  return absl::StrCat(kind, ":", request.cache_salt);
}

void Scheduler::State::Enqueue(Sequence& sequence) {
  (sequence.paused ? parked_ : waiting_).insert(&sequence);
  waiting_tokens_ += sequence.size();
}

void Scheduler::State::Dequeue(Sequence& sequence) {
  CHECK_EQ((sequence.paused ? parked_ : waiting_).erase(&sequence), 1u);
  waiting_tokens_ -= sequence.size();
}

std::optional<RequestUpdate> Scheduler::State::Cancel(RequestId id, Finish finish) {
  const auto found = by_id_.find(id);
  if (found == by_id_.end()) {
    return std::nullopt;
  }
  Sequence& sequence = *found->second;
  RequestUpdate update;
  update.id = id;
  update.first_index = sequence.generated_tokens();
  update.finish = sequence.WithCounts(std::move(finish));
  End(sequence);
  return update;
}

void Scheduler::State::SetPaused(RequestId id, bool paused) {
  const auto found = by_id_.find(id);
  if (found == by_id_.end() || found->second->paused == paused) {
    return;
  }
  Sequence& sequence = *found->second;
  if (!sequence.has_slot()) {
    Dequeue(sequence);
  }
  sequence.paused = paused;
  paused_ += paused ? 1 : -1;
  if (!sequence.has_slot()) {
    Enqueue(sequence);
  }
}

void Scheduler::State::Requeue(uint64_t epoch) {
  in_flight_.clear();
  ending_.clear();
  for (Sequence* sequence : std::exchange(running_, {})) {
    sequence->Restart();
    Enqueue(*sequence);
  }
  preempting_ = 0;
  ResetSlots();
  cache_.Clear();  // the next group's memory holds nothing of this
  pool_ = BlockPool(options_.blocks, [this](int32_t block) { cache_.Erase(block); });
  epoch_ = epoch;
  last_step_ = 0;
}

std::vector<RequestId> Scheduler::State::unfinished() const {
  std::vector<std::pair<uint64_t, RequestId>> arrivals;
  arrivals.reserve(by_id_.size());
  for (const auto& [id, sequence] : by_id_) {
    arrivals.emplace_back(sequence->arrival(), id);
  }
  std::sort(arrivals.begin(), arrivals.end());
  std::vector<RequestId> ids;
  ids.reserve(arrivals.size());
  for (const auto& [arrival, id] : arrivals) {
    ids.push_back(id);
  }
  return ids;
}

int64_t Scheduler::State::tokens() const {
  int64_t tokens = waiting_tokens_;
  for (const Sequence* sequence : running_) {
    tokens += sequence->size();
  }
  return tokens;
}

Scheduler::Scheduler(SchedulerOptions options)
    : state_(std::make_unique<State>(std::move(options))) {}
Scheduler::~Scheduler() = default;

absl::Status Scheduler::Add(RequestId id, Request request) {
  return state_->Add(id, std::move(request));
}
absl::Status Scheduler::CheckRunnable(const Request& request) const {
  return state_->CheckRunnable(request);
}
std::optional<RequestUpdate> Scheduler::Cancel(RequestId id, Finish finish) {
  return state_->Cancel(id, std::move(finish));
}
void Scheduler::SetPaused(RequestId id, bool paused) { state_->SetPaused(id, paused); }
std::optional<StepPlan> Scheduler::Next() { return Next(state_->last_step_ + 1); }
std::optional<StepPlan> Scheduler::Next(uint64_t step) { return state_->Next(step); }
std::vector<RequestUpdate> Scheduler::Commit(const StepResult& result) {
  return state_->Commit(result);
}
void Scheduler::Requeue(uint64_t epoch) { state_->Requeue(epoch); }

bool Scheduler::idle() const { return running() == 0 && waiting() == 0 && in_flight() == 0; }
int64_t Scheduler::running() const { return static_cast<int64_t>(state_->running_.size()); }
int64_t Scheduler::waiting() const {
  return static_cast<int64_t>(state_->waiting_.size() + state_->parked_.size());
}
int64_t Scheduler::paused() const { return state_->paused_; }
int64_t Scheduler::in_flight() const { return static_cast<int64_t>(state_->in_flight_.size()); }
std::vector<RequestId> Scheduler::unfinished() const { return state_->unfinished(); }
int64_t Scheduler::tokens() const { return state_->tokens(); }
int64_t Scheduler::waiting_tokens() const { return state_->waiting_tokens_; }
int64_t Scheduler::CachedTokens(const Request& request) const {
  return state_->CachedTokens(request);
}
const SchedulerCounts& Scheduler::counts() const { return state_->counts_; }
const BlockPool& Scheduler::blocks() const { return state_->pool_; }
const SchedulerOptions& Scheduler::options() const { return state_->options_; }

}  // namespace cohort
