// An agent and its real rank processes, the coordinator's part being played by the test.
#include "launcher/node_agent.h"

#include <gtest/gtest.h>
#include <signal.h>

#include <condition_variable>
#include <functional>
#include <mutex>
#include <string>
#include <vector>

#include "absl/time/clock.h"
#include "launcher/cluster_service.h"
#include "launcher/local_links.h"
#include "launcher/version.h"
#include "tests/launcher/pocket_model.h"

namespace cohort {
namespace {

class ProcessNodeAgent : public testing::Test {
 protected:
  using Message = v1::AgentMessage;

  // With `is_local` as the agent in the coordinator's process, else as one of another node.
  void StartAgent(absl::Duration heartbeat_timeout, bool is_local = true) {
    AgentSession::Handler handler;
    handler.on_message = [this](std::shared_ptr<AgentSession> session, Message message) {
      const std::lock_guard<std::mutex> lock(mutex_);
      session_ = std::move(session);
      messages_.push_back(std::move(message));
      changed_.notify_all();
    };
    handler.on_end = [](const std::shared_ptr<AgentSession>&) {};
    server_ = ClusterServer::Start(std::nullopt, std::move(handler)).value();
    NodeAgentOptions options;
    options.name = "node-a";
    options.address = "127.0.0.2";
    options.coordinator = server_->target();
    options.token = server_->token();
    options.rank_executable = COHORT_BINARY_DIR "/bin/cohort";
    options.heartbeat = {.period = absl::Milliseconds(50), .timeout = heartbeat_timeout};
    options.links = is_local ? &links_ : nullptr;
    agent_ = NodeAgent::Start(std::move(options));
  }

  // The first message from `next_` on that fits; `next_` is then the one after it.
  Message WaitFor(const std::function<bool(const Message&)>& fits) {
    std::unique_lock<std::mutex> lock(mutex_);
    Message found;
    const auto seen = [&] {
      while (next_ < messages_.size()) {
        if (fits(messages_[next_++])) {
          found = messages_[next_ - 1];
          return true;
        }
      }
      return false;
    };
    EXPECT_TRUE(changed_.wait_for(lock, std::chrono::seconds(60), seen));
    return found;
  }
  v1::Join WaitForJoin() {
    return WaitFor([](const Message& m) { return m.has_join(); }).join();
  }

  // Its process id, as soon as it has one.
  int64_t StartRank(const v1::RankConfiguration& configuration) {
    v1::CoordinatorMessage message;
    v1::Assignment& assignment = *message.mutable_assignment();
    *assignment.mutable_configuration() = configuration;
    assignment.add_ranks(0);
    assignment.add_start(0);
    Send(message);
    return WaitFor([](const Message& m) { return m.has_progress(); }).progress().process_id();
  }
  void Send(const v1::CoordinatorMessage& message) {
    const std::lock_guard<std::mutex> lock(mutex_);
    session_->Send(message);
  }

