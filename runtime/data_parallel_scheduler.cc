#include "runtime/data_parallel_scheduler.h"

#include <algorithm>
#include <tuple>
#include <utility>

#include "kernels/check.h"
#include "runtime/plan_parts.h"

namespace cohort {
namespace {

void AddTo(const SchedulerLoad& load, SchedulerLoad& sum) {
  sum.running += load.running;
  sum.waiting += load.waiting;
  sum.paused += load.paused;
  sum.blocks_used += load.blocks_used;
  sum.blocks_cached += load.blocks_cached;
  sum.blocks_total += load.blocks_total;
  sum.counts.prompt_tokens_computed += load.counts.prompt_tokens_computed;
  sum.counts.preemptions += load.counts.preemptions;
  sum.counts.prefix_queried_tokens += load.counts.prefix_queried_tokens;
  sum.counts.prefix_hit_tokens += load.counts.prefix_hit_tokens;
}

}  // namespace

DataParallelScheduler::DataParallelScheduler(const SchedulerOptions& options, int groups)
    : options_(options), last_arrivals_(static_cast<size_t>(groups)) {
  CHECK_GE(groups, 1);
  for (int group = 0; group < groups; ++group) {
    schedulers_.emplace_back(options);
  }
}

absl::Status DataParallelScheduler::Add(RequestId id, Request request) {
  RETURN_IF_ERROR(schedulers_.front().CheckRunnable(request));
  int64_t waiting = 0;
  int64_t waiting_tokens = 0;
  for (const Scheduler& scheduler : schedulers_) {
    waiting += scheduler.waiting();
    waiting_tokens += scheduler.waiting_tokens();
  }
  RETURN_IF_ERROR(CheckQueueRoom(options_, waiting, waiting_tokens,
                                 static_cast<int64_t>(request.prompt.size())));
  const size_t group = ChooseGroup(request);
  RETURN_IF_ERROR(schedulers_[group].Add(id, std::move(request)));
  last_arrivals_[group] = ++arrivals_;
  places_[id] = {.group = group, .arrival = arrivals_};
  return absl::OkStatus();
}

size_t DataParallelScheduler::ChooseGroup(const Request& request) const {
  const auto cost = [&](size_t group) {
    const int64_t tokens = schedulers_[group].tokens() - schedulers_[group].CachedTokens(request);
    return std::make_tuple(tokens, last_arrivals_[group], group);
  };
  auto least = cost(0);
  for (size_t group = 1; group < schedulers_.size(); ++group) {
    least = std::min(least, cost(group));
  }
  return std::get<2>(least);
}

Scheduler* DataParallelScheduler::GroupOf(RequestId id) {
  const auto found = places_.find(id);
  return found == places_.end() ? nullptr : &schedulers_[found->second.group];
}

std::optional<RequestUpdate> DataParallelScheduler::Cancel(RequestId id, Finish finish) {
  Scheduler* scheduler = GroupOf(id);
  if (scheduler == nullptr) {
    return std::nullopt;
  }
  places_.erase(id);
  return scheduler->Cancel(id, std::move(finish));
}

void DataParallelScheduler::SetPaused(RequestId id, bool paused) {
  if (Scheduler* scheduler = GroupOf(id); scheduler != nullptr) {
    scheduler->SetPaused(id, paused);
  }
}

std::optional<StepPlan> DataParallelScheduler::Next() {
  StepPlan plan;
  plan.epoch = epoch_;
  plan.step = last_step_ + 1;
  PlanInFlight in_flight{.step = plan.step, .groups = {}};
  for (size_t group = 0; group < schedulers_.size(); ++group) {
    if (std::optional<StepPlan> part = schedulers_[group].Next(plan.step); part.has_value()) {
      AppendPart(*std::move(part), static_cast<int>(group), options_.max_running, plan);
      in_flight.groups.push_back(group);
    }
  }
  if (in_flight.groups.empty()) {
    return std::nullopt;
  }
  last_step_ = plan.step;
  in_flight_.push_back(std::move(in_flight));
  return plan;
}

std::vector<RequestUpdate> DataParallelScheduler::Commit(StepResult result) {
  CHECK(!in_flight_.empty()) << "a result of step " << result.step << " without a plan";
  const PlanInFlight plan = std::move(in_flight_.front());
  in_flight_.pop_front();
  CHECK_EQ(result.step, plan.step);
  const uint32_t slots = static_cast<uint32_t>(options_.max_running);
  std::vector<RequestUpdate> updates;
  auto next = result.sequences.begin();
  for (const size_t group : plan.groups) {
    const uint32_t first = static_cast<uint32_t>(group) * slots;
    StepResult part{.epoch = result.epoch, .step = result.step, .digest = 0, .sequences = {}};
    for (; next != result.sequences.end() && next->slot < first + slots; ++next) {
      CHECK_GE(next->slot, first) << "step " << plan.step;
      next->slot -= first;
      part.sequences.push_back(std::move(*next));
    }
    for (RequestUpdate& update : schedulers_[group].Commit(part)) {
      if (update.finish.has_value()) {
        places_.erase(update.id);
      }
      updates.push_back(std::move(update));
    }
  }
  CHECK(next == result.sequences.end()) << "step " << plan.step << ": slot " << next->slot;
  return updates;
}

void DataParallelScheduler::Requeue(uint64_t epoch) {
  for (Scheduler& scheduler : schedulers_) {
    scheduler.Requeue(epoch);
  }
  in_flight_.clear();
  epoch_ = epoch;
  last_step_ = 0;
}

std::vector<RequestId> DataParallelScheduler::unfinished() const {
  std::vector<std::pair<uint64_t, RequestId>> arrivals;
  arrivals.reserve(places_.size());
  for (const auto& [id, place] : places_) {
    arrivals.emplace_back(place.arrival, id);
  }
  std::sort(arrivals.begin(), arrivals.end());
  std::vector<RequestId> ids;
  ids.reserve(arrivals.size());
  for (const auto& [arrival, id] : arrivals) {
    ids.push_back(id);
  }
  return ids;
}

std::vector<SchedulerLoad> DataParallelScheduler::loads() const {
  std::vector<SchedulerLoad> loads;
  for (const Scheduler& scheduler : schedulers_) {
    loads.push_back({.running = scheduler.running(),
                     .waiting = scheduler.waiting(),
                     .paused = scheduler.paused(),
                     .blocks_used = scheduler.blocks().used(),
                     .blocks_cached = scheduler.blocks().cached(),
                     .blocks_total = scheduler.blocks().total(),
                     .counts = scheduler.counts()});
  }
  return loads;
}

SchedulerLoad DataParallelScheduler::load() const {
  SchedulerLoad sum;
  for (const SchedulerLoad& load : loads()) {
    AddTo(load, sum);
  }
  return sum;
}

}  // namespace cohort
