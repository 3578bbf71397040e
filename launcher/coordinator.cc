#include "launcher/coordinator.h"

#include <poll.h>

#include <algorithm>
#include <condition_variable>
#include <map>
#include <mutex>
#include <thread>
#include <utility>

#include "absl/time/clock.h"
#include "kernels/check.h"
#include "launcher/cluster_service.h"
#include "launcher/control_socket.h"
#include "launcher/local_links.h"
#include "launcher/log.h"
#include "launcher/membership.h"
#include "launcher/node_agent.h"
#include "launcher/task_queue.h"
#include "launcher/version.h"

namespace cohort {
namespace {

// Beyond the ranks' own grace: for the last messages of a session.
constexpr absl::Duration kSessionGrace = absl::Seconds(1);
// For a group that is told to exit to say that it has.
constexpr absl::Duration kAgentGrace = absl::Seconds(3);

int WorldOf(const v1::RankConfiguration& configuration) {
  return static_cast<int>(configuration.tensor_parallel());
}

absl::Status CheckConfiguration(const CoordinatorOptions& options) {
  const v1::RankConfiguration& configuration = options.configuration;
  // Room for the message's own fields and for the epoch's.
  constexpr size_t kMaxConfigurationBytes = kMaxControlBytes - 1024;
  if (configuration.tensor_parallel() < 1 || configuration.data_parallel() > 1 ||
      configuration.expert_parallel() > 1) {
    return absl::InvalidArgumentError(
        absl::StrCat("tensor, data and expert parallelism of ", configuration.tensor_parallel(),
                     ", ", configuration.data_parallel(), ", ", configuration.expert_parallel(),
                     ": only tensor parallelism, of at least 1, is there"));
  }
  if (configuration.step_timeout_milliseconds() <= 0) {
    return absl::InvalidArgumentError(absl::StrCat(
        "a step timeout of ", configuration.step_timeout_milliseconds(), " ms is not positive"));
  }
  if (configuration.ByteSizeLong() > kMaxConfigurationBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("the ranks' configuration has ", configuration.ByteSizeLong(),
                     " bytes (config.json ", configuration.config_json().size(), "); at most ",
                     kMaxConfigurationBytes, " can be passed on"));
  }
  return absl::OkStatus();
}

MembershipOptions MakeMembershipOptions(const CoordinatorOptions& options) {
  MembershipOptions membership;
  membership.ranks = WorldOf(options.configuration);
  membership.load_timeout = options.load_timeout;
  membership.load_stall_timeout = options.load_stall_timeout;
  membership.join_epoch_timeout = options.join_epoch_timeout;
  membership.leave_epoch_timeout = options.leave_epoch_timeout;
  return membership;
}

v1::CoordinatorMessage ShutdownMessage() {
  v1::CoordinatorMessage message;
  message.mutable_shutdown()->set_reason("the server is shutting down");
  return message;
}

}  // namespace

// What its thread alone touches is said so; the rest is guarded by mutex_ or safe by itself. The
// membership's clock is SteadyNow.
class Coordinator::State {
 public:
  explicit State(CoordinatorOptions options);
  ~State();

  absl::Status Start();
  Engine& engine() { return engine_; }
  GroupStatus group() const;
  void OnServingChange(std::function<void(bool)> callback);
  absl::Status WaitUntilServing(absl::Time deadline);
  absl::Status failure() const;
  void Shutdown();

 private:
  using SessionPointer = std::shared_ptr<AgentSession>;
  struct Agent {
    SessionPointer session;
    absl::Time heard;
  };

  void Run();
  void Turn();
  void Tick(absl::Time now);
  void HandleMessage(const SessionPointer& session, const v1::AgentMessage& message);
  void HandleJoin(const SessionPointer& session, const v1::Join& join);
  void HandleEvent(const v1::AgentMessage& message, absl::Time now);
  void HandleEnd(const SessionPointer& session);
  void DropAgent(std::map<std::string, Agent>::iterator agent, const absl::Status& status);
  std::map<std::string, Agent>::iterator FindAgent(const SessionPointer& session);

  void Act();
  void Do(const AssignRanks& action);
  void Do(const StartEpoch& action);
  void Do(const EndEpoch& action);
  void Do(const KillRankProcess& action);
  void Do(const ServeEpoch& action);
  void Do(const StopServing& action);
  void Do(const GiveUpGroup& action);
  void SendTo(const std::string& agent, const v1::CoordinatorMessage& message);
  void SendToAll(const v1::CoordinatorMessage& message);
  void Publish();

  const CoordinatorOptions options_;
  // Shared with the handlers of sessions that gRPC is not done with, and with the engine's
  // callback.
  const std::shared_ptr<TaskQueue> tasks_ = std::make_shared<TaskQueue>();
  LocalLinks links_;
  Engine engine_;