  LocalLinks links_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::shared_ptr<AgentSession> session_;  // the latest
  std::vector<Message> messages_;
  size_t next_ = 0;
  std::unique_ptr<ClusterServer> server_;
  std::unique_ptr<NodeAgent> agent_;
};

TEST_F(ProcessNodeAgent, JoinsWithItsNameCoresAddressAndVersion) {
  StartAgent(absl::Minutes(1));
  const v1::Join join = WaitForJoin();
  EXPECT_EQ(join.agent(), "node-a");
  EXPECT_GE(join.cores(), 1u);
  EXPECT_EQ(join.address(), "127.0.0.2");
  EXPECT_EQ(join.version(), kVersion);
  WaitFor([](const Message& m) { return m.has_heartbeat() && m.heartbeat().sequence() == 2; });
}

TEST_F(ProcessNodeAgent, ARankThatCannotLoadIsLostWithItsOwnWords) {
  StartAgent(absl::Minutes(1));
  WaitForJoin();
  const int64_t process_id = StartRank({});
  const v1::RankLost lost = WaitFor([](const Message& m) { return m.has_lost(); }).lost();
  EXPECT_EQ(lost.rank(), 0u);
  EXPECT_EQ(lost.process_id(), process_id);
  EXPECT_TRUE(lost.permanent());
  EXPECT_EQ(lost.status_code(), static_cast<int>(absl::StatusCode::kInvalidArgument));
  EXPECT_FALSE(lost.reason().empty());
}

TEST_F(ProcessNodeAgent, ASilentCoordinatorMeansANewSession) {
  StartAgent(absl::Milliseconds(300));
  const v1::Join first = WaitForJoin();
  const v1::Join second = WaitForJoin();
  EXPECT_EQ(first.incarnation(), second.incarnation()) << "the same process";
}

TEST_F(ProcessNodeAgent, AnEndedSessionKillsTheRanks) {
  StartAgent(absl::Minutes(1));
  WaitForJoin();
  const int64_t process_id = StartRank(PocketConfiguration(1));
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    session_->End(absl::UnavailableError("a drill"));
  }
  WaitForJoin();
  EXPECT_NE(kill(static_cast<pid_t>(process_id), 0), 0);
}

TEST_F(ProcessNodeAgent, OnAnotherNodeAShutdownOfTheCoordinatorMeansANewSession) {
  StartAgent(absl::Minutes(1), /*is_local=*/false);
  const v1::Join first = WaitForJoin();
  v1::CoordinatorMessage message;
  message.mutable_shutdown()->set_reason("a drill");
  Send(message);
  EXPECT_EQ(WaitForJoin().incarnation(), first.incarnation());
}

TEST_F(ProcessNodeAgent, OnAnotherNodeItReportsWhatItWouldRead) {
  StartAgent(absl::Minutes(1), /*is_local=*/false);
  WaitForJoin();
  v1::CoordinatorMessage message;
  message.mutable_welcome()->set_model("/nonexistent");
  message.mutable_welcome()->set_heartbeat_period_milliseconds(50);
  message.mutable_welcome()->set_heartbeat_timeout_milliseconds(60'000);
  Send(message);
  const v1::CheckpointReport report =
      WaitFor([](const Message& m) { return m.has_checkpoint(); }).checkpoint();
  EXPECT_EQ(report.path(), "/nonexistent");
  EXPECT_EQ(report.status_code(), static_cast<int>(absl::StatusCode::kNotFound));
}

TEST_F(ProcessNodeAgent, ARefusalForGoodEndsANode) {
  StartAgent(absl::Minutes(1), /*is_local=*/false);
  WaitForJoin();
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    session_->End(absl::FailedPreconditionError("another version"));
  }
  EXPECT_TRUE(agent_->WaitUntilDone(absl::Seconds(60)));
  EXPECT_EQ(agent_->failure(), absl::FailedPreconditionError("another version"));
}

TEST_F(ProcessNodeAgent, ANodeThatIsToldToStopLeavesTheGroup) {
  StartAgent(absl::Minutes(1), /*is_local=*/false);
  WaitForJoin();
  const int64_t process_id = StartRank(PocketConfiguration(1));
  agent_->Stop("a drill");
  EXPECT_EQ(WaitFor([](const Message& m) { return m.has_leave(); }).leave().reason(), "a drill");
  EXPECT_TRUE(agent_->WaitUntilDone(absl::Seconds(60)));
  EXPECT_EQ(agent_->failure(), absl::OkStatus());
  EXPECT_NE(kill(static_cast<pid_t>(process_id), 0), 0);
}

TEST(NodeAgent, GivesUpWhenTheCoordinatorIsAwayForTooLong) {
  NodeAgentOptions options;
  options.coordinator = "unix-abstract:cohort-nobody-listens-here";
  options.join_timeout = absl::Milliseconds(300);
  const auto agent = NodeAgent::Start(std::move(options));
  EXPECT_TRUE(agent->WaitUntilDone(absl::Seconds(60)));
  EXPECT_TRUE(absl::IsDeadlineExceeded(agent->failure())) << agent->failure();
  EXPECT_NE(agent->failure().message().find("within 300ms; the last time: "), StringView::npos)
      << agent->failure();
}

TEST_F(ProcessNodeAgent, ShutdownEndsTheRanksAndTheAgent) {
  StartAgent(absl::Minutes(1));
  WaitForJoin();
  const int64_t process_id = StartRank(PocketConfiguration(1));
  v1::CoordinatorMessage message;
  message.mutable_shutdown()->set_reason("a drill");
  Send(message);
  EXPECT_TRUE(agent_->WaitUntilDone(absl::Seconds(60)));
  EXPECT_NE(kill(static_cast<pid_t>(process_id), 0), 0);
}

}  // namespace
}  // namespace cohort
