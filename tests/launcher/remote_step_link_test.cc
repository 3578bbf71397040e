// Plans and results of a rank on another node: from the coordinator's link over a real session to
// the node's relay and its rank, and back.
#include "launcher/remote_step_link.h"

#include <grpcpp/create_channel.h>
#include <gtest/gtest.h>

#include <optional>
#include <thread>

#include "absl/time/clock.h"
#include "launcher/cluster_stream.h"
#include "launcher/step_relay.h"
#include "tests/launcher/mailbox.h"
#include "tests/launcher/scripted_rank.h"

namespace cohort {
namespace {

constexpr uint64_t kEpoch = 7;

absl::Time InAMinute() { return absl::Now() + absl::Minutes(1); }

StepPlan PlanOf(uint64_t step) {
  StepPlan plan;
  plan.epoch = kEpoch;
  plan.step = step;
  return plan;
}

class RemoteStepLinkTest : public testing::Test {
 protected:
  RemoteStepLinkTest() {
    AgentSession::Handler handler;
    handler.on_message = [this](std::shared_ptr<AgentSession> session, v1::AgentMessage message) {
      if (message.has_outcome()) {
        links_.Deliver(session, std::move(*message.mutable_outcome()));
      } else {
        sessions_.Put(std::move(session));
      }
    };
    handler.on_end = [](const std::shared_ptr<AgentSession>&) {};
    server_ = ClusterServer::Start(std::nullopt, std::move(handler)).value();
    channel_ = grpc::CreateChannel(server_->target(), grpc::InsecureChannelCredentials());
    relay_.emplace([this](v1::AgentMessage message) { stream_->Send(std::move(message)); });
    ClusterStream::Handler node;
    node.on_message = [this](v1::CoordinatorMessage message) {
      relay_->Deliver(std::move(*message.mutable_plan()));
    };
    node.on_end = [this](absl::Status status) { ended_.Put(std::move(status)); };
    stream_ = ClusterStream::Open(channel_, server_->token(), std::move(node));
    v1::AgentMessage hello;
    hello.mutable_heartbeat()->set_sequence(1);
    stream_->Send(hello);
    session_ = sessions_.Take();
  }
  ~RemoteStepLinkTest() override {
    relay_.reset();
    stream_->Cancel();
    EXPECT_TRUE(absl::IsCancelled(ended_.Take()));
  }

  std::unique_ptr<StepLink> MakeLink(int rank) {
    relay_->Put(kEpoch, rank, std::make_unique<ScriptedRank>(script_));
    return links_.Make("rank 3 on agent 'b'", kEpoch, rank, session_);
  }

  const std::shared_ptr<RankScript> script_ = std::make_shared<RankScript>(
      [](uint64_t position) { return static_cast<int32_t>(position); });
  RemoteLinks links_;
  Mailbox<std::shared_ptr<AgentSession>> sessions_;
  Mailbox<absl::Status> ended_;
  std::unique_ptr<ClusterServer> server_;
  std::shared_ptr<grpc::Channel> channel_;
  std::optional<StepRelay> relay_;
  std::shared_ptr<ClusterStream> stream_;
  std::shared_ptr<AgentSession> session_;
};

TEST_F(RemoteStepLinkTest, PlansGoOutAndResultsComeBackInOrder) {
  const std::unique_ptr<StepLink> link = MakeLink(3);
  EXPECT_EQ(link->name(), "rank 3 on agent 'b'");
  for (uint64_t step = 1; step <= 50; ++step) {
    ASSERT_EQ(link->Send(Encode(PlanOf(step)), InAMinute()), absl::OkStatus());
  }
  for (uint64_t step = 1; step <= 50; ++step) {
    const absl::StatusOr<std::string> bytes = link->Receive(InAMinute());
    ASSERT_TRUE(bytes.ok()) << bytes.status();
    EXPECT_EQ(DecodeStepResult(*bytes)->step, step);
    EXPECT_EQ(DecodeStepResult(*bytes)->epoch, kEpoch);
  }
}

TEST_F(RemoteStepLinkTest, AStepThatFailsThereFailsHereWithItsStatus) {
  const std::unique_ptr<StepLink> link = MakeLink(3);
  ASSERT_EQ(link->Send("no plan", InAMinute()), absl::OkStatus());
  EXPECT_TRUE(absl::IsInvalidArgument(link->Receive(InAMinute()).status()));
}

TEST_F(RemoteStepLinkTest, ADeadlineSaysWhatWasAwaited) {
  const std::unique_ptr<StepLink> link = MakeLink(3);
  const absl::Status status = link->Receive(absl::Now()).status();
  EXPECT_TRUE(absl::IsDeadlineExceeded(status));
  EXPECT_NE(status.message().find("session"), StringView::npos) << status;
}

TEST_F(RemoteStepLinkTest, AnAbortWakesTheReceiverAndStays) {
  const std::unique_ptr<StepLink> link = MakeLink(3);
  absl::Status status;
  std::thread receiver([&] { status = link->Receive(InAMinute()).status(); });
  link->Abort(absl::UnavailableError("the agent is lost"));
  receiver.join();
  EXPECT_EQ(status, absl::UnavailableError("the agent is lost"));
  link->Abort(absl::UnavailableError("another reason"));
  EXPECT_EQ(link->Send(Encode(PlanOf(1)), InAMinute()),
            absl::UnavailableError("the agent is lost"));
}

TEST_F(RemoteStepLinkTest, WhatIsForNoOneIsDropped) {
  const std::unique_ptr<StepLink> link = MakeLink(3);
  v1::StepOutcome outcome;
  outcome.set_rank(3);
  outcome.set_epoch(kEpoch + 1);
  links_.Deliver(session_, outcome);  // of another epoch
  outcome.set_epoch(kEpoch);
  links_.Deliver(nullptr, outcome);  // of another agent
  EXPECT_TRUE(absl::IsDeadlineExceeded(link->Receive(absl::Now()).status()));
  links_.DropUntil(kEpoch);
  links_.Deliver(session_, outcome);
  EXPECT_TRUE(absl::IsDeadlineExceeded(link->Receive(absl::Now()).status()));
}

TEST_F(RemoteStepLinkTest, AnEpochThatIsOverTakesNoMorePlans) {
  const std::unique_ptr<StepLink> link = MakeLink(3);
  relay_->DropUntil(kEpoch);
  ASSERT_EQ(link->Send(Encode(PlanOf(1)), InAMinute()), absl::OkStatus());
  const std::unique_ptr<StepLink> other = links_.Make("rank 4", kEpoch + 1, 4, session_);
  relay_->Put(
      kEpoch + 1, 4,
      std::make_unique<ScriptedRank>(std::make_shared<RankScript>([](uint64_t) { return 1; })));
  StepPlan plan = PlanOf(1);
  plan.epoch = kEpoch + 1;
  ASSERT_EQ(other->Send(Encode(plan), InAMinute()), absl::OkStatus());
  ASSERT_TRUE(other->Receive(InAMinute()).ok());
  EXPECT_TRUE(absl::IsDeadlineExceeded(link->Receive(absl::Now()).status()));
}

}  // namespace
}  // namespace cohort
