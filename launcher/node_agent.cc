#include "launcher/node_agent.h"

#include <grpcpp/create_channel.h>
#include <grpcpp/security/credentials.h>
#include <poll.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <limits>
#include <mutex>
#include <optional>
#include <random>
#include <thread>
#include <utility>
#include <vector>

#include "launcher/allowed_cores.h"
#include "launcher/checkpoint_report.h"
#include "launcher/cluster_stream.h"
#include "launcher/log.h"
#include "launcher/rank_supervisor.h"
#include "launcher/step_relay.h"
#include "launcher/task_queue.h"
#include "launcher/version.h"

namespace cohort {
namespace {

constexpr absl::Duration kFirstRejoinDelay = absl::Milliseconds(100);
constexpr absl::Duration kLastRejoinDelay = absl::Seconds(2);
// For the coordinator to end a session that the agent has ended.
constexpr absl::Duration kFinishGrace = absl::Seconds(1);

std::shared_ptr<grpc::Channel> MakeChannel(const std::string& target) {
  grpc::ChannelArguments arguments;
  arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 100);
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 1000);
  arguments.SetMaxReceiveMessageSize(-1);  // the coordinator is ours, and plans are large
  return grpc::CreateCustomChannel(target, grpc::InsecureChannelCredentials(), arguments);
}

uint64_t RandomNumber() {
  return (uint64_t{std::random_device()()} << 32) | std::random_device()();
}

// Whether the same join would be refused again.
bool IsFinal(const absl::Status& refusal) {
  return absl::IsUnauthenticated(refusal) || absl::IsFailedPrecondition(refusal) ||
         absl::IsUnimplemented(refusal);
}

}  // namespace

// What is guarded by mutex_ or atomic may be used by any thread, the rest belongs to its own.
class NodeAgent::State {
 public:
  explicit State(NodeAgentOptions options);
  ~State();

  void Stop(const std::string& reason);
  bool WaitUntilDone(absl::Duration timeout);
  absl::Status failure() const;

 private:
  bool is_local() const { return options_.links != nullptr; }
  void Run();
  void EndStreams();
  bool Turn();
  void Tick(absl::Time now);
  void Join();
  ClusterStream::Handler MakeHandler(std::shared_ptr<grpc::Channel> channel);
  v1::AgentMessage MakeJoin() const;
  void HandleMessage(const v1::CoordinatorMessage& message);
  void HandleWelcome(const v1::Welcome& welcome);
  void HandleAssignment(v1::Assignment assignment);
  void BeginShutdown(const std::string& reason);
  void LoseSession(const absl::Status& status);
  void GiveUp(const absl::Status& status);
  void SendHeartbeat();
  void Report(v1::AgentMessage message);
  absl::Time NextDeadline() const;
  void MarkDone();

  const NodeAgentOptions options_;
  const uint64_t incarnation_ = RandomNumber();
  // Two owners: this, and a handler of a stream that has just posted its end.
  const std::shared_ptr<TaskQueue> tasks_ = std::make_shared<TaskQueue>();
  // On another node than the coordinator's. Its threads report to the present stream.
  std::unique_ptr<StepRelay> relay_;
  RankLinks& links_;
  RankSupervisor ranks_;
  std::optional<CheckpointDigestTask> digest_;

  std::mutex stream_mutex_;                // of the pointer, which only the agent's thread sets
  std::shared_ptr<ClusterStream> stream_;  // null between sessions
  std::atomic<uint64_t> session_{0};       // counts sessions; what comes of older ones is dropped
  int open_streams_ = 0;                   // gRPC is not done with
  bool admitted_ = false;                  // to the group, in this session
  HeartbeatOptions heartbeat_;
  absl::Time join_at_ = SteadyNow();
  absl::Time give_up_at_;
  absl::Duration rejoin_delay_ = kFirstRejoinDelay;
  std::string last_loss_;  // of a session
  absl::Time heard_;       // of the coordinator
  absl::Time next_heartbeat_;
  absl::Time last_tick_ = SteadyNow();
  uint64_t heartbeats_ = 0;
  bool shutting_down_ = false;
  bool stopping_ = false;

