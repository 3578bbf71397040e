// A roster behind a real listener; its calls come from the test's thread.
#include "launcher/agent_roster.h"

#include <gmock/gmock.h>
#include <grpcpp/create_channel.h>
#include <gtest/gtest.h>

#include <optional>

#include "absl/time/clock.h"
#include "launcher/checkpoint_report.h"
#include "launcher/cluster_stream.h"
#include "launcher/version.h"
#include "tests/launcher/mailbox.h"

namespace cohort {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

const std::vector<CheckpointPart> kCheckpoint = {{"config.json", "2 bytes", 1},
                                                 {"tensor a", "F32 [2]", 2}};

// One agent's end.
struct Caller {
  std::shared_ptr<ClusterStream> stream;
  Mailbox<v1::CoordinatorMessage> heard;
  Mailbox<absl::Status> ended;
};

class AgentRosterTest : public testing::Test {
 protected:
  AgentRosterTest() {
    AgentSession::Handler handler;
    handler.on_message = [this](std::shared_ptr<AgentSession> session, v1::AgentMessage message) {
      received_.Put({std::move(session), std::move(message)});
    };
    handler.on_end = [](const std::shared_ptr<AgentSession>&) {};
    server_ = ClusterServer::Start(ClusterListenOptions{{"127.0.0.1", 0}, "join-token"},
                                   std::move(handler))
                  .value();
    channel_ = grpc::CreateChannel(server_->target(), grpc::InsecureChannelCredentials());
    AgentRosterOptions options;
    options.local = options.nodes = {.period = absl::Seconds(1), .timeout = absl::Seconds(5)};
    options.model = "/models/tiny";
    options.checkpoint = kCheckpoint;
    roster_.emplace(options, AgentRoster::Group{
                                 .has_room = [this](bool) { return room_ > 0; },
                                 .joined =
                                     [this](const AgentDescription& agent) {
                                       --room_;
                                       events_.push_back("joined " + agent.name);
                                     },
                                 .lost =
                                     [this](const std::string& agent, const std::string& reason) {
                                       ++room_;
                                       events_.push_back("lost " + agent + ": " + reason);
                                     }});
  }

  ~AgentRosterTest() override {
    for (const auto& caller : callers_) caller->stream->Cancel();
    server_->Shutdown(absl::Now());
  }

  static v1::AgentMessage MakeJoin(const std::string& name, uint64_t incarnation = 1,
                                   const std::string& version = kVersion) {
    v1::AgentMessage message;
    v1::Join& join = *message.mutable_join();
    join.set_agent(name);
    join.set_incarnation(incarnation);
    join.set_cores(2);
    join.set_version(version);
    join.set_address("10.0.0.7");
    return message;
  }

  // Another agent says `message`, and the roster deals with it.
  Caller& Call(const v1::AgentMessage& message) {
    Caller& caller = *callers_.emplace_back(std::make_unique<Caller>());
    ClusterStream::Handler handler;
    handler.on_message = [&caller](v1::CoordinatorMessage m) { caller.heard.Put(std::move(m)); };
    handler.on_end = [&caller](absl::Status status) { caller.ended.Put(std::move(status)); };
    caller.stream = ClusterStream::Open(channel_, "join-token", std::move(handler));
    Say(caller, message);
    return caller;
  }
  bool Say(Caller& caller, const v1::AgentMessage& message) {
    caller.stream->Send(message);
    const auto [session, received] = received_.Take();
    return roster_->Handle(session, received, now_);
  }
  bool Report(Caller& caller, const std::vector<CheckpointPart>& parts) {
    v1::AgentMessage message;
    *message.mutable_checkpoint() = MakeCheckpointReport("/there", parts);
    return Say(caller, message);
  }
  // A member of the group.
  Caller& Admit(const std::string& name, uint64_t incarnation = 1) {
    Caller& caller = Call(MakeJoin(name, incarnation));
    EXPECT_TRUE(caller.heard.Take().has_welcome());
    Report(caller, kCheckpoint);
    EXPECT_TRUE(caller.heard.Take().has_admitted());
    return caller;
  }
  static std::string Words(const absl::Status& status) { return std::string(status.message()); }

