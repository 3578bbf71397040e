// cohort.v1.Cluster on listeners of its own, which only agents that know a token may use: for the
// agent of this process an abstract Unix socket, which lives in no folder and is gone with the
// process, however that ends; for those of other nodes, when asked for, a TCP address.
#ifndef COHORT_LAUNCHER_CLUSTER_SERVICE_H_
#define COHORT_LAUNCHER_CLUSTER_SERVICE_H_

#include <grpcpp/server.h>

#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>

#include "absl/time/time.h"
#include "cohort/v1/cluster.grpc.pb.h"
#include "kernels/status.h"
#include "launcher/flag_values.h"

namespace cohort {

// The coordinator's end of one agent's session. Owned by the coordinator and, until gRPC is done
// with the call, by itself.
class AgentSession final : public grpc::ServerBidiReactor<v1::AgentMessage, v1::CoordinatorMessage>,
                           public std::enable_shared_from_this<AgentSession> {
 public:
  // Called from gRPC's threads, `on_message` in order, then `on_end` once and last.
  struct Handler {
    std::function<void(std::shared_ptr<AgentSession>, v1::AgentMessage)> on_message;
    std::function<void(std::shared_ptr<AgentSession>)> on_end;
  };

  // `is_local`: it knows the token of this start.
  static AgentSession* Open(const Handler& handler, bool is_local, std::string peer);
  AgentSession(const Handler& handler, bool is_local, std::string peer)
      : is_local_(is_local), peer_(std::move(peer)), handler_(handler) {}

  bool is_local() const { return is_local_; }
  const std::string& peer() const { return peer_; }  // as gRPC writes it, "ipv4:10.0.0.2:40000"

  void Send(v1::CoordinatorMessage message);  // never blocks
  // Ends the call with `status` once what was sent before has left. Idempotent.
  void End(const absl::Status& status);

  void OnReadDone(bool ok) override;
  void OnWriteDone(bool ok) override;
  void OnDone() override;

 private:
  void WriteNext();  // with the mutex held

  const bool is_local_;
  const std::string peer_;
  const Handler handler_;
  v1::AgentMessage incoming_;
  std::shared_ptr<AgentSession> self_;  // until OnDone

  std::mutex mutex_;
  std::deque<v1::CoordinatorMessage> outbox_;  // the first is being written while writing_
  bool writing_ = false;
  bool ending_ = false;
  bool finished_ = false;
  grpc::Status status_;
};

// For agents of other nodes.
struct ClusterListenOptions {
  HostPort address;        // port 0 picks one
  std::string join_token;  // empty: none is needed
};

class ClusterService final : public v1::Cluster::CallbackService {
 public:
  // Without `nodes` only agents of this process are admitted.
  ClusterService(std::string token, std::optional<ClusterListenOptions> nodes,
                 AgentSession::Handler handler)
      : token_(std::move(token)), nodes_(std::move(nodes)), handler_(std::move(handler)) {}

  grpc::ServerBidiReactor<v1::AgentMessage, v1::CoordinatorMessage>* Session(
      grpc::CallbackServerContext* call) override;

 private:
  bool AdmitsNode(StringView token) const;

  const std::string token_;
  const std::optional<ClusterListenOptions> nodes_;
  const AgentSession::Handler handler_;
};

class ClusterServer {
 public:
  // UNAVAILABLE names an address that cannot be had.
  static absl::StatusOr<std::unique_ptr<ClusterServer>> Start(
      const std::optional<ClusterListenOptions>& nodes, AgentSession::Handler handler);
  ~ClusterServer();  // Shutdown at once

  const std::string& target() const { return target_; }  // of gRPC channels in this process
  const std::string& token() const { return token_; }    // of this start
  // Where other nodes join, with the port that was picked; nothing unless asked for.
  const std::optional<HostPort>& address() const { return address_; }

  // Sessions have until `deadline` (absl::Now) to end by themselves. Returns when all are over.
  void Shutdown(absl::Time deadline);

 private:
  ClusterServer(std::string target, std::string token,
                const std::optional<ClusterListenOptions>& nodes, AgentSession::Handler handler)
      : target_(std::move(target)), token_(token), service_(token, nodes, std::move(handler)) {}

  const std::string target_;
  const std::string token_;
  std::optional<HostPort> address_;
  ClusterService service_;
  std::unique_ptr<grpc::Server> server_;  // last: gone before the service
};

}  // namespace cohort

#endif  // COHORT_LAUNCHER_CLUSTER_SERVICE_H_