  mutable std::mutex mutex_;
  std::condition_variable changed_;
  bool done_ = false;     // guarded by mutex_
  absl::Status failure_;  // guarded by mutex_

  std::thread thread_;  // last
};

NodeAgent::State::State(NodeAgentOptions options)
    : options_(std::move(options)),
      relay_(is_local() ? nullptr : std::make_unique<StepRelay>([this](v1::AgentMessage message) {
        Report(std::move(message));
      })),
      links_(is_local() ? *options_.links : *relay_),
      ranks_({.agent = options_.name,
              .address = options_.address,
              .rank_executable = options_.rank_executable,
              .links = &links_},
             [this](v1::AgentMessage message) { Report(std::move(message)); }),
      heartbeat_(options_.heartbeat),
      give_up_at_(SteadyNow() + options_.join_timeout),
      thread_([this] { Run(); }) {}

NodeAgent::State::~State() {
  tasks_->Post([this] { stopping_ = true; });
  thread_.join();
}

void NodeAgent::State::Stop(const std::string& reason) {
  tasks_->Post([this, reason] {
    v1::AgentMessage message;
    message.mutable_leave()->set_reason(reason);
    Report(std::move(message));
    BeginShutdown(reason);
  });
}

bool NodeAgent::State::WaitUntilDone(absl::Duration timeout) {
  std::unique_lock<std::mutex> lock(mutex_);
  return changed_.wait_for(lock, absl::ToChronoNanoseconds(timeout), [this] { return done_; });
}

absl::Status NodeAgent::State::failure() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return failure_;
}

void NodeAgent::State::MarkDone() {
  const std::lock_guard<std::mutex> lock(mutex_);
  done_ = true;
  changed_.notify_all();
}

// The ranks are started by this thread and die with it, should it ever end before them.
void NodeAgent::State::Run() {
  while (Turn()) {
  }
  digest_.reset();
  ranks_.KillAll();
  MarkDone();
  EndStreams();
  links_.DropUntil(std::numeric_limits<uint64_t>::max() - 1);
}

// gRPC must be done with every stream before this object goes.
void NodeAgent::State::EndStreams() {
  std::shared_ptr<ClusterStream> stream;
  {
    const std::lock_guard<std::mutex> lock(stream_mutex_);
    stream = std::exchange(stream_, nullptr);
  }
  if (stream != nullptr) stream->Finish();
  const absl::Time cancel_at = SteadyNow() + (shutting_down_ ? kFinishGrace : absl::ZeroDuration());
  while (open_streams_ > 0) {
    if (stream != nullptr && SteadyNow() >= cancel_at) {
      stream->Cancel();
      stream = nullptr;
    }
    pollfd watched = {tasks_->fd(), POLLIN, 0};
    poll(&watched, 1,
         PollTimeout(stream == nullptr ? absl::InfiniteFuture() : cancel_at, SteadyNow()));
    tasks_->Run();
  }
}

bool NodeAgent::State::Turn() {
  std::vector<pollfd> watched = {{tasks_->fd(), POLLIN, 0}};
  ranks_.AppendWatched(watched);
  poll(watched.data(), watched.size(), PollTimeout(NextDeadline(), SteadyNow()));
  tasks_->Run();
  ranks_.Handle();
  Tick(SteadyNow());
  return !stopping_ && !(shutting_down_ && ranks_.empty());
}

absl::Time NodeAgent::State::NextDeadline() const {
  absl::Time next = ranks_.next_deadline();
  if (stream_ != nullptr) next = std::min({next, next_heartbeat_, heard_ + heartbeat_.timeout});
  if (shutting_down_) return next;
  if (stream_ == nullptr) next = std::min(next, join_at_);
  return std::min(next, give_up_at_);
}

