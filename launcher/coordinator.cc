#include "launcher/coordinator.h"

#include <poll.h>

#include <algorithm>
#include <mutex>
#include <thread>
#include <utility>

#include "absl/time/clock.h"
#include "launcher/control_socket.h"
#include "launcher/group_board.h"
#include "launcher/local_links.h"
#include "launcher/log.h"
#include "launcher/membership.h"
#include "launcher/node_agent.h"
#include "launcher/remote_step_link.h"
#include "launcher/task_queue.h"

namespace cohort {
namespace {

// Beyond the ranks' own grace: for the last messages of a session.
constexpr absl::Duration kSessionGrace = absl::Seconds(1);
// For a group that is told to exit to say that it has.
constexpr absl::Duration kAgentGrace = absl::Seconds(3);
// How often it is said again that agents are awaited.
constexpr absl::Duration kReminderPeriod = absl::Seconds(10);

int WorldOf(const v1::RankConfiguration& configuration) {
  return static_cast<int>(configuration.tensor_parallel() * configuration.data_parallel());
}

absl::Status CheckConfiguration(const CoordinatorOptions& options) {
  const v1::RankConfiguration& configuration = options.configuration;
  // Room for the message's own fields and for the epoch's.
  constexpr size_t kMaxConfigurationBytes = kMaxControlBytes - 1024;
  if (configuration.tensor_parallel() < 1 || configuration.data_parallel() < 1) {
    return absl::InvalidArgumentError(
        absl::StrCat("tensor and data parallelism of ", configuration.tensor_parallel(), " and ",
                     configuration.data_parallel(), ": both must be at least 1"));
  }
  if (options.agents < 1 || options.agents > WorldOf(configuration) ||
      (options.agents > 1) != options.cluster_listen.has_value()) {
    return absl::InvalidArgumentError(absl::StrCat(
        options.agents, " agents for ", WorldOf(configuration),
        " ranks: every agent needs a rank, and those beside the local one an address to join at"));
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
  membership.agents = options.agents;
  membership.data_parallel = static_cast<int>(options.configuration.data_parallel());
  membership.exchanges_experts = options.configuration.exchanges_experts();
  membership.on_gpus = options.configuration.device() == "cuda";
  membership.agents_deadline = SteadyNow() + options.agents_timeout;
  membership.load_timeout = options.load_timeout;
  membership.load_stall_timeout = options.load_stall_timeout;
  membership.join_epoch_timeout = options.join_epoch_timeout;
  membership.leave_epoch_timeout = options.leave_epoch_timeout;
  return membership;
}

AgentRosterOptions MakeRosterOptions(const CoordinatorOptions& options) {
  AgentRosterOptions roster;
  roster.local = options.local_heartbeat;
  roster.nodes = options.node_heartbeat;
  roster.model = options.configuration.model();
  roster.dummy_weights = options.configuration.dummy_weights();
  roster.checkpoint = options.checkpoint;
  return roster;
}

v1::CoordinatorMessage ShutdownMessage() {
  v1::CoordinatorMessage message;
  message.mutable_shutdown()->set_reason("the server is shutting down");
  return message;
}

}  // namespace

// What its thread alone touches is said so; the rest is safe by itself. The clock of membership and
// roster is SteadyNow.
class Coordinator::State {
 public:
  explicit State(CoordinatorOptions options);
  ~State();

  absl::Status Start();
  Engine& engine() { return engine_; }
  GroupBoard& board() { return board_; }
  const std::optional<HostPort>& cluster_address() const { return server_->address(); }
  void Shutdown();

 private:
  using SessionPointer = std::shared_ptr<AgentSession>;

  AgentSession::Handler MakeSessionHandler();
  AgentRoster::Group MakeRosterGroup();
  NodeAgentOptions MakeLocalAgentOptions() const;

  void Run();
  void Turn();
  void HandleMessage(const SessionPointer& session, const v1::AgentMessage& message);
  void RemindOfAgents(absl::Time now);

  void Act();
  void Do(const AssignRanks& action);
  void Do(const StartEpoch& action);
  void Do(const SharePeers& action);
  void Do(const EndEpoch& action);
  void Do(const KillRankProcess& action);
  void Do(const ServeEpoch& action);
  void Do(const StopServing& action);
  void Do(const GiveUpGroup& action);
  absl::StatusOr<std::unique_ptr<StepLink>> LinkTo(const RankStatus& rank, uint64_t epoch);

  const CoordinatorOptions options_;
  // Shared with the handlers of sessions that gRPC is not done with, and with the engine's
  // callback.
  const std::shared_ptr<TaskQueue> tasks_ = std::make_shared<TaskQueue>();
  LocalLinks local_links_;
  const std::shared_ptr<RemoteLinks> remote_links_ = std::make_shared<RemoteLinks>();
  Engine engine_;

