#include "launcher/rank_supervisor.h"

#include <algorithm>
#include <utility>

#include "absl/algorithm/container.h"
#include "launcher/epoch_hosts.h"
#include "launcher/epoch_memory.h"
#include "launcher/gpu_placement.h"
#include "launcher/log.h"
#include "launcher/ring_step_link.h"
#include "launcher/task_queue.h"

namespace cohort {
namespace {

// Without a pidfd an end is noticed by asking, once the control socket has ended.
constexpr absl::Duration kAskAgain = absl::Milliseconds(10);
// The coordinator's side waits for whole steps: sleeping at once costs little beside them.
constexpr int kCoordinatorSpinIterations = 0;

std::string NameOfRank(uint32_t number, const RankProcess& process) {
  return absl::StrCat("rank ", number, " (pid ", process.process_id(), ")");
}

}  // namespace

RankSupervisor::RankSupervisor(RankSupervisorOptions options, Report report)
    : options_(std::move(options)), report_(std::move(report)) {}

RankSupervisor::~RankSupervisor() = default;

void RankSupervisor::Assign(const v1::Assignment& assignment) {
  for (int i = 0; i < assignment.ranks_size(); ++i) {
    const uint32_t number = assignment.ranks(i);
    const bool wanted = absl::c_linear_search(assignment.start(), number);
    if (wanted && !ranks_.contains(number)) Start(number, assignment, static_cast<uint32_t>(i));
  }
}

void RankSupervisor::Start(uint32_t number, const v1::Assignment& assignment,
                           uint32_t local_index) {
  absl::StatusOr<std::unique_ptr<RankProcess>> process =
      RankProcess::Start(options_.rank_executable,
                         RankEnvironment(assignment.configuration(), number, options_.address));
  if (!process.ok()) {
    ReportCannotStart(number, process.status());
    return;
  }
  Rank& rank = ranks_[number];
  rank.process = *std::move(process);
  rank.started = SteadyNow();
  rank.progress.set_rank(number);
  rank.progress.set_process_id(rank.process->process_id());
  rank.progress.set_state("starting");
  LogInfo("rank_started", {{"rank", number}, {"pid", rank.process->process_id()}});
  v1::AgentMessage message;
  *message.mutable_progress() = rank.progress;
  report_(std::move(message));
  v1::AgentToRank to_rank;
  v1::ConfigureRank& configure = *to_rank.mutable_configure();
  *configure.mutable_configuration() = assignment.configuration();
  configure.set_rank(number);
  configure.set_local_index(local_index);
  configure.set_local_ranks(static_cast<uint32_t>(assignment.ranks_size()));
  configure.set_address(options_.address);
  Tell(number, rank, to_rank, {});
}

// A rank that cannot be told anything is of no use: it is killed, and its end reported.
void RankSupervisor::Tell(uint32_t number, Rank& rank, const v1::AgentToRank& message,
                          absl::Span<const int> descriptors) {
  const absl::Status status = rank.process->control().Send(message.SerializeAsString(), descriptors,
                                                           ControlSocket::WhenFull::kFail);
  if (status.ok()) return;
  LogWarning("rank_unreachable", {{"rank", number}, {"reason", status.message()}});
  KillBecause(rank, std::string(status.message()));
}

void RankSupervisor::KillBecause(Rank& rank, const std::string& reason) {
  if (rank.killed_because.empty()) rank.killed_because = reason;
  rank.process->Kill();
}

void RankSupervisor::Kill(const v1::KillRank& kill) {
  const auto found = ranks_.find(kill.rank());
  if (found == ranks_.end() || found->second.process->process_id() != kill.process_id()) return;
  KillBecause(found->second, kill.reason());
}

void RankSupervisor::KillAll() {
  quiet_ = true;
  for (auto& [number, rank] : ranks_) rank.process->Kill();
  ranks_.clear();  // reaps
  quiet_ = false;
}

void RankSupervisor::BeginShutdown(const std::string& reason, absl::Time deadline) {
  quiet_ = true;
  kill_at_ = deadline;
  v1::AgentToRank message;
  message.mutable_shutdown()->set_reason(reason);
  for (auto& [number, rank] : ranks_) Tell(number, rank, message, {});
}

void RankSupervisor::BeginEpoch(const v1::BeginEpoch& begin) {
  const absl::StatusOr<Range> own = FindOwnRanks(begin);
  const absl::Status status = own.ok() ? ShareMemory(begin, *own) : own.status();
  if (status.ok()) return;
  v1::AgentMessage message;
  v1::EpochFailed& failed = *message.mutable_epoch_failed();
  failed.set_epoch(begin.epoch());
  const auto own_member = absl::c_find_if(
      begin.members(), [this](const auto& member) { return member.agent() == options_.agent; });
  if (own_member != begin.members().end()) failed.set_rank(own_member->rank());
  failed.set_reason(std::string(status.message()));
  report_(std::move(message));
}

absl::StatusOr<Range> RankSupervisor::FindOwnRanks(const v1::BeginEpoch& begin) const {
  ASSIGN_OR_RETURN(const EpochHosts hosts, HostsOf(begin));
  const auto found = absl::c_find(hosts.agents, options_.agent);
  if (found == hosts.agents.end()) {
    return absl::InvalidArgumentError(
        absl::StrCat("agent '", options_.agent, "' has no rank in epoch ", begin.epoch()));
  }
  const Range own = hosts.layout.hosts[static_cast<size_t>(found - hosts.agents.begin())];
  for (int64_t rank = own.begin; rank < own.end; ++rank) {
    if (!ranks_.contains(static_cast<uint32_t>(rank))) {
      return absl::UnavailableError(absl::StrCat("rank ", rank, " has no process"));
    }
  }
  return own;
}

absl::Status RankSupervisor::ShareMemory(const v1::BeginEpoch& begin, Range own) {
  ASSIGN_OR_RETURN(const EpochMemory memory, EpochMemory::Create(begin, own));
  v1::AgentToRank message;
  *message.mutable_begin_epoch() = begin;
  options_.links->DropUntil(begin.epoch());
  for (int64_t number = own.begin; number < own.end; ++number) {
    Rank& rank = ranks_.at(static_cast<uint32_t>(number));
    const RankRings& rings = memory.rings(static_cast<int>(number));
    ASSIGN_OR_RETURN(
        std::unique_ptr<StepLink> link,
        RingStepLink::Map(NameOfRank(static_cast<uint32_t>(number), *rank.process),
                          rings.plans.get(), rings.outcomes.get(), kCoordinatorSpinIterations));
    options_.links->Put(begin.epoch(), static_cast<int>(number), std::move(link));
    Tell(static_cast<uint32_t>(number), rank, message,
         memory.DescriptorsOf(static_cast<int>(number)));
  }
  return absl::OkStatus();
}

void RankSupervisor::SharePeers(const v1::EpochPeers& peers) {
  v1::AgentToRank message;
  *message.mutable_epoch_peers() = peers;
  for (auto& [number, rank] : ranks_) Tell(number, rank, message, {});
}

void RankSupervisor::AbortEpoch(const v1::AbortEpoch& abort) {
  options_.links->DropUntil(abort.epoch());
  v1::AgentToRank message;
  *message.mutable_abort_epoch() = abort;
  for (auto& [number, rank] : ranks_) Tell(number, rank, message, {});
}

void RankSupervisor::AppendWatched(std::vector<pollfd>& watched) const {
  for (const auto& [number, rank] : ranks_) {
    // An ended socket stays readable; it has nothing more to say.
    if (!rank.socket_ended) watched.push_back({rank.process->control().fd(), POLLIN, 0});
    if (rank.process->exit_fd() >= 0) watched.push_back({rank.process->exit_fd(), POLLIN, 0});
  }
}

absl::Time RankSupervisor::next_deadline() const {
  absl::Time next = ranks_.empty() ? absl::InfiniteFuture() : kill_at_;
  for (const auto& [number, rank] : ranks_) {
    const bool must_ask = rank.socket_ended && rank.process->exit_fd() < 0;
    if (must_ask) next = std::min(next, SteadyNow() + kAskAgain);
  }
  return next;
}

void RankSupervisor::Handle() {
  if (SteadyNow() >= kill_at_) {
    for (auto& [number, rank] : ranks_) rank.process->Kill();
    kill_at_ = absl::InfiniteFuture();
  }
  for (auto next = ranks_.begin(); next != ranks_.end();) {
    const auto current = next++;
    auto& [number, rank] = *current;
    // Asked first: what is read afterwards includes its last words.
    const std::optional<ExitStatus> exit = rank.process->TryReap();
    ReadMessages(number, rank);
    if (!exit.has_value()) continue;
    const Rank lost = std::move(rank);
    const uint32_t lost_number = number;
    ranks_.erase(current);
    if (!quiet_) ReportLost(lost_number, lost, *exit);
  }
}

void RankSupervisor::ReadMessages(uint32_t number, Rank& rank) {
  while (!rank.socket_ended && rank.process->control().Readable()) {
    const absl::StatusOr<std::optional<ControlPacket>> packet = rank.process->control().Receive();
    if (!packet.ok() || !packet->has_value()) {
      rank.socket_ended = true;
      if (!packet.ok()) KillBecause(rank, std::string(packet.status().message()));
      rank.process->Kill();  // without its socket it must end, and is about to
      return;
    }
    HandleMessage(number, rank, **packet);
  }
}

void RankSupervisor::HandleMessage(uint32_t number, Rank& rank, const ControlPacket& packet) {
  v1::RankToAgent said;
  if (!said.ParseFromString(packet.bytes)) {
    KillBecause(rank, "it sent a control packet that is no message");
    return;
  }
  v1::AgentMessage message;
  switch (said.message_case()) {
    case v1::RankToAgent::kProgress:
      HandleProgress(rank, said.progress());
      return;
    case v1::RankToAgent::kLost:
      rank.last_words = said.lost();
      return;
    case v1::RankToAgent::kEpochJoined:
      message.mutable_epoch_joined()->set_epoch(said.epoch_joined().epoch());
      message.mutable_epoch_joined()->add_ranks(number);
      break;
    case v1::RankToAgent::kListeners:
      *message.mutable_listeners() = said.listeners();
      message.mutable_listeners()->set_rank(number);
      break;
    case v1::RankToAgent::kEpochLeft:
      message.mutable_epoch_left()->set_epoch(said.epoch_left().epoch());
      message.mutable_epoch_left()->add_ranks(number);
      break;
    case v1::RankToAgent::kEpochFailed:
      *message.mutable_epoch_failed() = said.epoch_failed();
      message.mutable_epoch_failed()->set_rank(number);
      break;
    case v1::RankToAgent::MESSAGE_NOT_SET:
      return;
  }
  if (!quiet_) report_(std::move(message));
}

void RankSupervisor::HandleProgress(Rank& rank, const v1::RankProgress& progress) {
  const v1::RankProgress before = std::exchange(rank.progress, progress);
  rank.progress.set_rank(before.rank());
  rank.progress.set_process_id(before.process_id());
  if (progress.state() == "ready" && before.state() != "ready") {
    LogInfo("rank_ready", {{"rank", before.rank()},
                           {"pid", before.process_id()},
                           {"seconds", absl::ToDoubleSeconds(SteadyNow() - rank.started)},
                           {"weight_bytes", progress.weight_bytes()},
                           {"kv_bytes", progress.kv_bytes()},
                           {"device", progress.device()}});
  }
  if (quiet_) return;
  v1::AgentMessage message;
  *message.mutable_progress() = rank.progress;
  report_(std::move(message));
}

void RankSupervisor::ReportLost(uint32_t number, const Rank& rank, const ExitStatus& exit) {
  v1::AgentMessage message;
  v1::RankLost& lost = *message.mutable_lost();
  if (rank.last_words.has_value()) {
    lost = *rank.last_words;
  } else {
    lost.set_reason(rank.killed_because.empty()
                        ? exit.Words()
                        : absl::StrCat("killed because ", rank.killed_because));
    lost.set_status_code(static_cast<int32_t>(absl::StatusCode::kUnavailable));
  }
  lost.set_rank(number);
  lost.set_process_id(rank.process->process_id());
  LogWarning("rank_lost", {{"rank", number},
                           {"pid", lost.process_id()},
                           {"reason", lost.reason()},
                           {"permanent", lost.permanent()}});
  report_(std::move(message));
}

void RankSupervisor::ReportCannotStart(uint32_t number, const absl::Status& status) {
  v1::AgentMessage message;
  v1::RankLost& lost = *message.mutable_lost();
  lost.set_rank(number);
  lost.set_reason(std::string(status.message()));
  lost.set_status_code(static_cast<int32_t>(status.code()));
  LogWarning("rank_cannot_start", {{"rank", number}, {"reason", lost.reason()}});
  report_(std::move(message));
}

std::vector<v1::RankProgress> RankSupervisor::progress() const {
  std::vector<v1::RankProgress> all;
  for (const auto& [number, rank] : ranks_) all.push_back(rank.progress);
  return all;
}

}  // namespace cohort