void NodeAgent::State::Tick(absl::Time now) {
  // A stopped process or a paused machine: the silence was our own.
  if (now - last_tick_ > heartbeat_.timeout / 2) heard_ = now;
  last_tick_ = now;
  if (!shutting_down_ && now >= give_up_at_) {
    GiveUp(absl::DeadlineExceededError(
        absl::StrCat("not in the group of ", options_.coordinator, " within ",
                     absl::FormatDuration(options_.join_timeout),
                     last_loss_.empty() ? "" : "; the last time: ", last_loss_)));
    return;
  }
  if (stream_ == nullptr) {
    if (!shutting_down_ && now >= join_at_) Join();
    return;
  }
  if (now - heard_ >= heartbeat_.timeout) {
    LoseSession(absl::DeadlineExceededError(
        absl::StrCat("the coordinator was silent for ", absl::FormatDuration(heartbeat_.timeout))));
  } else if (now >= next_heartbeat_) {
    SendHeartbeat();
    next_heartbeat_ = now + heartbeat_.period;
  }
}

// ---- Sessions ----

// Every session has a channel of its own: what a cut leaves of the last one is not used again.
void NodeAgent::State::Join() {
  ++session_;
  admitted_ = false;
  heard_ = SteadyNow();
  next_heartbeat_ = heard_ + heartbeat_.period;
  ++open_streams_;
  const std::shared_ptr<grpc::Channel> channel = MakeChannel(options_.coordinator);
  std::shared_ptr<ClusterStream> stream =
      ClusterStream::Open(channel, options_.token, MakeHandler(channel));
  {
    const std::lock_guard<std::mutex> lock(stream_mutex_);
    stream_ = std::move(stream);
  }
  Report(MakeJoin());
}

// What it posts is run by the agent's thread, which does not end before on_end.
ClusterStream::Handler NodeAgent::State::MakeHandler(std::shared_ptr<grpc::Channel> channel) {
  const auto is_present = [this, session = session_.load()] { return session == session_.load(); };
  ClusterStream::Handler handler;
  handler.on_message = [this, tasks = tasks_, is_present](v1::CoordinatorMessage message) {
    if (message.has_plan() && relay_ != nullptr) {  // straight to the rank's ring
      if (is_present()) relay_->Deliver(std::move(*message.mutable_plan()));
      return;
    }
    tasks->Post([this, is_present, message = std::move(message)] {
      if (is_present() && stream_ != nullptr) HandleMessage(message);
    });
  };
  // The channel goes with the task, on the agent's thread.
  handler.on_end = [this, tasks = tasks_, is_present,
                    channel = std::move(channel)](absl::Status status) mutable {
    tasks->Post([this, is_present, status = std::move(status), channel = std::move(channel)] {
      --open_streams_;
      if (is_present() && stream_ != nullptr) LoseSession(status);
    });
  };
  return handler;
}

v1::AgentMessage NodeAgent::State::MakeJoin() const {
  v1::AgentMessage message;
  v1::Join& join = *message.mutable_join();
  join.set_agent(options_.name);
  join.set_incarnation(incarnation_);
  join.set_cores(static_cast<uint32_t>(AllowedCores()));
  join.set_version(kVersion);
  join.set_address(options_.address);
  return message;
}

void NodeAgent::State::LoseSession(const absl::Status& status) {
  LogWarning("session_lost", {{"agent", options_.name}, {"reason", status.message()}});
  stream_->Cancel();
  {
    const std::lock_guard<std::mutex> lock(stream_mutex_);
    stream_ = nullptr;
  }
  digest_.reset();
  ranks_.KillAll();
  links_.DropUntil(std::numeric_limits<uint64_t>::max() - 1);
  if (!is_local() && IsFinal(status)) {
    GiveUp(status);
    return;
  }
  last_loss_ = std::string(status.message());
  if (std::exchange(admitted_, false)) give_up_at_ = SteadyNow() + options_.join_timeout;
  std::minstd_rand random(std::random_device{}());
  const double jitter = std::uniform_real_distribution<double>(0.5, 1.0)(random);
  join_at_ = SteadyNow() + rejoin_delay_ * jitter;
  rejoin_delay_ = std::min(rejoin_delay_ * 2, kLastRejoinDelay);
}

void NodeAgent::State::GiveUp(const absl::Status& status) {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    failure_ = status;
  }
  BeginShutdown(std::string(status.message()));
}