  absl::Time now_ = absl::Now();
  int room_ = 1;
  std::vector<std::string> events_;
  Mailbox<std::pair<std::shared_ptr<AgentSession>, v1::AgentMessage>> received_;
  std::vector<std::unique_ptr<Caller>> callers_;
  std::shared_ptr<grpc::Channel> channel_;
  std::unique_ptr<ClusterServer> server_;
  std::optional<AgentRoster> roster_;
};

TEST_F(AgentRosterTest, ANodeIsAMemberOnceItHasTheSameCheckpoint) {
  Caller& caller = Call(MakeJoin("b"));
  const v1::CoordinatorMessage welcome = caller.heard.Take();
  EXPECT_EQ(welcome.welcome().model(), "/models/tiny");
  EXPECT_EQ(welcome.welcome().heartbeat_timeout_milliseconds(), 5000);
  v1::AgentMessage beat;
  beat.mutable_heartbeat()->set_sequence(1);
  EXPECT_FALSE(Say(caller, beat)) << "it is no member yet";
  EXPECT_EQ(roster_->SessionOf("b"), nullptr);
  Report(caller, kCheckpoint);
  EXPECT_TRUE(caller.heard.Take().has_admitted());
  EXPECT_NE(roster_->SessionOf("b"), nullptr);
  EXPECT_TRUE(Say(caller, beat));
  EXPECT_THAT(events_, ElementsAre("joined b"));
}

TEST_F(AgentRosterTest, AnotherCheckpointIsRefusedAndTheDifferenceNamed) {
  Caller& caller = Call(MakeJoin("b"));
  std::vector<CheckpointPart> other = kCheckpoint;
  other[1].hash = 3;
  Report(caller, other);
  const absl::Status refusal = caller.ended.Take();
  EXPECT_TRUE(absl::IsFailedPrecondition(refusal)) << refusal;
  EXPECT_THAT(Words(refusal), HasSubstr("the node's checkpoint /there is not the coordinator's: "
                                        "tensor a is F32 [2], hash 0000000000000002 here and"));
  EXPECT_TRUE(events_.empty());
}

TEST_F(AgentRosterTest, AnotherVersionIsRefusedByName) {
  const absl::Status refusal = Call(MakeJoin("b", 1, "0.0.7")).ended.Take();
  EXPECT_TRUE(absl::IsFailedPrecondition(refusal));
  EXPECT_THAT(Words(refusal), HasSubstr("'b' is of version 0.0.7, the coordinator of version " +
                                        std::string(kVersion)));
}

TEST_F(AgentRosterTest, OneTooManyIsRefusedWithTheNamesOfThoseThere) {
  Admit("b");
  const absl::Status refusal = Call(MakeJoin("c", 2)).ended.Take();
  EXPECT_TRUE(absl::IsResourceExhausted(refusal));
  EXPECT_THAT(Words(refusal), HasSubstr("the group has all its agents: 'b' at 10.0.0.7"));
}

TEST_F(AgentRosterTest, OfTwoThatCompareForOnePlaceTheFirstHasIt) {
  Caller& first = Call(MakeJoin("b"));
  Caller& second = Call(MakeJoin("c", 2));
  Report(second, kCheckpoint);
  Report(first, kCheckpoint);
  EXPECT_TRUE(absl::IsResourceExhausted(first.ended.Take()));
  EXPECT_THAT(events_, ElementsAre("joined c"));
}

TEST_F(AgentRosterTest, ANameBelongsToOneProcessWhichMayJoinAnew) {
  Admit("b", 1);
  EXPECT_TRUE(absl::IsAlreadyExists(Call(MakeJoin("b", 2)).ended.Take()));
  room_ = 1;
  Admit("b", 1);
  EXPECT_THAT(events_, ElementsAre("joined b", "lost b: it joined anew", "joined b"));
}

TEST_F(AgentRosterTest, SilenceEndsASessionUnlessItWasOurOwn) {
  Caller& caller = Admit("b");
  for (int second = 1; second < 5; ++second) roster_->Tick(now_ + absl::Seconds(second));
  EXPECT_THAT(events_, ElementsAre("joined b"));
  roster_->Tick(now_ + absl::Seconds(4) + absl::Minutes(5));  // this thread was away
  EXPECT_THAT(events_, ElementsAre("joined b"));
  now_ += absl::Seconds(4) + absl::Minutes(5);
  for (int second = 1; second <= 5; ++second) roster_->Tick(now_ + absl::Seconds(second));
  EXPECT_THAT(events_, ElementsAre("joined b", "lost b: it was silent for 5s"));
  EXPECT_TRUE(absl::IsUnavailable(caller.ended.Take()));
}

TEST_F(AgentRosterTest, OneThatLeavesIsLostWithItsReason) {
  Caller& caller = Admit("b");
  v1::AgentMessage leave;
  leave.mutable_leave()->set_reason("it was told to stop");
  EXPECT_FALSE(Say(caller, leave));
  EXPECT_THAT(events_, ElementsAre("joined b", "lost b: it was told to stop"));
}

TEST_F(AgentRosterTest, AClosedRosterSaysFarewell) {
  v1::CoordinatorMessage farewell;
  farewell.mutable_shutdown()->set_reason("enough");
  roster_->Close(farewell);
  Caller& caller = Call(MakeJoin("b"));
  EXPECT_EQ(caller.heard.Take().shutdown().reason(), "enough");
  EXPECT_EQ(caller.ended.Take(), absl::OkStatus());
}

}  // namespace
}  // namespace cohort
