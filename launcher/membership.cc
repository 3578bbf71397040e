#include "launcher/membership.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_join.h"
#include "kernels/check.h"
#include "launcher/epoch_groups.h"
#include "launcher/rank_memory.h"
#include "launcher/ring_step_link.h"

namespace cohort {
namespace {

constexpr absl::Duration kFirstDelay = absl::Milliseconds(100);
constexpr absl::Duration kLongestDelay = absl::Seconds(5);
// A group that served so long has recovered from whatever came before.
constexpr absl::Duration kProvenService = absl::Seconds(60);

// Before the start that follows failure number `failures`: at once, 100 ms, 200 ms, ... 5 s.
absl::Duration RestartDelay(int failures) {
  if (failures <= 1) return absl::ZeroDuration();
  const int doublings = std::min(failures - 2, 16);
  return std::min(kFirstDelay * (1 << doublings), kLongestDelay);
}

bool LoadCameOn(const v1::RankProgress& before, const v1::RankProgress& after) {
  return before.state() != after.state() || before.done_bytes() != after.done_bytes() ||
         before.process_id() != after.process_id();
}

}  // namespace

Membership::Membership(const MembershipOptions& options)
    : options_(options),
      seats_(options.agents, options.ranks),
      ranks_(static_cast<size_t>(options.ranks)) {}

Membership::Rank* Membership::Find(uint32_t rank) {
  return rank < ranks_.size() ? &ranks_[rank] : nullptr;
}

std::string Membership::Name(size_t rank) const {
  const int64_t process_id = ranks_[rank].progress.process_id();
  return process_id == 0 ? absl::StrCat("rank ", rank)
                         : absl::StrCat("rank ", rank, " (pid ", process_id, ")");
}

// ---- Agents and ranks ----

void Membership::AgentJoined(const AgentDescription& agent, absl::Time now) {
  if (seats_.Contains(agent.name)) AgentLost(agent.name, "it joined anew", now);
  const bool decided = seats_.decided();
  seats_.Join(agent);
  if (over() || !seats_.decided()) return;
  std::vector<uint32_t> start;
  for (size_t rank = 0; rank < ranks_.size(); ++rank) {
    const AgentSeats::Seat& seat =
        seats_.seats()[static_cast<size_t>(seats_.SeatOf(static_cast<int>(rank)))];
    if (decided && seat.agent.name != agent.name) continue;
    ranks_[rank].agent = seat.agent.name;
    start.push_back(static_cast<uint32_t>(rank));
  }
  StartRanks(start, now);
}

void Membership::AgentLost(const std::string& agent, const std::string& reason, absl::Time now) {
  const Range ranks = seats_.Lose(agent, reason);
  for (int64_t rank = ranks.begin; rank < ranks.end; ++rank) {
    Rank& lost = ranks_[static_cast<size_t>(rank)];
    const int failed_starts = lost.failed_starts;
    LoseRank(static_cast<size_t>(rank), absl::StrCat("agent '", agent, "' was lost: ", reason),
             now);
    lost.failed_starts = failed_starts;  // says nothing about the next agent
    lost.agent.clear();
    lost.state = RankState::kUnassigned;
  }
}

void Membership::StartRanks(const std::vector<uint32_t>& start, absl::Time now) {
  std::map<std::string, AssignRanks> assignments;
  for (const uint32_t number : start) {
    Rank& rank = ranks_[number];
    rank.state = RankState::kLoading;
    rank.progress.Clear();
    rank.assigned = rank.progressed = now;
    rank.condemned = false;
    assignments[rank.agent].start.push_back(number);
  }
  for (auto& [agent, assignment] : assignments) {
    assignment.agent = agent;
    for (size_t rank = 0; rank < ranks_.size(); ++rank) {
      if (ranks_[rank].agent == agent) assignment.ranks.push_back(static_cast<uint32_t>(rank));
    }
    actions_.push_back(std::move(assignment));
  }
}

void Membership::RestartDue(absl::Time now) {
  if (over()) return;
  std::vector<uint32_t> due;
  for (size_t rank = 0; rank < ranks_.size(); ++rank) {
    const bool lost = ranks_[rank].state == RankState::kLost;
    if (lost && ranks_[rank].restart_at <= now) due.push_back(static_cast<uint32_t>(rank));
  }
  StartRanks(due, now);
}

void Membership::RankProgressed(const v1::RankProgress& progress, absl::Time now) {
  Rank* rank = Find(progress.rank());
  if (rank == nullptr || rank->state == RankState::kUnassigned || rank->state == RankState::kLost) {
    return;
  }
  if (LoadCameOn(rank->progress, progress)) rank->progressed = now;
  rank->progress = progress;
  if (rank->state == RankState::kLoading && progress.state() == "ready") {
    rank->state = RankState::kReady;
    MaybeBeginEpoch(now);
  }
}

void Membership::RankLost(const v1::RankLost& lost, absl::Time now) {
  const Rank* rank = Find(lost.rank());
  if (rank == nullptr || rank->state == RankState::kUnassigned || rank->state == RankState::kLost) {
    return;
  }
  LoseRank(lost.rank(), lost.reason(), now);
  if (over()) return;
  const bool hopeless = rank->failed_starts >=
                        (has_served_ ? options_.restart_attempts : options_.first_start_attempts);
  if (lost.permanent() && lost.status_code() != 0) {
    GiveUp(absl::Status(StatusCodeOf(lost.status_code()),
                        absl::StrCat("rank ", lost.rank(), ": ", lost.reason())),
           now);
  } else if (hopeless) {
    GiveUp(absl::UnavailableError(
               absl::StrCat("rank ", lost.rank(), " was lost ", rank->failed_starts,
                            " times before it served; the last time: ", lost.reason())),
           now);
  } else {
    RestartDue(now);
  }
}

void Membership::LoseRank(size_t rank, const std::string& reason, absl::Time now) {
  const std::string what = absl::StrCat(Name(rank), " was lost: ", reason);
  const bool served = phase_ == Phase::kServing;
  StopEpoch(what, absl::UnavailableError(what), now);
  Rank& lost = ranks_[rank];
  lost.state = RankState::kLost;
  lost.leaving = 0;
  ++lost.failures;
  ++lost.restarts;
  if (!served) ++lost.failed_starts;
  lost.restart_at = now + RestartDelay(lost.failures);
}

void Membership::Condemn(size_t rank, const std::string& reason) {
  Rank& condemned = ranks_[rank];
  if (std::exchange(condemned.condemned, true)) return;
  KillRankProcess action;
  action.agent = condemned.agent;
  action.kill.set_rank(static_cast<uint32_t>(rank));
  action.kill.set_process_id(condemned.progress.process_id());
  action.kill.set_reason(reason);
  actions_.push_back(std::move(action));
}

// ---- Epochs ----

void Membership::MaybeBeginEpoch(absl::Time now) {
  if (over() || phase_ != Phase::kForming || now < begin_at_) return;
  begin_at_ = absl::InfinitePast();
  for (const Rank& rank : ranks_) {
    if (rank.state != RankState::kReady || rank.leaving != 0 || rank.condemned) return;
  }
  ++epoch_;
  phase_ = Phase::kJoining;
  join_by_ = now + options_.join_epoch_timeout;
  StartEpoch action;
  action.begin.set_epoch(epoch_);
  for (size_t rank = 0; rank < ranks_.size(); ++rank) {
    ranks_[rank].joined = false;
    v1::BeginEpoch::Member& member = *action.begin.add_members();
    member.set_rank(static_cast<uint32_t>(rank));
    member.set_agent(ranks_[rank].agent);
  }
  action.begin.set_tensor_parallel(static_cast<uint32_t>(options_.ranks / options_.data_parallel));
  action.begin.set_exchanges_experts(options_.exchanges_experts);
  action.begin.set_on_gpus(options_.on_gpus);
  const auto listening = ListeningRanks(action.begin);
  CHECK_OK(listening.status());
  listeners_.clear();
  for (const uint32_t rank : *listening) listeners_[rank] = std::nullopt;
  actions_.push_back(std::move(action));
}

void Membership::EpochListening(const v1::EpochListeners& listeners, absl::Time) {
  if (phase_ != Phase::kJoining || listeners.epoch() != epoch_) return;
  const auto awaited = listeners_.find(listeners.rank());
  if (awaited == listeners_.end()) return;
  awaited->second = listeners;
  SharePeers action;
  action.peers.set_epoch(epoch_);
  for (const auto& [rank, of_rank] : listeners_) {
    if (!of_rank.has_value()) return;
    *action.peers.add_agents() = *of_rank;
  }
  actions_.push_back(std::move(action));
}

void Membership::EpochJoined(const v1::EpochJoined& joined, absl::Time now) {
  if (phase_ != Phase::kJoining || joined.epoch() != epoch_) return;
  for (const uint32_t number : joined.ranks()) {
    if (Rank* rank = Find(number); rank != nullptr) rank->joined = true;
  }
  if (!std::all_of(ranks_.begin(), ranks_.end(), [](const Rank& r) { return r.joined; })) return;
  phase_ = Phase::kServing;
  has_served_ = true;
  serving_since_ = now;
  unconnected_epochs_ = 0;
  for (Rank& rank : ranks_) rank.failed_starts = 0;
  actions_.push_back(ServeEpoch{epoch_});
}

// Nothing to do outside of an epoch.
void Membership::StopEpoch(const std::string& reason, const absl::Status& status, absl::Time now) {
  if (phase_ != Phase::kJoining && phase_ != Phase::kServing) return;
  if (phase_ == Phase::kServing) actions_.push_back(StopServing{epoch_, status});
  actions_.push_back(EndEpoch{epoch_, reason});
  const bool proven = phase_ == Phase::kServing && now - serving_since_ >= kProvenService;
  for (Rank& rank : ranks_) {
    rank.joined = false;
    rank.leaving = epoch_;
    rank.leave_by = now + options_.leave_epoch_timeout;
    if (proven) rank.failures = 0;
  }
  phase_ = Phase::kForming;
}

void Membership::EpochLeft(const v1::EpochLeft& left, absl::Time now) {
  for (const uint32_t number : left.ranks()) {
    Rank* rank = Find(number);
    if (rank != nullptr && rank->leaving == left.epoch()) rank->leaving = 0;
  }
  MaybeBeginEpoch(now);
}

void Membership::EpochFailed(const v1::EpochFailed& failed, absl::Time now) {
  const bool in_epoch = phase_ == Phase::kJoining || phase_ == Phase::kServing;
  if (!in_epoch || failed.epoch() != epoch_ || Find(failed.rank()) == nullptr) return;
  const std::string what =
      absl::StrCat(Name(failed.rank()), " failed in epoch ", epoch_, ": ", failed.reason());
  StopEpoch(what, absl::UnavailableError(what), now);
  // A failed step leaves a rank as good as before; one that cannot join is replaced.
  if (!failed.joined() && !failed.peers()) Condemn(failed.rank(), what);
  if (!failed.peers()) return;
  begin_at_ = now + RestartDelay(++unconnected_epochs_ + 1);
  if (!has_served_ && unconnected_epochs_ >= options_.first_start_attempts) {
    GiveUp(
        absl::UnavailableError(absl::StrCat("the agents did not reach each other ",
                                            unconnected_epochs_, " times; the last time: ", what)),
        now);
  }
}

void Membership::StepFailed(uint64_t epoch, const absl::Status& status, absl::Time now) {
  if (phase_ != Phase::kServing || epoch != epoch_) return;
  const std::string what(status.message());
  StopEpoch(what, absl::UnavailableError(what), now);
}

void Membership::GiveUp(const absl::Status& status, absl::Time now) {
  StopEpoch(std::string(status.message()), status, now);
  phase_ = Phase::kOver;
  failure_ = status;
  actions_.push_back(GiveUpGroup{status});
}

void Membership::Drain(absl::Time now) {
  if (draining_) return;
  draining_ = true;
  StopEpoch("the server is shutting down", absl::UnavailableError("the server is shutting down"),
            now);
}

// ---- Time ----

void Membership::Tick(absl::Time now) {
  if (over()) return;
  CheckAgents(now);
  CheckJoining(now);
  for (size_t rank = 0; rank < ranks_.size(); ++rank) CheckRank(rank, now);
  RestartDue(now);
  MaybeBeginEpoch(now);
}

void Membership::CheckAgents(absl::Time now) {
  if (seats_.decided() || now < options_.agents_deadline) return;
  GiveUp(absl::UnavailableError(absl::StrCat("the group did not form in time: ", Awaited())), now);
}

void Membership::CheckJoining(absl::Time now) {
  if (phase_ != Phase::kJoining || now < join_by_) return;
  const std::string late = absl::StrCat("it did not join epoch ", epoch_, " within ",
                                        absl::FormatDuration(options_.join_epoch_timeout));
  std::vector<size_t> missing;
  for (size_t rank = 0; rank < ranks_.size(); ++rank) {
    if (!ranks_[rank].joined) missing.push_back(rank);
  }
  const std::string awaited = Awaited();
  StopEpoch(awaited, absl::UnavailableError(awaited), now);
  for (const size_t rank : missing) Condemn(rank, late);
}

void Membership::CheckRank(size_t number, absl::Time now) {
  const Rank& rank = ranks_[number];
  if (rank.condemned) return;
  if (rank.state == RankState::kReady && rank.leaving != 0 && now >= rank.leave_by) {
    Condemn(number, absl::StrCat("it did not leave epoch ", rank.leaving, " within ",
                                 absl::FormatDuration(options_.leave_epoch_timeout)));
  }
  if (rank.state != RankState::kLoading) return;
  if (now - rank.progressed >= options_.load_stall_timeout) {
    Condemn(number, absl::StrCat("its load stood still for ",
                                 absl::FormatDuration(options_.load_stall_timeout), " at ",
                                 rank.progress.done_bytes(), " of ", rank.progress.total_bytes(),
                                 " bytes"));
  } else if (now - rank.assigned >= options_.load_timeout) {
    Condemn(number,
            absl::StrCat("it was not ready after ", absl::FormatDuration(options_.load_timeout)));
  }
}

absl::Time Membership::next_deadline() const {
  absl::Time next = absl::InfiniteFuture();
  if (over()) return next;
  if (!seats_.decided()) next = options_.agents_deadline;
  if (phase_ == Phase::kJoining) next = std::min(next, join_by_);
  if (begin_at_ != absl::InfinitePast()) next = std::min(next, begin_at_);
  for (const Rank& rank : ranks_) {
    if (rank.state == RankState::kLost) next = std::min(next, rank.restart_at);
    if (rank.condemned) continue;
    if (rank.state == RankState::kReady && rank.leaving != 0) next = std::min(next, rank.leave_by);
    if (rank.state == RankState::kLoading) {
      next = std::min({next, rank.progressed + options_.load_stall_timeout,
                       rank.assigned + options_.load_timeout});
    }
  }
  return next;
}

// ---- What follows ----

std::vector<MembershipAction> Membership::TakeActions() { return std::exchange(actions_, {}); }

GroupStatus Membership::status() const {
  GroupStatus status;
  status.epoch = epoch_;
  status.state = draining_     ? "draining"
                 : serving()   ? "serving"
                 : has_served_ ? "recovering"
                               : "starting";
  status.agents = seats_.status();
  status.awaited = Awaited();
  for (size_t i = 0; i < ranks_.size(); ++i) {
    const Rank& rank = ranks_[i];
    const v1::RankProgress& progress = rank.progress;
    RankStatus& out = status.ranks.emplace_back();
    out.rank = static_cast<int>(i);
    out.agent = rank.agent;
    out.process_id = progress.process_id();
    if (rank.state == RankState::kLoading && !progress.state().empty())
      out.state = progress.state();
    if (rank.state == RankState::kReady) out.state = serving() ? "serving" : "ready";
    const bool has_no_agent = rank.state == RankState::kUnassigned && seats_.decided();
    if (rank.state == RankState::kLost || has_no_agent) out.state = "lost";
    if (progress.total_bytes() > 0) {
      out.load_progress =
          static_cast<double>(progress.done_bytes()) / static_cast<double>(progress.total_bytes());
    }
    if (rank.state == RankState::kReady) out.load_progress = 1;
    out.weight_bytes = progress.weight_bytes();
    out.kv_bytes = progress.kv_bytes();
    out.planned = FromMessage(progress.planned());
    out.allocated = FromMessage(progress.allocated());
    out.restarts = rank.restarts;
    out.device = progress.device();
    out.transport = progress.transport();
  }
  return status;
}

std::string Membership::Awaited() const {
  if (phase_ == Phase::kOver) return "nothing: the group is over";
  if (phase_ == Phase::kServing) return "nothing: the group serves";
  std::vector<std::string> late;
  if (std::string agents = seats_.Awaited(); !agents.empty()) late.push_back(std::move(agents));
  for (size_t i = 0; i < ranks_.size(); ++i) {
    const Rank& rank = ranks_[i];
    if (phase_ == Phase::kJoining) {
      if (!rank.joined) late.push_back(absl::StrCat(Name(i), " to join epoch ", epoch_));
    } else if (rank.state == RankState::kLost) {
      late.push_back(absl::StrCat("the restart of rank ", i));
    } else if (rank.state == RankState::kLoading) {
      late.push_back(absl::StrCat(Name(i), " to load (", rank.progress.done_bytes(), " of ",
                                  rank.progress.total_bytes(), " bytes)"));
    } else if (rank.leaving != 0) {
      late.push_back(absl::StrCat(Name(i), " to leave epoch ", rank.leaving));
    }
  }
  return absl::StrCat("waiting for ", absl::StrJoin(late, ", "));
}

}  // namespace cohort
