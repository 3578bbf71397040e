// Locking: one mutex guards everything below except what a comment gives to the engine's thread.
// It is never held while a link, a sink or the failure callback is called.
#include "runtime/engine.h"

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/time/clock.h"
#include "kernels/check.h"

namespace cohort {
namespace {

// Plans sent and not yet received: one that the ranks compute and one for them to go on with while
// the result of the first is committed and told.
constexpr int64_t kPlansInFlight = 2;

// A status with memory of its own. What crosses threads is copied so, because ThreadSanitizer does
// not see the reference counts of an absl that was built without it.
absl::Status DeepCopy(const absl::Status& status) {
  return absl::Status(status.code(), status.message());
}

std::chrono::steady_clock::time_point SteadyNow() { return std::chrono::steady_clock::now(); }

double MillisecondsSince(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double, std::milli>(SteadyNow() - start).count();
}

}  // namespace

class Engine::State {
 public:
  State(const SchedulerOptions& options, GroupFailure on_group_failure, int data_parallel);
  ~State();

  absl::StatusOr<RequestId> Submit(Request request, std::shared_ptr<RequestSink> sink);
  void Cancel(RequestId id);
  void SetPaused(RequestId id, bool paused);
  void GroupReady(std::unique_ptr<Executor> executor);
  void GroupLost(uint64_t epoch, absl::Status status);
  bool Drain(absl::Time deadline);
  EngineLoad load() const;

 private:
  using Lock = std::unique_lock<std::mutex>;

  // A request without a finish in the outbox yet.
  struct Entry {
    std::shared_ptr<RequestSink> sink;
    absl::Time deadline;
    RequestTiming timing;
  };
  // What is still to be told to one sink.
  struct Delivery {
    std::shared_ptr<RequestSink> sink;
    RequestUpdate update;
  };
  // Both the engine and the step in progress own it: a lost group may be replaced while the
  // engine's thread still sits in its Receive.
  using SharedExecutor = std::shared_ptr<Executor>;

  void Run();
  void SendPlans(int64_t in_flight, Lock& lock);
  bool ReceiveResult(Lock& lock);
  bool SendNext(const SharedExecutor& executor, Lock& lock);
  void CommitResult(StepResult result);
  void GroupFailed(const SharedExecutor& executor, const absl::Status& status, Lock& lock);
  void Post(RequestUpdate update, absl::Time scheduled, absl::Time now);
  void End(RequestId id, Finish finish, absl::Time now);
  void EndAll(const absl::Status& status);
  SharedExecutor DropGroup(const absl::Status& status);
  void ExpireDeadlines(absl::Time now);
  void Deliver(Lock& lock);
  static void Tell(Delivery& delivery, absl::flat_hash_set<RequestId>& stopped);
  void WaitForWork(Lock& lock);
  void Wake();

  const GroupFailure on_group_failure_;
  mutable std::mutex mutex_;
  std::condition_variable wake_;       // the engine's thread has something to look at
  std::condition_variable delivered_;  // an OnFinish returned
  bool woken_ = false;

  // Next, Commit and Requeue are called where a plan cannot be half-way out.
  DataParallelScheduler scheduler_;
  SharedExecutor executor_;  // null without a group
  uint64_t epoch_ = 0;
  absl::flat_hash_map<RequestId, Entry> entries_;
  std::set<std::pair<absl::Time, RequestId>> deadlines_;  // of entries_ that have one
  std::deque<Delivery> outbox_;
  int64_t undelivered_ = 0;  // requests whose OnFinish has not returned
  RequestId last_id_ = 0;
  bool draining_ = false;
  bool stopping_ = false;
  EngineLoad counters_;  // of these only the counts are kept here

  // Of each plan in flight: when it was planned.
  struct PlanTimes {
    absl::Time planned;
    std::chrono::steady_clock::time_point sent;
  };
  std::deque<PlanTimes> plan_times_;
  std::chrono::steady_clock::time_point last_result_;  // when it came

