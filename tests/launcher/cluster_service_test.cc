#include "launcher/cluster_service.h"

#include <grpcpp/create_channel.h>
#include <gtest/gtest.h>

#include <optional>

#include "absl/time/clock.h"
#include "launcher/cluster_stream.h"
#include "tests/launcher/mailbox.h"

namespace cohort {
namespace {

struct Received {
  std::shared_ptr<AgentSession> session;
  v1::AgentMessage message;
};

// A server without a coordinator behind it.
class ClusterServiceTest : public testing::Test {
 protected:
  ClusterServiceTest() { Start(std::nullopt); }

  void Start(const std::optional<ClusterListenOptions>& nodes) {
    AgentSession::Handler handler;
    handler.on_message = [this](std::shared_ptr<AgentSession> session, v1::AgentMessage message) {
      received_.Put({std::move(session), std::move(message)});
    };
    handler.on_end = [this](std::shared_ptr<AgentSession> session) { ended_.Put(session); };
    server_ = ClusterServer::Start(nodes, std::move(handler)).value();
    channel_ = grpc::CreateChannel(server_->target(), grpc::InsecureChannelCredentials());
  }

  std::shared_ptr<ClusterStream> Open(const std::string& token) {
    ClusterStream::Handler handler;
    handler.on_message = [this](v1::CoordinatorMessage message) {
      answers_.Put(std::move(message));
    };
    handler.on_end = [this](absl::Status status) { stream_ended_.Put(std::move(status)); };
    return ClusterStream::Open(channel_, token, std::move(handler));
  }

  static v1::AgentMessage Beat(uint64_t sequence) {
    v1::AgentMessage message;
    message.mutable_heartbeat()->set_sequence(sequence);
    return message;
  }

  Mailbox<Received> received_;
  Mailbox<std::shared_ptr<AgentSession>> ended_;
  Mailbox<v1::CoordinatorMessage> answers_;
  Mailbox<absl::Status> stream_ended_;
  std::unique_ptr<ClusterServer> server_;
  std::shared_ptr<grpc::Channel> channel_;
};

TEST_F(ClusterServiceTest, RefusesThoseWhoDoNotKnowTheToken) {
  for (const std::string& token :
       {std::string(), std::string("guess"), std::string(server_->token().size(), 'a')}) {
    Open(token)->Send(Beat(1));
    EXPECT_TRUE(absl::IsUnauthenticated(stream_ended_.Take())) << token;
  }
}

TEST_F(ClusterServiceTest, EveryStartHasItsOwnTokenAndAddress) {
  const auto other = ClusterServer::Start(std::nullopt, {}).value();
  EXPECT_NE(other->token(), server_->token());
  EXPECT_NE(other->target(), server_->target());
  EXPECT_EQ(other->token().size(), 64u);
}

TEST_F(ClusterServiceTest, NodesJoinOverTcpWithTheJoinToken) {
  Start(ClusterListenOptions{{"127.0.0.1", 0}, "a-join-token"});
  ASSERT_TRUE(server_->address().has_value());
  EXPECT_GT(server_->address()->port, 0);
  channel_ =
      grpc::CreateChannel(server_->address()->ToString(), grpc::InsecureChannelCredentials());
  for (const std::string& token : {std::string(), std::string("a-join-tokem")}) {
    Open(token)->Send(Beat(1));
    const absl::Status refused = stream_ended_.Take();
    EXPECT_TRUE(absl::IsUnauthenticated(refused));
    EXPECT_NE(refused.message().find("--join-token"), StringView::npos) << refused;
  }
  const auto node = Open("a-join-token");
  node->Send(Beat(1));
  const std::shared_ptr<AgentSession> session = received_.Take().session;
  EXPECT_FALSE(session->is_local());
  EXPECT_EQ(session->peer().rfind("ipv4:127.0.0.1:", 0), 0u) << session->peer();
  const auto local = Open(server_->token());
  local->Send(Beat(2));
  EXPECT_TRUE(received_.Take().session->is_local());
  node->Cancel();
  local->Cancel();
  EXPECT_TRUE(absl::IsCancelled(stream_ended_.Take()));
  EXPECT_TRUE(absl::IsCancelled(stream_ended_.Take()));
}

TEST_F(ClusterServiceTest, WithoutAJoinTokenEveryNodeMayJoinWhereOneIsListenedFor) {
  Start(ClusterListenOptions{{"127.0.0.1", 0}, ""});
  const auto node = Open("");
  node->Send(Beat(1));
  EXPECT_FALSE(received_.Take().session->is_local());
  node->Cancel();
  EXPECT_TRUE(absl::IsCancelled(stream_ended_.Take()));
}

TEST_F(ClusterServiceTest, AnAddressThatCannotBeHadIsNamed) {
  const auto server = ClusterServer::Start(ClusterListenOptions{{"192.0.2.1", 9100}, "token"}, {});
  EXPECT_TRUE(absl::IsUnavailable(server.status()));
  EXPECT_NE(server.status().message().find("--cluster-listen 192.0.2.1:9100"), StringView::npos);
}

TEST_F(ClusterServiceTest, CarriesMessagesInOrderBothWays) {
  const auto stream = Open(server_->token());
  for (uint64_t i = 1; i <= 100; ++i) stream->Send(Beat(i));
  std::shared_ptr<AgentSession> session;
  for (uint64_t i = 1; i <= 100; ++i) {
    const Received received = received_.Take();
    session = received.session;
    ASSERT_EQ(received.message.heartbeat().sequence(), i);
  }
  for (uint64_t epoch = 1; epoch <= 100; ++epoch) {
    v1::CoordinatorMessage message;
    message.mutable_abort_epoch()->set_epoch(epoch);
    session->Send(std::move(message));
  }
  for (uint64_t epoch = 1; epoch <= 100; ++epoch) {
    ASSERT_EQ(answers_.Take().abort_epoch().epoch(), epoch);
  }
  stream->Finish();
  EXPECT_EQ(ended_.Take(), session);
  EXPECT_EQ(stream_ended_.Take(), absl::OkStatus());
}

TEST_F(ClusterServiceTest, TheCoordinatorEndsASessionWithItsReason) {
  const auto stream = Open(server_->token());
  stream->Send(Beat(1));
  const Received received = received_.Take();
  v1::CoordinatorMessage last;
  last.mutable_shutdown()->set_reason("enough");
  received.session->Send(last);
  received.session->End(absl::FailedPreconditionError("another version"));
  EXPECT_EQ(answers_.Take().shutdown().reason(), "enough");
  EXPECT_EQ(stream_ended_.Take(), absl::FailedPreconditionError("another version"));
  EXPECT_EQ(ended_.Take(), received.session);
  stream->Send(Beat(2));  // nobody hears it
}

TEST_F(ClusterServiceTest, ACancelledStreamEndsItsSession) {
  const auto stream = Open(server_->token());
  stream->Send(Beat(1));
  const Received received = received_.Take();
  stream->Cancel();
  EXPECT_EQ(ended_.Take(), received.session);
  EXPECT_TRUE(absl::IsCancelled(stream_ended_.Take()));
}

TEST_F(ClusterServiceTest, ShutdownEndsWhatDoesNotEndByItself) {
  const auto stream = Open(server_->token());
  stream->Send(Beat(1));
  received_.Take();
  server_->Shutdown(absl::Now());
  EXPECT_FALSE(stream_ended_.Take().ok());
}

}  // namespace
}  // namespace cohort