  // Of the thread.
  Membership membership_;
  std::map<std::string, Agent> agents_;
  absl::Time next_heartbeat_ = SteadyNow();
  absl::Time last_tick_ = SteadyNow();
  uint64_t heartbeats_ = 0;
  bool told_serving_ = false;
  bool shutting_down_ = false;
  bool stopping_ = false;

  mutable std::mutex mutex_;
  std::condition_variable changed_;
  GroupStatus group_;
  std::string awaited_;
  absl::Status failure_;
  std::function<void(bool)> on_serving_change_;

  std::mutex shutdown_mutex_;  // one Shutdown at a time
  bool is_shut_down_ = false;

  std::thread thread_;
  std::unique_ptr<ClusterServer> server_;
  std::unique_ptr<NodeAgent> local_agent_;  // last: its ranks go first
};

Coordinator::State::State(CoordinatorOptions options)
    : options_(std::move(options)),
      engine_(options_.scheduler,
              [this, tasks = tasks_](uint64_t epoch, absl::Status status) {
                tasks->Post([this, epoch, status = std::move(status)] {
                  membership_.StepFailed(epoch, status, SteadyNow());
                });
              }),
      membership_(MakeMembershipOptions(options_)),
      group_(membership_.status()),
      awaited_(membership_.Awaited()) {}

Coordinator::State::~State() { Shutdown(); }

absl::Status Coordinator::State::Start() {
  AgentSession::Handler handler;
  handler.on_message = [this, tasks = tasks_](SessionPointer session, v1::AgentMessage message) {
    tasks->Post([this, session = std::move(session), message = std::move(message)] {
      HandleMessage(session, message);
    });
  };
  handler.on_end = [this, tasks = tasks_](SessionPointer session) {
    tasks->Post([this, session = std::move(session)] { HandleEnd(session); });
  };
  ASSIGN_OR_RETURN(server_, ClusterServer::Start(std::move(handler)));
  thread_ = std::thread([this] { Run(); });
  NodeAgentOptions agent;
  agent.name = options_.local_agent;
  agent.slots = options_.local_slots;
  agent.coordinator = server_->target();
  agent.token = server_->token();
  agent.rank_executable = options_.rank_executable;
  agent.heartbeat_period = options_.heartbeat_period;
  agent.heartbeat_timeout = options_.heartbeat_timeout;
  agent.exit_grace = options_.exit_grace;
  agent.links = &links_;
  local_agent_ = NodeAgent::Start(std::move(agent));
  return absl::OkStatus();
}

// ---- Called from any thread ----

GroupStatus Coordinator::State::group() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return group_;
}

absl::Status Coordinator::State::failure() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return failure_;
}

void Coordinator::State::OnServingChange(std::function<void(bool)> callback) {
  const std::lock_guard<std::mutex> lock(mutex_);
  on_serving_change_ = std::move(callback);
}

absl::Status Coordinator::State::WaitUntilServing(absl::Time deadline) {
  std::unique_lock<std::mutex> lock(mutex_);
  const auto settled = [this] {
    return group_.state == "serving" || group_.state == "draining" || !failure_.ok();
  };
  if (deadline == absl::InfiniteFuture()) {
    changed_.wait(lock, settled);
  } else if (!changed_.wait_until(lock, absl::ToChronoTime(deadline), settled)) {
    return absl::DeadlineExceededError(absl::StrCat("the group does not serve yet: ", awaited_));
  }
  RETURN_IF_ERROR(failure_);
  return group_.state == "serving" ? absl::OkStatus()
                                   : absl::UnavailableError("the server is shutting down");
}

void Coordinator::State::Shutdown() {
  const std::lock_guard<std::mutex> lock(shutdown_mutex_);
  if (std::exchange(is_shut_down_, true)) return;
  engine_.Drain(absl::Now());  // ends what is left
  if (local_agent_ != nullptr) {
    tasks_->Post([this] {
      shutting_down_ = true;
      membership_.Drain(SteadyNow());
      Act();
      SendToAll(ShutdownMessage());
    });
    local_agent_->WaitUntilDone(options_.exit_grace + kAgentGrace);
    local_agent_.reset();  // kills what is left
  }
  if (server_ != nullptr) server_->Shutdown(absl::Now() + kSessionGrace);
  if (thread_.joinable()) {
    tasks_->Post([this] { stopping_ = true; });
    thread_.join();
  }
}

// ---- The thread ----

void Coordinator::State::Run() {
  while (!stopping_) Turn();
}