  std::thread thread_;  // last: everything above is there when it starts
};

Engine::State::State(const SchedulerOptions& options, GroupFailure on_group_failure,
                     int data_parallel)
    : on_group_failure_(std::move(on_group_failure)),
      scheduler_(options, data_parallel),
      thread_([this] { Run(); }) {}

Engine::State::~State() {
  const absl::Status status = absl::UnavailableError("the engine is shutting down");
  SharedExecutor executor;
  {
    const Lock lock(mutex_);
    stopping_ = true;
    executor = DropGroup(status);
    EndAll(status);
    Wake();
  }
  if (executor != nullptr) {
    executor->Abort(status);
  }
  thread_.join();
}

// ---- Called from any thread ----

absl::StatusOr<RequestId> Engine::State::Submit(Request request,
                                                std::shared_ptr<RequestSink> sink) {
  CHECK(sink != nullptr);
  RETURN_IF_ERROR(Validate(request.sampling));
  const absl::Time deadline = request.deadline;
  const Lock lock(mutex_);
  if (draining_ || stopping_) {
    return absl::UnavailableError("the server is draining and takes no new requests");
  }
  if (executor_ == nullptr) {
    return absl::UnavailableError("no group of ranks is serving yet; retry later");
  }
  const RequestId id = last_id_ + 1;
  RETURN_IF_ERROR(scheduler_.Add(id, std::move(request)));
  last_id_ = id;
  Entry entry;
  entry.sink = std::move(sink);
  entry.deadline = deadline;
  entry.timing.submitted = absl::Now();
  entry.timing.scheduled = entry.timing.first_token = entry.timing.finished = absl::InfinitePast();
  entries_.emplace(id, std::move(entry));
  if (deadline != absl::InfiniteFuture()) {
    deadlines_.emplace(deadline, id);
  }
  ++undelivered_;
  Wake();
  return id;
}

void Engine::State::Cancel(RequestId id) {
  const Lock lock(mutex_);
  End(id, MakeFinish(FinishReason::kCancelled, absl::CancelledError("the request was cancelled")),
      absl::Now());
  Wake();
}

void Engine::State::SetPaused(RequestId id, bool paused) {
  const Lock lock(mutex_);
  scheduler_.SetPaused(id, paused);
  if (!paused) {
    Wake();
  }
}

void Engine::State::GroupReady(std::unique_ptr<Executor> executor) {
  CHECK(executor != nullptr);
  const absl::Status replaced = absl::UnavailableError(
      absl::StrCat("the group was replaced by that of epoch ", executor->epoch()));
  SharedExecutor old;
  {
    const Lock lock(mutex_);
    old = DropGroup(replaced);
    executor_ = std::move(executor);
    epoch_ = executor_->epoch();
    scheduler_.SetEpoch(epoch_);
    Wake();
  }
  if (old != nullptr) {
    old->Abort(replaced);
  }
}

void Engine::State::GroupLost(uint64_t epoch, absl::Status status) {
  SharedExecutor executor;
  {
    const Lock lock(mutex_);
    if (executor_ == nullptr || executor_->epoch() != epoch) {
      return;
    }
    executor = DropGroup(status);
    Wake();
  }
  executor->Abort(DeepCopy(status));
}

bool Engine::State::Drain(absl::Time deadline) {
  Lock lock(mutex_);
  draining_ = true;
  const auto finished = [this] { return undelivered_ == 0; };
  if (deadline == absl::InfiniteFuture()) {
    delivered_.wait(lock, finished);
    return true;
  }
  if (delivered_.wait_until(lock, absl::ToChronoTime(deadline), finished)) {
    return true;
  }
  EndAll(absl::UnavailableError("the server is shutting down; the request did not finish in time"));
  Wake();
  return false;
}

EngineLoad Engine::State::load() const {
  const Lock lock(mutex_);
  EngineLoad load = counters_;
  const SchedulerLoad all = scheduler_.load();
  load.running = all.running;
  load.waiting = all.waiting;
  load.paused = all.paused;
  load.kv_blocks_used = all.blocks_used;
  load.kv_blocks_cached = all.blocks_cached;
  load.kv_blocks_total = all.blocks_total;
  load.block_size = scheduler_.block_size();
  load.epoch = epoch_;
  load.serving = executor_ != nullptr;
  load.draining = draining_;
  load.prompt_tokens = all.counts.prompt_tokens_computed;
  load.preemptions = all.counts.preemptions;
  load.prefix_queried_tokens = all.counts.prefix_queried_tokens;
  load.prefix_hit_tokens = all.counts.prefix_hit_tokens;
  load.groups = scheduler_.loads();
  return load;
}

// ---- With the mutex held, from any thread ----

void Engine::State::Wake() {
  woken_ = true;
  wake_.notify_one();
}

// Puts what the scheduler says into the outbox.
void Engine::State::Post(RequestUpdate update, absl::Time scheduled, absl::Time now) {
  const auto found = entries_.find(update.id);
  CHECK(found != entries_.end()) << "request " << update.id;
  Entry& entry = found->second;
  if (update.scheduled) {
    entry.timing.scheduled = scheduled;
  }
  if (!update.tokens.empty() && update.first_index == 0) {
    entry.timing.first_token = now;
  }
  counters_.generated_tokens += update.tokens.size();
  std::shared_ptr<RequestSink> sink = entry.sink;
  if (update.finish.has_value()) {
    entry.timing.finished = now;
    update.finish->timing = entry.timing;
    ++counters_.requests_finished;
    deadlines_.erase({entry.deadline, update.id});
    entries_.erase(found);
  }
  outbox_.push_back({.sink = std::move(sink), .update = std::move(update)});
}

void Engine::State::End(RequestId id, Finish finish, absl::Time now) {
  std::optional<RequestUpdate> update = scheduler_.Cancel(id, std::move(finish));
  if (update.has_value()) {
    Post(*std::move(update), absl::InfinitePast(), now);
  }
}

void Engine::State::EndAll(const absl::Status& status) {
  const absl::Time now = absl::Now();
  for (const RequestId id : scheduler_.unfinished()) {
    End(id, MakeFinish(FinishReason::kError, DeepCopy(status)), now);
  }
}

// Ends the requests of the group and forgets it; the caller aborts what is returned (which may be
// null) without the mutex.
Engine::State::SharedExecutor Engine::State::DropGroup(const absl::Status& status) {
  if (executor_ != nullptr) {
    scheduler_.Requeue(0);  // forgets the plans in flight, so that all blocks are free at once
    plan_times_.clear();
    EndAll(status);
  }
  return std::exchange(executor_, nullptr);
}

void Engine::State::ExpireDeadlines(absl::Time now) {
  while (!deadlines_.empty() && deadlines_.begin()->first <= now) {
    const RequestId id = deadlines_.begin()->second;
    End(id,
        MakeFinish(FinishReason::kDeadline,
                   absl::DeadlineExceededError("the deadline of the request passed")),
        now);
  }
}

// ---- The engine's thread ----

void Engine::State::Run() {
  Lock lock(mutex_);
  while (true) {
    woken_ = false;
    ExpireDeadlines(absl::Now());
    SendPlans(1, lock);
    // While the ranks compute, and before the next plan: who stops now has a row in one plan only.
    Deliver(lock);
    SendPlans(kPlansInFlight, lock);
    if (stopping_ && outbox_.empty()) {
      return;
    }
    if (!ReceiveResult(lock)) {
      WaitForWork(lock);
    }
  }
}

// Until so many are in flight.
void Engine::State::SendPlans(int64_t in_flight, Lock& lock) {
  const SharedExecutor executor = executor_;
  while (executor != nullptr && scheduler_.in_flight() < in_flight && SendNext(executor, lock)) {
  }
}

// Waits for the oldest plan's result and commits it. False when none is in flight.
bool Engine::State::ReceiveResult(Lock& lock) {
  const SharedExecutor executor = executor_;
  if (executor == nullptr || scheduler_.in_flight() == 0) {
    return false;
  }
  lock.unlock();
  absl::StatusOr<StepResult> result = executor->Receive();
  lock.lock();
  if (executor_ != executor) {
    return true;  // the result, or the failure, is of a group that is no longer ours
  }
  if (result.ok()) {
    CommitResult(*std::move(result));
  } else {
    GroupFailed(executor, result.status(), lock);
  }
  return true;
}

// False when there is no plan to send or the group is gone.
bool Engine::State::SendNext(const SharedExecutor& executor, Lock& lock) {
  const std::optional<StepPlan> plan = scheduler_.Next();
  if (!plan.has_value()) {
    return false;
  }
  plan_times_.push_back({.planned = absl::Now(), .sent = SteadyNow()});
  lock.unlock();
  const absl::Status sent = executor->Send(*plan);
  lock.lock();
  if (executor_ == executor && !sent.ok()) {
    GroupFailed(executor, sent, lock);
  }
  return executor_ == executor;
}

void Engine::State::CommitResult(StepResult result) {
  const absl::Time now = absl::Now();
  const PlanTimes times = plan_times_.front();
  plan_times_.pop_front();
  counters_.expert_hits.resize(std::max(counters_.expert_hits.size(), result.expert_hits.size()));
  for (size_t expert = 0; expert < result.expert_hits.size(); ++expert) {
    counters_.expert_hits[expert] += static_cast<uint64_t>(result.expert_hits[expert]);
  }
  for (RequestUpdate& update : scheduler_.Commit(std::move(result))) {
    Post(std::move(update), times.planned, now);
  }
  ++counters_.steps;
  // A plan that was sent ahead began when the one before it was done.
  counters_.last_step_milliseconds = MillisecondsSince(std::max(times.sent, last_result_));
  last_result_ = SteadyNow();
}

void Engine::State::GroupFailed(const SharedExecutor& executor, const absl::Status& status,
                                Lock& lock) {
  const absl::Status ended = absl::UnavailableError(
      absl::StrCat("the group of epoch ", executor->epoch(), " failed: ", status.message()));
  DropGroup(ended);
  lock.unlock();
  executor->Abort(ended);
  if (on_group_failure_) {
    on_group_failure_(executor->epoch(), status);
  }
  lock.lock();
}

// Empties the outbox. Sinks are called without the mutex, and only from here.
void Engine::State::Deliver(Lock& lock) {
  absl::flat_hash_set<RequestId> stopped;
  while (!outbox_.empty()) {
    std::deque<Delivery> deliveries = std::exchange(outbox_, {});
    lock.unlock();
    int64_t finished = 0;
    for (Delivery& delivery : deliveries) {
      Tell(delivery, stopped);
      finished += delivery.update.finish.has_value() ? 1 : 0;
    }
    deliveries.clear();  // the last owner of a sink may go here: not under the mutex
    lock.lock();
    for (const RequestId id : stopped) {  // those that still run
      End(id, MakeFinish(FinishReason::kStop, absl::OkStatus()), absl::Now());
    }
    undelivered_ -= finished;
    if (finished > 0) {
      delivered_.notify_all();
    }
  }
}

// A request that its sink stops is complete, whatever else became of it in the meantime.
void Engine::State::Tell(Delivery& delivery, absl::flat_hash_set<RequestId>& stopped) {
  RequestUpdate& update = delivery.update;
  if (!update.tokens.empty()) {
    const SinkAnswer answer = delivery.sink->OnTokens({.first_index = update.first_index,
                                                       .ids = update.tokens,
                                                       .logprobs = update.logprobs,
                                                       .top = update.top});
    if (answer == SinkAnswer::kStop) {
      stopped.insert(update.id);
    }
  }
  if (update.finish.has_value()) {
    if (stopped.contains(update.id)) {
      update.finish->reason = FinishReason::kStop;
      update.finish->status = absl::OkStatus();
    }
    delivery.sink->OnFinish(*update.finish);
  }
}

void Engine::State::WaitForWork(Lock& lock) {
  const auto woken = [this] { return woken_; };
  if (deadlines_.empty()) {
    wake_.wait(lock, woken);
  } else {
    wake_.wait_until(lock, absl::ToChronoTime(deadlines_.begin()->first), woken);
  }
}

Engine::Engine(const SchedulerOptions& options, GroupFailure on_group_failure, int data_parallel)
    : state_(std::make_unique<State>(options, std::move(on_group_failure), data_parallel)) {}
Engine::~Engine() = default;

absl::StatusOr<RequestId> Engine::Submit(Request request, std::shared_ptr<RequestSink> sink) {
  return state_->Submit(std::move(request), std::move(sink));
}
void Engine::Cancel(RequestId id) { state_->Cancel(id); }
void Engine::Pause(RequestId id) { state_->SetPaused(id, true); }
void Engine::Resume(RequestId id) { state_->SetPaused(id, false); }
void Engine::GroupReady(std::unique_ptr<Executor> executor) {
  state_->GroupReady(std::move(executor));
}
void Engine::GroupLost(uint64_t epoch, absl::Status status) {
  state_->GroupLost(epoch, std::move(status));
}
bool Engine::Drain(absl::Time deadline) { return state_->Drain(deadline); }
EngineLoad Engine::load() const { return state_->load(); }

}  // namespace cohort
