// The agent's end of one Cluster.Session: messages in order, both ways, never blocking the caller.
// Owned by the agent and, until gRPC is done with the call, by itself. Its owner keeps the channel
// until on_end was called: the last owner of a channel must not be a thread of gRPC, which cannot
// wait for itself to end.
#ifndef COHORT_LAUNCHER_CLUSTER_STREAM_H_
#define COHORT_LAUNCHER_CLUSTER_STREAM_H_

#include <grpcpp/channel.h>
#include <grpcpp/client_context.h>
#include <grpcpp/support/client_callback.h>

#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <string>

#include "cohort/v1/cluster.grpc.pb.h"
#include "kernels/status.h"

namespace cohort {

// The metadata key that carries the start's token.
inline constexpr char kClusterTokenKey[] = "x-cohort-cluster-token";

class ClusterStream final
    : public grpc::ClientBidiReactor<v1::AgentMessage, v1::CoordinatorMessage>,
      public std::enable_shared_from_this<ClusterStream> {
 public:
  // Called from gRPC's threads: `on_message` in order, then `on_end` exactly once and last, when
  // the stream no longer owns itself.
  struct Handler {
    std::function<void(v1::CoordinatorMessage)> on_message;
    std::function<void(absl::Status)> on_end;
  };

  static std::shared_ptr<ClusterStream> Open(const std::shared_ptr<grpc::Channel>& channel,
                                             const std::string& token, Handler handler);
  ClusterStream(const std::shared_ptr<grpc::Channel>& channel, Handler handler);

  void Send(v1::AgentMessage message);
  // Says that nothing more will be sent, after what was sent before.
  void Finish();
  // Ends the call at once.
  void Cancel() { context_.TryCancel(); }

  void OnReadDone(bool ok) override;
  void OnWriteDone(bool ok) override;
  void OnDone(const grpc::Status& status) override;

 private:
  // With the mutex held:
  void WriteNext();
  void Close();

  const std::unique_ptr<v1::Cluster::Stub> stub_;
  grpc::ClientContext context_;
  Handler handler_;
  v1::CoordinatorMessage incoming_;
  std::shared_ptr<ClusterStream> self_;  // until OnDone

  std::mutex mutex_;
  std::deque<v1::AgentMessage> outbox_;  // the first is being written while writing_
  bool writing_ = false;
  bool finishing_ = false;
  bool ended_ = false;   // nothing more comes
  bool closed_ = false;  // nothing more is written
};

}  // namespace cohort

#endif  // COHORT_LAUNCHER_CLUSTER_STREAM_H_
