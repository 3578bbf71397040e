#include "launcher/cluster_service.h"

#include <grpcpp/create_channel.h>
#include <gtest/gtest.h>

#include <chrono>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <optional>
#include <thread>
#include <vector>

#include "absl/time/clock.h"
#include "launcher/cluster_stream.h"

namespace cohort {
namespace {

constexpr std::chrono::seconds kTimeout(60);

template <class T>
class Mailbox {
 public:
  void Put(T value) {
    const std::lock_guard<std::mutex> lock(mutex_);
    values_.push_back(std::move(value));
    changed_.notify_all();
  }
  T Take() {
    std::unique_lock<std::mutex> lock(mutex_);
    EXPECT_TRUE(changed_.wait_for(lock, kTimeout, [this] { return !values_.empty(); }));
    T value = std::move(values_.front());
    values_.pop_front();
    return value;
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<T> values_;
};

struct Received {
  std::shared_ptr<AgentSession> session;
  v1::AgentMessage message;
};

// A server without a coordinator behind it.
class ClusterServiceTest : public testing::Test {
 protected:
  ClusterServiceTest() {
    AgentSession::Handler handler;
    handler.on_message = [this](std::shared_ptr<AgentSession> session, v1::AgentMessage message) {
      received_.Put({std::move(session), std::move(message)});
    };
    handler.on_end = [this](std::shared_ptr<AgentSession> session) { ended_.Put(session); };
    server_ = ClusterServer::Start(std::move(handler)).value();
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
  const auto other = ClusterServer::Start({}).value();
  EXPECT_NE(other->token(), server_->token());
  EXPECT_NE(other->target(), server_->target());
  EXPECT_EQ(other->token().size(), 64u);
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
