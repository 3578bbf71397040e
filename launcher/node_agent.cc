#include "launcher/node_agent.h"

#include <grpcpp/create_channel.h>
#include <grpcpp/security/credentials.h>
#include <poll.h>

#include <algorithm>
#include <condition_variable>
#include <mutex>
#include <random>
#include <thread>
#include <utility>
#include <vector>

#include "launcher/cluster_stream.h"
#include "launcher/log.h"
#include "launcher/rank_supervisor.h"
#include "launcher/task_queue.h"
#include "launcher/version.h"

namespace cohort {
namespace {

constexpr absl::Duration kFirstRejoinDelay = absl::Milliseconds(100);
constexpr absl::Duration kLastRejoinDelay = absl::Seconds(5);
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

}  // namespace

// Everything but done_ belongs to the thread.
class NodeAgent::State {
 public:
  explicit State(NodeAgentOptions options);
  ~State();

  bool WaitUntilDone(absl::Duration timeout);

 private:
  void Run();
  void EndStreams();
  bool Turn();
  void Tick(absl::Time now);
  void Join();
  void HandleMessage(const v1::CoordinatorMessage& message);
  void BeginShutdown(const std::string& reason);
  void LoseSession(const absl::Status& status);
  void SendHeartbeat();
  void Report(v1::AgentMessage message);
  absl::Time NextDeadline() const;
  void MarkDone();

  const NodeAgentOptions options_;
  const std::shared_ptr<grpc::Channel> channel_;
  // Two owners: this, and a handler of a stream that has just posted its end.
  const std::shared_ptr<TaskQueue> tasks_ = std::make_shared<TaskQueue>();
  RankSupervisor ranks_;

  std::shared_ptr<ClusterStream> stream_;  // null between sessions
  uint64_t session_ = 0;                   // counts sessions; what comes of older ones is dropped
  int open_streams_ = 0;                   // gRPC is not done with
  absl::Time join_at_ = SteadyNow();
  absl::Duration rejoin_delay_ = kFirstRejoinDelay;
  absl::Time heard_;  // of the coordinator
  absl::Time next_heartbeat_;
  absl::Time last_tick_ = SteadyNow();
  uint64_t heartbeats_ = 0;
  bool shutting_down_ = false;
  bool stopping_ = false;

  std::mutex mutex_;
  std::condition_variable changed_;
  bool done_ = false;  // guarded by mutex_