void NodeAgent::State::HandleMessage(const v1::CoordinatorMessage& message) {
  heard_ = SteadyNow();
  switch (message.message_case()) {
    case v1::CoordinatorMessage::kWelcome:
      HandleWelcome(message.welcome());
      break;
    case v1::CoordinatorMessage::kAdmitted:
      admitted_ = true;
      give_up_at_ = absl::InfiniteFuture();
      rejoin_delay_ = kFirstRejoinDelay;
      if (!is_local()) LogInfo("admitted", {{"agent", options_.name}});
      break;
    case v1::CoordinatorMessage::kAssignment:
      HandleAssignment(message.assignment());
      break;
    case v1::CoordinatorMessage::kBeginEpoch:
      ranks_.BeginEpoch(message.begin_epoch());
      break;
    case v1::CoordinatorMessage::kEpochPeers:
      ranks_.SharePeers(message.epoch_peers());
      break;
    case v1::CoordinatorMessage::kAbortEpoch:
      ranks_.AbortEpoch(message.abort_epoch());
      break;
    case v1::CoordinatorMessage::kKillRank:
      ranks_.Kill(message.kill_rank());
      break;
    case v1::CoordinatorMessage::kShutdown:
      if (is_local()) {
        BeginShutdown(message.shutdown().reason());
      } else {
        LoseSession(absl::UnavailableError(message.shutdown().reason()));
      }
      break;
    case v1::CoordinatorMessage::kPlan:  // never comes here
    case v1::CoordinatorMessage::kHeartbeat:
    case v1::CoordinatorMessage::MESSAGE_NOT_SET:
      break;
  }
}

void NodeAgent::State::HandleWelcome(const v1::Welcome& welcome) {
  heartbeat_.period = absl::Milliseconds(welcome.heartbeat_period_milliseconds());
  heartbeat_.timeout = absl::Milliseconds(welcome.heartbeat_timeout_milliseconds());
  next_heartbeat_ = SteadyNow();
  const std::string model = options_.model.empty() ? welcome.model() : options_.model;
  LogInfo("comparing_checkpoint", {{"agent", options_.name}, {"path", model}});
  digest_.emplace(model, !welcome.dummy_weights(),
                  [this, session = session_.load()](v1::CheckpointReport report) {
                    tasks_->Post([this, session, report = std::move(report)] {
                      if (session != session_.load()) return;
                      v1::AgentMessage message;
                      *message.mutable_checkpoint() = report;
                      Report(std::move(message));
                    });
                  });
}

void NodeAgent::State::HandleAssignment(v1::Assignment assignment) {
  if (!options_.model.empty()) assignment.mutable_configuration()->set_model(options_.model);
  ranks_.Assign(assignment);
}

void NodeAgent::State::BeginShutdown(const std::string& reason) {
  if (shutting_down_) return;
  shutting_down_ = true;
  ranks_.BeginShutdown(reason, SteadyNow() + options_.exit_grace);
}

void NodeAgent::State::SendHeartbeat() {
  v1::AgentMessage message;
  v1::Heartbeat& heartbeat = *message.mutable_heartbeat();
  heartbeat.set_sequence(++heartbeats_);
  for (v1::RankProgress& progress : ranks_.progress()) *heartbeat.add_ranks() = std::move(progress);
  Report(std::move(message));
}

void NodeAgent::State::Report(v1::AgentMessage message) {
  const std::lock_guard<std::mutex> lock(stream_mutex_);
  if (stream_ != nullptr) stream_->Send(std::move(message));
}

NodeAgent::NodeAgent(std::unique_ptr<State> state) : state_(std::move(state)) {}
NodeAgent::~NodeAgent() = default;

std::unique_ptr<NodeAgent> NodeAgent::Start(NodeAgentOptions options) {
  return std::unique_ptr<NodeAgent>(new NodeAgent(std::make_unique<State>(std::move(options))));
}

void NodeAgent::Stop(const std::string& reason) { state_->Stop(reason); }
absl::Status NodeAgent::failure() const { return state_->failure(); }
bool NodeAgent::WaitUntilDone(absl::Duration timeout) { return state_->WaitUntilDone(timeout); }

}  // namespace cohort
