// cohort.v1.Cluster on its own listener, which only agents that know the start's token may use. An
// abstract Unix socket: it lives in no folder and is gone with the process, however that ends.
#ifndef COHORT_LAUNCHER_CLUSTER_SERVICE_H_
#define COHORT_LAUNCHER_CLUSTER_SERVICE_H_

#include <grpcpp/server.h>

#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <string>

#include "absl/time/time.h"
#include "cohort/v1/cluster.grpc.pb.h"
#include "kernels/status.h"

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

  static AgentSession* Open(const Handler& handler);
  explicit AgentSession(const Handler& handler) : handler_(handler) {}

  void Send(v1::CoordinatorMessage message);  // never blocks
  // Ends the call with `status` once what was sent before has left. Idempotent.
  void End(const absl::Status& status);

  void OnReadDone(bool ok) override;
  void OnWriteDone(bool ok) override;
  void OnDone() override;

 private:
  void WriteNext();  // with the mutex held

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

class ClusterService final : public v1::Cluster::CallbackService {
 public:
  ClusterService(std::string token, AgentSession::Handler handler)
      : token_(std::move(token)), handler_(std::move(handler)) {}

  grpc::ServerBidiReactor<v1::AgentMessage, v1::CoordinatorMessage>* Session(
      grpc::CallbackServerContext* call) override;

 private:
  const std::string token_;
  const AgentSession::Handler handler_;
};

class ClusterServer {
 public:
  static absl::StatusOr<std::unique_ptr<ClusterServer>> Start(AgentSession::Handler handler);
  ~ClusterServer();  // Shutdown at once

  const std::string& target() const { return target_; }  // of gRPC channels
  const std::string& token() const { return token_; }

  // Sessions have until `deadline` (absl::Now) to end by themselves. Returns when all are over.
  void Shutdown(absl::Time deadline);

 private:
  ClusterServer(std::string target, std::string token, AgentSession::Handler handler)
      : target_(std::move(target)), token_(token), service_(token, std::move(handler)) {}

  const std::string target_;
  const std::string token_;
  ClusterService service_;
  std::unique_ptr<grpc::Server> server_;  // last: gone before the service
};

}  // namespace cohort

#endif  // COHORT_LAUNCHER_CLUSTER_SERVICE_H_
