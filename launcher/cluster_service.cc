#include "launcher/cluster_service.h"

#include <grpcpp/security/server_credentials.h>
#include <grpcpp/server_builder.h>
#include <unistd.h>

#include <random>
#include <utility>

#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "launcher/cluster_stream.h"
#include "launcher/network_address.h"
#include "launcher/reflection_option.h"

namespace cohort {
namespace {

// The results of a step with many log-probabilities, a checkpoint's report.
constexpr int kMaxReceiveBytes = 64 << 20;

std::string RandomHex(int words) {
  std::random_device random;
  std::string hex;
  for (int i = 0; i < words; ++i) absl::StrAppendFormat(&hex, "%08x", random());
  return hex;
}

// Takes as long for a good guess as for a bad one.
bool SameToken(StringView given, StringView expected) {
  if (given.size() != expected.size()) return false;
  unsigned difference = 0;
  for (size_t i = 0; i < given.size(); ++i) {
    difference |= static_cast<unsigned char>(given[i]) ^ static_cast<unsigned char>(expected[i]);
  }
  return difference == 0;
}

StringView TokenOf(const grpc::CallbackServerContext& call) {
  const auto& metadata = call.client_metadata();
  const auto found = metadata.find(kClusterTokenKey);
  return found == metadata.end() ? StringView()
                                 : StringView(found->second.data(), found->second.size());
}

class RefusedSession final
    : public grpc::ServerBidiReactor<v1::AgentMessage, v1::CoordinatorMessage> {
 public:
  RefusedSession() {
    Finish(grpc::Status(
        grpc::StatusCode::UNAUTHENTICATED,
        "the join token is missing or is not the coordinator's: give the same --join-token, "
        "--join-token-file or COHORT_JOIN_TOKEN on both sides"));
  }
  void OnDone() override { delete this; }
};

}  // namespace

AgentSession* AgentSession::Open(const Handler& handler, bool is_local, std::string peer) {
  auto session = std::make_shared<AgentSession>(handler, is_local, std::move(peer));
  session->self_ = session;
  session->StartRead(&session->incoming_);
  return session.get();
}

void AgentSession::Send(v1::CoordinatorMessage message) {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (ending_) return;
  outbox_.push_back(std::move(message));
  WriteNext();
}

void AgentSession::End(const absl::Status& status) {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (ending_) return;
  ending_ = true;
  status_ =
      grpc::Status(static_cast<grpc::StatusCode>(status.code()), std::string(status.message()));
  WriteNext();
}

void AgentSession::WriteNext() {
  if (writing_ || finished_) return;
  if (!outbox_.empty()) {
    writing_ = true;
    StartWrite(&outbox_.front());
  } else if (ending_) {
    finished_ = true;
    Finish(status_);
  }
}

void AgentSession::OnWriteDone(bool ok) {
  const std::lock_guard<std::mutex> lock(mutex_);
  writing_ = false;
  outbox_.pop_front();
  if (!ok) outbox_.clear();  // the agent is gone; OnReadDone ends the call
  WriteNext();
}

void AgentSession::OnReadDone(bool ok) {
  if (!ok) {
    End(absl::OkStatus());
    return;
  }
  handler_.on_message(shared_from_this(), std::move(incoming_));
  incoming_.Clear();
  StartRead(&incoming_);
}

void AgentSession::OnDone() {
  const std::shared_ptr<AgentSession> self = std::move(self_);
  handler_.on_end(self);
}

grpc::ServerBidiReactor<v1::AgentMessage, v1::CoordinatorMessage>* ClusterService::Session(
    grpc::CallbackServerContext* call) {
  const StringView token = TokenOf(*call);
  const bool is_local = SameToken(token, token_);
  if (!is_local && !AdmitsNode(token)) return new RefusedSession();
  return AgentSession::Open(handler_, is_local, call->peer());
}

bool ClusterService::AdmitsNode(StringView token) const {
  return nodes_.has_value() && (nodes_->join_token.empty() || SameToken(token, nodes_->join_token));
}

absl::StatusOr<std::unique_ptr<ClusterServer>> ClusterServer::Start(
    const std::optional<ClusterListenOptions>& nodes, AgentSession::Handler handler) {
  std::string target = absl::StrCat("unix-abstract:cohort-cluster-", getpid(), "-", RandomHex(2));
  std::unique_ptr<ClusterServer> server(
      new ClusterServer(std::move(target), RandomHex(8), nodes, std::move(handler)));
  grpc::ServerBuilder builder;
  builder.SetMaxReceiveMessageSize(kMaxReceiveBytes);
  // Another server on the port is an error, not a partner.
  builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
  // What a node that is cut off leaves behind goes away.
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIME_MS, 10'000);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, 5'000);
  SetReflection(builder, false);
  int bound = 0;
  int port = -1;
  builder.AddListeningPort(server->target_, grpc::InsecureServerCredentials(), &bound);
  if (nodes.has_value()) {
    builder.AddListeningPort(nodes->address.ToString(), grpc::InsecureServerCredentials(), &port);
  }
  builder.RegisterService(&server->service_);
  server->server_ = builder.BuildAndStart();
  if (nodes.has_value() && (server->server_ == nullptr || port == 0)) {
    return CannotListen("--cluster-listen", nodes->address,
                        "the address is taken or not of this machine");
  }
  if (server->server_ == nullptr || bound == 0) {
    return absl::UnavailableError(
        absl::StrCat("the cluster listener cannot be opened on ", server->target_));
  }
  if (nodes.has_value()) server->address_ = HostPort{nodes->address.host, port};
  return server;
}

ClusterServer::~ClusterServer() { Shutdown(absl::Now()); }

void ClusterServer::Shutdown(absl::Time deadline) {
  if (server_ == nullptr) return;
  server_->Shutdown(absl::ToChronoTime(deadline));
  server_->Wait();
  server_.reset();
}

}  // namespace cohort