  std::thread thread_;  // last
};

NodeAgent::State::State(NodeAgentOptions options)
    : options_(std::move(options)),
      channel_(MakeChannel(options_.coordinator)),
      ranks_({.agent = options_.name,
              .rank_executable = options_.rank_executable,
              .links = options_.links},
             [this](v1::AgentMessage message) { Report(std::move(message)); }),
      thread_([this] { Run(); }) {}

NodeAgent::State::~State() {
  tasks_->Post([this] { stopping_ = true; });
  thread_.join();
}

bool NodeAgent::State::WaitUntilDone(absl::Duration timeout) {
  std::unique_lock<std::mutex> lock(mutex_);
  return changed_.wait_for(lock, absl::ToChronoNanoseconds(timeout), [this] { return done_; });
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
  ranks_.KillAll();
  MarkDone();
  EndStreams();
}

// The channel may go once gRPC is done with every stream.
void NodeAgent::State::EndStreams() {
  std::shared_ptr<ClusterStream> stream = std::exchange(stream_, nullptr);
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
  const absl::Time session = stream_ != nullptr ? next_heartbeat_
                             : shutting_down_   ? absl::InfiniteFuture()
                                                : join_at_;
  return std::min(session, ranks_.next_deadline());
}

void NodeAgent::State::Tick(absl::Time now) {
  // A stopped process or a paused machine: the silence was our own.
  if (now - last_tick_ > options_.heartbeat_timeout / 2) heard_ = now;
  last_tick_ = now;
  if (stream_ == nullptr) {
    if (!shutting_down_ && now >= join_at_) Join();
    return;
  }
  if (now - heard_ > options_.heartbeat_timeout) {
    LoseSession(absl::DeadlineExceededError(absl::StrCat(
        "the coordinator was silent for ", absl::FormatDuration(options_.heartbeat_timeout))));
  } else if (now >= next_heartbeat_) {
    SendHeartbeat();
    next_heartbeat_ = now + options_.heartbeat_period;
  }
}

void NodeAgent::State::Join() {
  const uint64_t session = ++session_;
  const auto is_present = [this, session] { return session == session_ && stream_ != nullptr; };
  // Run by this thread, which does not end before on_end.
  ClusterStream::Handler handler;
  handler.on_message = [this, tasks = tasks_, is_present](v1::CoordinatorMessage message) {
    tasks->Post([this, is_present, message = std::move(message)] {
      if (is_present()) HandleMessage(message);
    });
  };
  handler.on_end = [this, tasks = tasks_, is_present](absl::Status status) {
    tasks->Post([this, is_present, status = std::move(status)] {
      --open_streams_;
      if (is_present()) LoseSession(status);
    });
  };
  heard_ = SteadyNow();
  next_heartbeat_ = heard_ + options_.heartbeat_period;
  ++open_streams_;
  stream_ = ClusterStream::Open(channel_, options_.token, std::move(handler));
  v1::AgentMessage message;
  v1::Join& join = *message.mutable_join();
  join.set_agent(options_.name);
  join.set_incarnation((uint64_t{std::random_device()()} << 32) | std::random_device()());
  join.set_slots(static_cast<uint32_t>(options_.slots));
  join.set_version(kVersion);
  Report(std::move(message));
}

void NodeAgent::State::LoseSession(const absl::Status& status) {
  LogWarning("session_lost", {{"agent", options_.name}, {"reason", status.message()}});
  stream_->Cancel();
  stream_ = nullptr;
  ranks_.KillAll();
  std::minstd_rand random(std::random_device{}());
  const double jitter = std::uniform_real_distribution<double>(0.5, 1.0)(random);
  join_at_ = SteadyNow() + rejoin_delay_ * jitter;
  rejoin_delay_ = std::min(rejoin_delay_ * 2, kLastRejoinDelay);
}

void NodeAgent::State::HandleMessage(const v1::CoordinatorMessage& message) {
  heard_ = SteadyNow();
  rejoin_delay_ = kFirstRejoinDelay;
  switch (message.message_case()) {
    case v1::CoordinatorMessage::kAssignment:
      ranks_.Assign(message.assignment());
      break;
    case v1::CoordinatorMessage::kBeginEpoch:
      ranks_.BeginEpoch(message.begin_epoch());
      break;
    case v1::CoordinatorMessage::kAbortEpoch:
      ranks_.AbortEpoch(message.abort_epoch());
      break;
    case v1::CoordinatorMessage::kKillRank:
      ranks_.Kill(message.kill_rank());
      break;
    case v1::CoordinatorMessage::kShutdown:
      BeginShutdown(message.shutdown().reason());
      break;
    case v1::CoordinatorMessage::kPlan:  // the coordinator writes to its own node's rings itself
    case v1::CoordinatorMessage::kHeartbeat:
    case v1::CoordinatorMessage::MESSAGE_NOT_SET:
      break;
  }
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
  if (stream_ != nullptr) stream_->Send(std::move(message));
}

NodeAgent::NodeAgent(std::unique_ptr<State> state) : state_(std::move(state)) {}
NodeAgent::~NodeAgent() = default;

std::unique_ptr<NodeAgent> NodeAgent::Start(NodeAgentOptions options) {
  return std::unique_ptr<NodeAgent>(new NodeAgent(std::make_unique<State>(std::move(options))));
}

bool NodeAgent::WaitUntilDone(absl::Duration timeout) { return state_->WaitUntilDone(timeout); }

}  // namespace cohort