void Coordinator::State::Turn() {
  const absl::Time deadline = std::min(next_heartbeat_, membership_.next_deadline());
  pollfd watched = {tasks_->fd(), POLLIN, 0};
  poll(&watched, 1, PollTimeout(deadline, SteadyNow()));
  tasks_->Run();
  Tick(SteadyNow());
  Act();
  Publish();
}

void Coordinator::State::Tick(absl::Time now) {
  // A stopped process or a paused machine: the silence was our own.
  const bool was_away = now - last_tick_ > options_.heartbeat_timeout / 2;
  last_tick_ = now;
  for (auto next = agents_.begin(); next != agents_.end();) {
    const auto agent = next++;
    if (was_away) agent->second.heard = now;
    if (now - agent->second.heard <= options_.heartbeat_timeout) continue;
    DropAgent(agent, absl::UnavailableError(absl::StrCat(
                         "it was silent for ", absl::FormatDuration(options_.heartbeat_timeout))));
  }
  if (now >= next_heartbeat_) {
    next_heartbeat_ = now + options_.heartbeat_period;
    v1::CoordinatorMessage message;
    message.mutable_heartbeat()->set_sequence(++heartbeats_);
    SendToAll(message);
  }
  membership_.Tick(now);
}

std::map<std::string, Coordinator::State::Agent>::iterator Coordinator::State::FindAgent(
    const SessionPointer& session) {
  return std::find_if(agents_.begin(), agents_.end(),
                      [&](const auto& entry) { return entry.second.session == session; });
}

void Coordinator::State::HandleMessage(const SessionPointer& session,
                                       const v1::AgentMessage& message) {
  if (message.has_join()) {
    HandleJoin(session, message.join());
    return;
  }
  const auto agent = FindAgent(session);
  if (agent == agents_.end()) {  // never joined, or dropped
    session->End(absl::FailedPreconditionError("the agent has not joined the group"));
    return;
  }
  const absl::Time now = SteadyNow();
  agent->second.heard = now;
  HandleEvent(message, now);
}

void Coordinator::State::HandleJoin(const SessionPointer& session, const v1::Join& join) {
  if (shutting_down_) {
    session->Send(ShutdownMessage());
    session->End(absl::OkStatus());
    return;
  }
  if (join.version() != kVersion || join.agent().empty() || join.slots() < 1) {
    session->End(absl::FailedPreconditionError(absl::StrCat(
        "agent '", join.agent(), "' of version ", join.version(), " with ", join.slots(),
        " slots cannot join: it needs a name, a slot and version ", kVersion)));
    return;
  }
  const auto old = agents_.find(join.agent());
  if (old != agents_.end()) DropAgent(old, absl::UnavailableError("it joined anew"));
  LogInfo("agent_joined", {{"agent", join.agent()}, {"slots", join.slots()}});
  agents_[join.agent()] = {session, SteadyNow()};
  membership_.AgentJoined(join.agent(), static_cast<int>(join.slots()), SteadyNow());
}

void Coordinator::State::HandleEvent(const v1::AgentMessage& message, absl::Time now) {
  switch (message.message_case()) {
    case v1::AgentMessage::kProgress:
      membership_.RankProgressed(message.progress(), now);
      break;
    case v1::AgentMessage::kHeartbeat:
      for (const v1::RankProgress& progress : message.heartbeat().ranks()) {
        membership_.RankProgressed(progress, now);
      }
      break;
    case v1::AgentMessage::kLost:
      membership_.RankLost(message.lost(), now);
      break;
    case v1::AgentMessage::kEpochJoined:
      membership_.EpochJoined(message.epoch_joined(), now);
      break;
    case v1::AgentMessage::kEpochLeft:
      membership_.EpochLeft(message.epoch_left(), now);
      break;
    case v1::AgentMessage::kEpochFailed:
      membership_.EpochFailed(message.epoch_failed(), now);
      break;
    case v1::AgentMessage::kJoin:
    case v1::AgentMessage::kOutcome:  // of other nodes' ranks; the group is on this one
    case v1::AgentMessage::MESSAGE_NOT_SET:
      break;
  }
}

void Coordinator::State::HandleEnd(const SessionPointer& session) {
  const auto agent = FindAgent(session);
  if (agent == agents_.end()) return;
  if (shutting_down_) {
    agents_.erase(agent);
  } else {
    DropAgent(agent, absl::UnavailableError("its session ended"));
  }
}

void Coordinator::State::DropAgent(std::map<std::string, Agent>::iterator agent,
                                   const absl::Status& status) {
  const std::string name = agent->first;
  LogWarning("agent_lost", {{"agent", name}, {"reason", status.message()}});
  agent->second.session->End(status);
  agents_.erase(agent);
  membership_.AgentLost(name, std::string(status.message()), SteadyNow());
}