  // Of the thread.
  Membership membership_;
  AgentRoster roster_;
  std::string reminder_;  // the last one
  absl::Time remind_at_ = SteadyNow();
  bool shutting_down_ = false;
  bool stopping_ = false;

  GroupBoard board_;

  std::mutex shutdown_mutex_;  // one Shutdown at a time
  bool is_shut_down_ = false;

  std::thread thread_;
  std::unique_ptr<ClusterServer> server_;
  std::unique_ptr<NodeAgent> local_agent_;  // last: its ranks go first
};

Coordinator::State::State(CoordinatorOptions options)
    : options_(std::move(options)),
      engine_(
          options_.scheduler,
          [this, tasks = tasks_](uint64_t epoch, absl::Status status) {
            tasks->Post([this, epoch, status = std::move(status)] {
              membership_.StepFailed(epoch, status, SteadyNow());
            });
          },
          static_cast<int>(options_.configuration.data_parallel())),
      membership_(MakeMembershipOptions(options_)),
      roster_(MakeRosterOptions(options_), MakeRosterGroup()),
      board_(membership_.status()) {}

Coordinator::State::~State() { Shutdown(); }

AgentSession::Handler Coordinator::State::MakeSessionHandler() {
  AgentSession::Handler handler;
  handler.on_message = [this, tasks = tasks_, links = remote_links_](SessionPointer session,
                                                                     v1::AgentMessage message) {
    if (message.has_outcome()) {  // straight to the engine's thread, which waits for it
      links->Deliver(session, std::move(*message.mutable_outcome()));
      return;
    }
    tasks->Post([this, session = std::move(session), message = std::move(message)] {
      HandleMessage(session, message);
    });
  };
  handler.on_end = [this, tasks = tasks_](SessionPointer session) {
    tasks->Post([this, session = std::move(session)] { roster_.SessionEnded(session); });
  };
  return handler;
}

AgentRoster::Group Coordinator::State::MakeRosterGroup() {
  AgentRoster::Group group;
  group.has_room = [this](bool local) { return membership_.HasRoom(local); };
  group.joined = [this](const AgentDescription& agent) {
    membership_.AgentJoined(agent, SteadyNow());
  };
  group.lost = [this](const std::string& agent, const std::string& reason) {
    membership_.AgentLost(agent, reason, SteadyNow());
  };
  return group;
}

NodeAgentOptions Coordinator::State::MakeLocalAgentOptions() const {
  NodeAgentOptions agent;
  agent.name = options_.local_agent;
  agent.coordinator = server_->target();
  agent.token = server_->token();
  if (options_.cluster_listen.has_value()) agent.address = options_.cluster_listen->address.host;
  agent.rank_executable = options_.rank_executable;
  agent.heartbeat = options_.local_heartbeat;
  agent.exit_grace = options_.exit_grace;
  return agent;
}

absl::Status Coordinator::State::Start() {
  ASSIGN_OR_RETURN(server_, ClusterServer::Start(options_.cluster_listen, MakeSessionHandler()));
  thread_ = std::thread([this] { Run(); });
  NodeAgentOptions agent = MakeLocalAgentOptions();
  agent.links = &local_links_;
  local_agent_ = NodeAgent::Start(std::move(agent));
  return absl::OkStatus();
}

// ---- Called from any thread ----

void Coordinator::State::Shutdown() {
  const std::lock_guard<std::mutex> lock(shutdown_mutex_);
  if (std::exchange(is_shut_down_, true)) return;
  engine_.Drain(absl::Now());  // ends what is left
  if (local_agent_ != nullptr) {
    tasks_->Post([this] {
      shutting_down_ = true;
      membership_.Drain(SteadyNow());
      Act();
      roster_.Close(ShutdownMessage());
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
  const absl::Time deadline = std::min(roster_.next_deadline(), membership_.next_deadline());
  pollfd watched = {tasks_->fd(), POLLIN, 0};
  poll(&watched, 1, PollTimeout(deadline, SteadyNow()));
  tasks_->Run();
  const absl::Time now = SteadyNow();
  roster_.Tick(now);
  membership_.Tick(now);
  Act();
  RemindOfAgents(now);
  board_.Publish(membership_.status(), membership_.failure());
}

void Coordinator::State::HandleMessage(const SessionPointer& session,
                                       const v1::AgentMessage& message) {
  const absl::Time now = SteadyNow();
  if (!roster_.Handle(session, message, now)) return;
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
    case v1::AgentMessage::kListeners:
      membership_.EpochListening(message.listeners(), now);
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
    default:  // dealt with elsewhere
      break;
  }
}

// Whoever watches the log sees what is missing, and how to supply it.
void Coordinator::State::RemindOfAgents(absl::Time now) {
  if (membership_.HasRoom(/*local=*/true)) return;  // that one is on its way
  const std::string awaited = membership_.AwaitedAgents();
  const bool said = awaited == reminder_ && now < remind_at_;
  if (awaited.empty()) reminder_.clear();
  if (awaited.empty() || said || shutting_down_ || !server_->address().has_value()) return;
  reminder_ = awaited;
  remind_at_ = now + kReminderPeriod;
  LogInfo("waiting_for_agents",
          {{"awaited", awaited},
           {"run", absl::StrCat("cohort node --join ", server_->address()->ToString())}});
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
  roster_.Send(action.agent, message);
}

void Coordinator::State::Do(const StartEpoch& action) {
  v1::CoordinatorMessage message;
  *message.mutable_begin_epoch() = action.begin;
  roster_.SendToAll(message);
}

void Coordinator::State::Do(const SharePeers& action) {
  v1::CoordinatorMessage message;
  *message.mutable_epoch_peers() = action.peers;
  roster_.SendToAll(message);
}

void Coordinator::State::Do(const EndEpoch& action) {
  remote_links_->DropUntil(action.epoch);
  (shutting_down_ ? LogInfo : LogWarning)("epoch_ended",
                                          {{"epoch", action.epoch}, {"reason", action.reason}});
  v1::CoordinatorMessage message;
  message.mutable_abort_epoch()->set_epoch(action.epoch);
  message.mutable_abort_epoch()->set_reason(action.reason);
  roster_.SendToAll(message);
}

void Coordinator::State::Do(const KillRankProcess& action) {
  LogWarning("rank_condemned", {{"rank", action.kill.rank()}, {"reason", action.kill.reason()}});
  v1::CoordinatorMessage message;
  *message.mutable_kill_rank() = action.kill;
  roster_.Send(action.agent, message);
}

void Coordinator::State::Do(const ServeEpoch& action) {
  std::vector<std::unique_ptr<StepLink>> links;
  for (const RankStatus& rank : membership_.status().ranks) {
    absl::StatusOr<std::unique_ptr<StepLink>> link = LinkTo(rank, action.epoch);
    if (!link.ok()) {
      membership_.StepFailed(action.epoch, link.status(), SteadyNow());
      return;
    }
    links.push_back(*std::move(link));
  }
  engine_.GroupReady(std::make_unique<Executor>(
      action.epoch, std::move(links),
      absl::Milliseconds(options_.configuration.step_timeout_milliseconds()),
      static_cast<int>(options_.configuration.data_parallel())));
  LogInfo("epoch_serving", {{"epoch", action.epoch}, {"ranks", WorldOf(options_.configuration)}});
}

// UNAVAILABLE when its agent lost its session since; the membership is about to hear of it.
absl::StatusOr<std::unique_ptr<StepLink>> Coordinator::State::LinkTo(const RankStatus& rank,
                                                                     uint64_t epoch) {
  if (rank.agent == options_.local_agent) {
    std::unique_ptr<StepLink> link = local_links_.Take(epoch, rank.rank);
    if (link != nullptr) return link;
    return absl::UnavailableError(absl::StrCat("rank ", rank.rank, " has no ring"));
  }
  SessionPointer session = roster_.SessionOf(rank.agent);
  if (session == nullptr) {
    return absl::UnavailableError(
        absl::StrCat("rank ", rank.rank, ": its agent '", rank.agent, "' has no session"));
  }
  return remote_links_->Make(
      absl::StrCat("rank ", rank.rank, " (pid ", rank.process_id, " on agent '", rank.agent, "')"),
      epoch, rank.rank, std::move(session));
}

void Coordinator::State::Do(const StopServing& action) {
  engine_.GroupLost(action.epoch, action.status);
}

void Coordinator::State::Do(const GiveUpGroup& action) {
  LogError("group_failed", {{"reason", action.status.message()}});
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
GroupStatus Coordinator::group() const { return state_->board().group(); }
const std::optional<HostPort>& Coordinator::cluster_address() const {
  return state_->cluster_address();
}
void Coordinator::OnServingChange(std::function<void(bool serving)> callback) {
  state_->board().OnServingChange(std::move(callback));
}
absl::Status Coordinator::WaitUntilServing(absl::Time deadline) {
  return state_->board().WaitUntilServing(deadline);
}
absl::Status Coordinator::failure() const { return state_->board().failure(); }
void Coordinator::Shutdown() { state_->Shutdown(); }

}  // namespace cohort