void Coordinator::State::SendTo(const std::string& agent, const v1::CoordinatorMessage& message) {
  const auto found = agents_.find(agent);
  if (found != agents_.end()) found->second.session->Send(message);
}

void Coordinator::State::SendToAll(const v1::CoordinatorMessage& message) {
  for (const auto& [name, agent] : agents_) agent.session->Send(message);
}

// ---- What the membership wants done ----

void Coordinator::State::Act() {
  // An action may fail and so lead to others.
  for (std::vector<MembershipAction> actions = membership_.TakeActions(); !actions.empty();
       actions = membership_.TakeActions()) {
    for (const MembershipAction& action : actions) {
      std::visit([this](const auto& wanted) { Do(wanted); }, action);
    }
  }
}

void Coordinator::State::Do(const AssignRanks& action) {
  v1::CoordinatorMessage message;
  v1::Assignment& assignment = *message.mutable_assignment();
  *assignment.mutable_configuration() = options_.configuration;
  assignment.mutable_ranks()->Add(action.ranks.begin(), action.ranks.end());
  assignment.mutable_start()->Add(action.start.begin(), action.start.end());
  SendTo(action.agent, message);
}

void Coordinator::State::Do(const StartEpoch& action) {
  v1::CoordinatorMessage message;
  *message.mutable_begin_epoch() = action.begin;
  SendToAll(message);
}

void Coordinator::State::Do(const EndEpoch& action) {
  (shutting_down_ ? LogInfo : LogWarning)("epoch_ended",
                                          {{"epoch", action.epoch}, {"reason", action.reason}});
  v1::CoordinatorMessage message;
  message.mutable_abort_epoch()->set_epoch(action.epoch);
  message.mutable_abort_epoch()->set_reason(action.reason);
  SendToAll(message);
}

void Coordinator::State::Do(const KillRankProcess& action) {
  LogWarning("rank_condemned", {{"rank", action.kill.rank()}, {"reason", action.kill.reason()}});
  v1::CoordinatorMessage message;
  *message.mutable_kill_rank() = action.kill;
  SendTo(action.agent, message);
}

void Coordinator::State::Do(const ServeEpoch& action) {
  std::vector<std::unique_ptr<StepLink>> links;
  for (int rank = 0; rank < WorldOf(options_.configuration); ++rank) {
    std::unique_ptr<StepLink> link = links_.Take(action.epoch, rank);
    if (link == nullptr) {
      // The agent lost its session since; the membership is about to hear of it.
      membership_.StepFailed(action.epoch,
                             absl::UnavailableError(absl::StrCat("rank ", rank, " has no ring")),
                             SteadyNow());
      return;
    }
    links.push_back(std::move(link));
  }
  engine_.GroupReady(std::make_unique<Executor>(
      action.epoch, std::move(links),
      absl::Milliseconds(options_.configuration.step_timeout_milliseconds())));
  LogInfo("epoch_serving", {{"epoch", action.epoch}, {"ranks", WorldOf(options_.configuration)}});
}

void Coordinator::State::Do(const StopServing& action) {
  engine_.GroupLost(action.epoch, action.status);
}

void Coordinator::State::Do(const GiveUpGroup& action) {
  LogError("group_failed", {{"reason", action.status.message()}});
}

// After every turn: what other threads may know of it.
void Coordinator::State::Publish() {
  const bool serving = membership_.serving();
  std::function<void(bool)> callback;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    group_ = membership_.status();
    awaited_ = membership_.Awaited();
    failure_ = membership_.failure();
    if (std::exchange(told_serving_, serving) != serving) callback = on_serving_change_;
    changed_.notify_all();
  }
  if (callback) callback(serving);
}

Coordinator::Coordinator(std::unique_ptr<State> state) : state_(std::move(state)) {}
Coordinator::~Coordinator() = default;

absl::StatusOr<std::unique_ptr<Coordinator>> Coordinator::Start(CoordinatorOptions options) {
  RETURN_IF_ERROR(CheckConfiguration(options));
  std::unique_ptr<Coordinator> coordinator(
      new Coordinator(std::make_unique<State>(std::move(options))));
  RETURN_IF_ERROR(coordinator->state_->Start());
  return coordinator;
}

Engine& Coordinator::engine() { return state_->engine(); }
GroupStatus Coordinator::group() const { return state_->group(); }
void Coordinator::OnServingChange(std::function<void(bool serving)> callback) {
  state_->OnServingChange(std::move(callback));
}
absl::Status Coordinator::WaitUntilServing(absl::Time deadline) {
  return state_->WaitUntilServing(deadline);
}
absl::Status Coordinator::failure() const { return state_->failure(); }
void Coordinator::Shutdown() { state_->Shutdown(); }

}  // namespace cohort
