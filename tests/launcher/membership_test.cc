#include "launcher/membership.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "absl/strings/str_join.h"

namespace cohort {
namespace {

const absl::Time kStart = absl::UnixEpoch() + absl::Hours(1);

// A membership whose actions read as words, and events that read as sentences.
class Group {
 public:
  explicit Group(int ranks, MembershipOptions options = {}) {
    options.ranks = ranks;
    membership_.emplace(options);
  }

  Group& At(absl::Duration since_start) {
    now_ = kStart + since_start;
    membership_->Tick(now_);
    return *this;
  }
  // The agent "local" is the coordinator's own.
  Group& Joins(const std::string& agent, int cores) {
    membership_->AgentJoined({.name = agent,
                              .address = agent == "local" ? "" : agent + ".example",
                              .cores = cores,
                              .local = agent == "local"},
                             now_);
    return *this;
  }
  Group& Listens(uint32_t rank, uint64_t epoch) {
    v1::EpochListeners listeners;
    listeners.set_epoch(epoch);
    listeners.set_rank(rank);
    listeners.add_listeners(absl::StrCat("of ", rank));
    membership_->EpochListening(listeners, now_);
    return *this;
  }
  Group& Leaves(const std::string& agent) {
    membership_->AgentLost(agent, "its session ended", now_);
    return *this;
  }
  Group& Loads(uint32_t rank, int64_t process_id, int64_t done_bytes = 0) {
    v1::RankProgress progress;
    progress.set_rank(rank);
    progress.set_process_id(process_id);
    progress.set_state("loading");
    progress.set_done_bytes(done_bytes);
    progress.set_total_bytes(100);
    membership_->RankProgressed(progress, now_);
    return *this;
  }
  Group& IsReady(uint32_t rank, int64_t process_id) {
    v1::RankProgress progress;
    progress.set_rank(rank);
    progress.set_process_id(process_id);
    progress.set_state("ready");
    progress.set_weight_bytes(100);
    membership_->RankProgressed(progress, now_);
    return *this;
  }
  Group& Dies(uint32_t rank, const std::string& reason = "killed by signal 9") {
    v1::RankLost lost;
    lost.set_rank(rank);
    lost.set_reason(reason);
    membership_->RankLost(lost, now_);
    return *this;
  }
  Group& Refuses(uint32_t rank, const absl::Status& status) {
    v1::RankLost lost;
    lost.set_rank(rank);
    lost.set_reason(std::string(status.message()));
    lost.set_status_code(static_cast<int>(status.code()));
    lost.set_permanent(true);
    membership_->RankLost(lost, now_);
    return *this;
  }
  Group& HasJoined(uint64_t epoch, std::vector<uint32_t> ranks) {
    v1::EpochJoined joined;
    joined.set_epoch(epoch);
    joined.mutable_ranks()->Add(ranks.begin(), ranks.end());
    membership_->EpochJoined(joined, now_);
    return *this;
  }
  Group& HasLeft(uint64_t epoch, std::vector<uint32_t> ranks) {
    v1::EpochLeft left;
    left.set_epoch(epoch);
    left.mutable_ranks()->Add(ranks.begin(), ranks.end());
    membership_->EpochLeft(left, now_);
    return *this;
  }
  Group& Fails(uint32_t rank, uint64_t epoch, bool joined) {
    v1::EpochFailed failed;
    failed.set_rank(rank);
    failed.set_epoch(epoch);
    failed.set_joined(joined);
    failed.set_reason("out of luck");
    membership_->EpochFailed(failed, now_);
    return *this;
  }

  Group& DoesNotReachOthers(uint32_t rank, uint64_t epoch) {
    v1::EpochFailed failed;
    failed.set_rank(rank);
    failed.set_epoch(epoch);
    failed.set_peers(true);
    failed.set_reason("no way");
    membership_->EpochFailed(failed, now_);
    return *this;
  }

  // "assign local [0,1] start [0,1]; begin 1; serve 1; stop 1; end 1; kill 1 pid 11; give up"
  std::string Actions() {
    std::vector<std::string> words;
    for (const MembershipAction& action : membership_->TakeActions()) {
      words.push_back(std::visit([](const auto& a) { return Words(a); }, action));
    }
    return absl::StrJoin(words, "; ");
  }
  Membership& operator*() { return *membership_; }
  Membership* operator->() { return &*membership_; }

 private:
  static std::string Words(const AssignRanks& a) {
    return absl::StrCat("assign ", a.agent, " [", absl::StrJoin(a.ranks, ","), "] start [",
                        absl::StrJoin(a.start, ","), "]");
  }
  static std::string Words(const StartEpoch& a) { return absl::StrCat("begin ", a.begin.epoch()); }
  static std::string Words(const SharePeers& a) {
    std::vector<std::string> leaders;
    for (const v1::EpochListeners& l : a.peers.agents()) leaders.push_back(absl::StrCat(l.rank()));
    return absl::StrCat("peers ", a.peers.epoch(), " [", absl::StrJoin(leaders, ","), "]");
  }
  static std::string Words(const EndEpoch& a) { return absl::StrCat("end ", a.epoch); }
  static std::string Words(const KillRankProcess& a) {
    return absl::StrCat("kill ", a.kill.rank(), " pid ", a.kill.process_id());
  }
  static std::string Words(const ServeEpoch& a) { return absl::StrCat("serve ", a.epoch); }
  static std::string Words(const StopServing& a) { return absl::StrCat("stop ", a.epoch); }
  static std::string Words(const GiveUpGroup&) { return "give up"; }

  std::optional<Membership> membership_;
  absl::Time now_ = kStart;
};

// Two ranks, processes 10 and 11, that serve epoch 1.
Group ServingPair(MembershipOptions options = {}) {
  Group group(2, options);
  group.Joins("local", 2).IsReady(0, 10).IsReady(1, 11).HasJoined(1, {0, 1});
  EXPECT_EQ(group.Actions(), "assign local [0,1] start [0,1]; begin 1; serve 1");
  return group;
}

TEST(Membership, WaitsForEveryoneAtEveryStage) {
  Group group(2);
  EXPECT_EQ(group.Joins("local", 2).Actions(), "assign local [0,1] start [0,1]");
  EXPECT_EQ(group.Loads(0, 10).Loads(1, 11).IsReady(1, 11).Actions(), "");
  EXPECT_EQ(group->Awaited(), "waiting for rank 0 (pid 10) to load (0 of 100 bytes)");
  EXPECT_EQ(group.IsReady(0, 10).Actions(), "begin 1");
  EXPECT_EQ(group.HasJoined(1, {0}).Actions(), "");
  EXPECT_EQ(group->Awaited(), "waiting for rank 1 (pid 11) to join epoch 1");
  EXPECT_EQ(group.HasJoined(1, {1}).Actions(), "serve 1");
}

// Ranks 0 and 1 (processes 10 and 11) on "local", rank 2 (process 12) on "b", in epoch 1.
Group ServingOnTwoAgents(MembershipOptions options = {}) {
  options.agents = 2;
  Group group(3, options);
  group.Joins("b", 2).Joins("local", 2).IsReady(0, 10).IsReady(1, 11).IsReady(2, 12);
  EXPECT_EQ(group.Actions(), "assign b [2] start [2]; assign local [0,1] start [0,1]; begin 1");
  group.Listens(0, 1).Listens(2, 1).HasJoined(1, {0, 1, 2});
  EXPECT_EQ(group.Actions(), "peers 1 [0,2]; serve 1");
  return group;
}

TEST(Membership, AssignsWhenAllAgentsAreThere) {
  Group group(3, {.agents = 2});
  EXPECT_TRUE(group->HasRoom(/*local=*/true));
  EXPECT_EQ(group.Joins("local", 2).Actions(), "");
  EXPECT_EQ(group->Awaited(), "waiting for 1 more agent to join, of 2");
  EXPECT_FALSE(group->HasRoom(/*local=*/true));
  EXPECT_TRUE(group->HasRoom(/*local=*/false));
  EXPECT_EQ(group.Joins("b", 2).Actions(),
            "assign b [2] start [2]; assign local [0,1] start [0,1]");
  EXPECT_FALSE(group->HasRoom(/*local=*/false));
}

TEST(Membership, AnAgentThatLeavesBeforeTheOthersCameIsAwaitedAgain) {
  Group group(2, {.agents = 2});
  EXPECT_EQ(group.Joins("b", 2).Leaves("b").Joins("local", 2).Actions(), "");
  EXPECT_EQ(group->Awaited(),
            "waiting for 1 more agent to join, of 2 (agent 'b' at b.example was lost: its session "
            "ended)");
}

TEST(Membership, AgentsThatDoNotComeInTimeAreTheEndOfTheGroup) {
  Group group(2, {.agents = 2, .agents_deadline = kStart + absl::Minutes(10)});
  group.Joins("local", 2);
  EXPECT_EQ(group->next_deadline(), kStart + absl::Minutes(10));
  EXPECT_EQ(group.At(absl::Minutes(10)).Actions(), "give up");
  EXPECT_EQ(group->failure(),
            absl::UnavailableError("the group did not form in time: waiting for 1 more agent "
                                   "to join, of 2"));
}

TEST(Membership, AfterTheStartAgentsAreAwaitedForEver) {
  Group group = ServingOnTwoAgents({.agents_deadline = kStart + absl::Minutes(10)});
  group.Leaves("b").HasLeft(1, {0, 1});
  group.Actions();
  EXPECT_EQ(group.At(absl::Hours(100)).Actions(), "");
}

TEST(Membership, AddressesAreSharedOnceEveryAgentListens) {
  Group group(3, {.agents = 2});
  group.Joins("local", 2).Joins("b", 2).IsReady(0, 10).IsReady(1, 11).IsReady(2, 12);
  group.Actions();
  EXPECT_EQ(group.Listens(2, 1).Actions(), "");
  EXPECT_EQ(group.Listens(2, 7).Listens(9, 1).Actions(), "") << "of no epoch, of no rank";
  EXPECT_EQ(group.Listens(0, 1).Actions(), "peers 1 [0,2]");
}

TEST(Membership, OfSeveralGroupsThoseThatLieOnTwoAgentsAreAwaited) {
  Group group(6, {.agents = 2, .data_parallel = 3});
  group.Joins("local", 3).Joins("b", 3);
  for (uint32_t rank = 0; rank < 6; ++rank) group.IsReady(rank, 10 + rank);
  group.Actions();
  EXPECT_EQ(group.Listens(0, 1).Listens(3, 1).Actions(), "") << "rank 0's group is on one agent";
  EXPECT_EQ(group.Listens(2, 1).Actions(), "peers 1 [2,3]");
}

TEST(Membership, GroupsOfGpusWaitForTheirFirstRanksOnOneAgentToo) {
  Group group(4, {.data_parallel = 2, .on_gpus = true});
  group.Joins("local", 4);
  for (uint32_t rank = 0; rank < 4; ++rank) group.IsReady(rank, 10 + rank);
  group.Actions();
  EXPECT_EQ(group.Listens(2, 1).Listens(3, 1).Actions(), "") << "rank 3 is no first one";
  EXPECT_EQ(group.Listens(0, 1).Actions(), "peers 1 [0,2]");
}

TEST(Membership, ALostAgentEndsTheEpochAndTheOthersKeepTheirRanks) {
  Group group = ServingOnTwoAgents();
  group.Leaves("b");
  const std::vector<MembershipAction> actions = group->TakeActions();
  EXPECT_EQ(
      std::get<StopServing>(actions.at(0)).status,
      absl::UnavailableError("rank 2 (pid 12) was lost: agent 'b' was lost: its session ended"));
  EXPECT_EQ(group->Awaited(),
            "waiting for 1 more agent to join, of 2 (agent 'b' at b.example was lost: its session "
            "ended), rank 0 (pid 10) to leave epoch 1, rank 1 (pid 11) to leave epoch 1");
  EXPECT_EQ(group->status().agents[1].state, "lost");
  EXPECT_EQ(group->status().ranks[2].state, "lost");
  EXPECT_EQ(group->status().agents[1].loss, "agent 'b' at b.example was lost: its session ended");
  group.HasLeft(1, {0, 1});
  EXPECT_EQ(group.Joins("c", 64).Actions(), "assign c [2] start [2]");
  EXPECT_EQ(group.IsReady(2, 13).Actions(), "begin 2");
  EXPECT_EQ(group.HasJoined(2, {0, 1, 2}).Actions(), "serve 2");
  EXPECT_EQ(group->status().agents[1].name, "c");
}

TEST(Membership, AgentsThatDoNotReachEachOtherTryAgainAndKeepTheirRanks) {
  Group group = ServingOnTwoAgents();
  group.Fails(0, 1, /*joined=*/true).HasLeft(1, {0, 1, 2});
  EXPECT_EQ(group.Actions(), "stop 1; end 1; begin 2");
  EXPECT_EQ(group.DoesNotReachOthers(0, 2).HasLeft(2, {0, 1, 2}).Actions(), "end 2");
  EXPECT_EQ(group->next_deadline(), kStart + absl::Milliseconds(100));
  EXPECT_EQ(group.At(absl::Milliseconds(100)).Actions(), "begin 3");
  EXPECT_EQ(group.DoesNotReachOthers(0, 3).HasLeft(3, {0, 1, 2}).Actions(), "end 3");
  EXPECT_EQ(group.At(absl::Milliseconds(299)).Actions(), "");
  EXPECT_EQ(group.At(absl::Milliseconds(300)).Actions(), "begin 4");
}

TEST(Membership, AgentsThatNeverReachEachOtherAreGivenUp) {
  Group group(2, {.agents = 2, .first_start_attempts = 2});
  group.Joins("local", 1).Joins("b", 1).IsReady(0, 10).IsReady(1, 11);
  group.DoesNotReachOthers(0, 1).HasLeft(1, {0, 1}).At(absl::Seconds(1)).Actions();
  EXPECT_EQ(group.DoesNotReachOthers(1, 2).Actions(), "end 2; give up");
  EXPECT_EQ(group->failure(),
            absl::UnavailableError("the agents did not reach each other 2 times; the last time: "
                                   "rank 1 (pid 11) failed in epoch 2: no way"));
}

TEST(Membership, AgentsThatComeAndGoAreNoFailedStarts) {
  Group group = ServingOnTwoAgents({.first_start_attempts = 2, .restart_attempts = 2});
  for (int i = 0; i < 10; ++i) group.Leaves("b").Joins("b", 1);
  group.Actions();
  EXPECT_EQ(group.Dies(2).Actions(), "");
  EXPECT_TRUE(group->failure().ok());
}

TEST(Membership, TellsTheStateOfTheGroup) {
  Group group(2);
  group.Joins("local", 2).Loads(0, 10, 25).IsReady(1, 11);
  GroupStatus status = group->status();
  EXPECT_EQ(status.state, "starting");
  EXPECT_EQ(status.epoch, 0u);
  EXPECT_EQ(status.ranks[0].state, "loading");
  EXPECT_EQ(status.ranks[0].load_progress, 0.25);
  EXPECT_EQ(status.ranks[1].state, "ready");
  EXPECT_EQ(status.ranks[1].process_id, 11);
  group.IsReady(0, 10).HasJoined(1, {0, 1}).Dies(0);
  status = group->status();
  EXPECT_EQ(status.state, "recovering");
  EXPECT_EQ(status.epoch, 1u);
  EXPECT_EQ(status.ranks[0].restarts, 1u);
  EXPECT_EQ(status.ranks[1].restarts, 0u);
}

TEST(Membership, ALostRankIsReplacedAndTheNextEpochServes) {
  Group group = ServingPair();
  EXPECT_EQ(group.Dies(1).Actions(), "stop 1; end 1; assign local [0,1] start [1]");
  EXPECT_EQ(group.IsReady(1, 12).Actions(), "") << "rank 0 has not left epoch 1";
  EXPECT_EQ(group.HasLeft(1, {0}).Actions(), "begin 2");
  EXPECT_EQ(group.HasJoined(2, {0, 1}).Actions(), "serve 2");
}

TEST(Membership, TheLossNamesTheRankItsProcessAndTheCause) {
  Group group = ServingPair();
  group.Dies(1, "killed by signal 9");
  const std::vector<MembershipAction> actions = group->TakeActions();
  EXPECT_EQ(std::get<StopServing>(actions.at(0)).status,
            absl::UnavailableError("rank 1 (pid 11) was lost: killed by signal 9"));
}

TEST(Membership, OldEpochsAreIgnored) {
  Group group = ServingPair();
  group.Dies(1).HasLeft(1, {0}).IsReady(1, 12);
  group.Actions();
  EXPECT_EQ(group.HasJoined(1, {0, 1}).Fails(0, 1, true).Actions(), "");
  group->StepFailed(1, absl::InternalError("late"), kStart);
  EXPECT_EQ(group.HasLeft(1, {0, 1}).Actions(), "");
  EXPECT_EQ(group.HasJoined(2, {0, 1}).Actions(), "serve 2");
}

TEST(Membership, AFailedStepEndsTheEpochButNoProcess) {
  Group group = ServingPair();
  group->StepFailed(1, absl::DeadlineExceededError("step 7 took too long"), kStart);
  EXPECT_EQ(group.Actions(), "stop 1; end 1");
  EXPECT_EQ(group.HasLeft(1, {0}).Actions(), "");
  EXPECT_EQ(group.HasLeft(1, {1}).Actions(), "begin 2");
}

TEST(Membership, ARankThatFailsAStepIsKept) {
  Group group = ServingPair();
  EXPECT_EQ(group.Fails(1, 1, /*joined=*/true).Actions(), "stop 1; end 1");
  EXPECT_EQ(group.HasLeft(1, {0, 1}).Actions(), "begin 2");
}

TEST(Membership, ARankThatCannotJoinIsReplaced) {
  Group group(2);
  group.Joins("local", 2).IsReady(0, 10).IsReady(1, 11);
  group.Actions();
  EXPECT_EQ(group.Fails(1, 1, /*joined=*/false).Actions(), "end 1; kill 1 pid 11");
  EXPECT_EQ(group.HasLeft(1, {0, 1}).Actions(), "") << "condemned";
  EXPECT_EQ(group.Dies(1).Actions(), "assign local [0,1] start [1]");
}

TEST(Membership, ARankThatDoesNotJoinInTimeIsReplaced) {
  Group group(2, {.join_epoch_timeout = absl::Seconds(10)});
  group.Joins("local", 2).IsReady(0, 10).IsReady(1, 11).HasJoined(1, {0});
  group.Actions();
  EXPECT_EQ(group->next_deadline(), kStart + absl::Seconds(10));
  EXPECT_EQ(group.At(absl::Seconds(9)).Actions(), "");
  EXPECT_EQ(group.At(absl::Seconds(10)).Actions(), "end 1; kill 1 pid 11");
}

TEST(Membership, ARankThatDoesNotLeaveInTimeIsReplaced) {
  Group group = ServingPair({.leave_epoch_timeout = absl::Seconds(10)});
  group->StepFailed(1, absl::DeadlineExceededError("step 7"), kStart);
  EXPECT_EQ(group.HasLeft(1, {0}).Actions(), "stop 1; end 1");
  EXPECT_EQ(group.At(absl::Seconds(10)).Actions(), "kill 1 pid 11");
  EXPECT_EQ(group.At(absl::Seconds(20)).Actions(), "") << "once is enough";
  EXPECT_EQ(group.Dies(1).IsReady(1, 12).Actions(), "assign local [0,1] start [1]; begin 2");
}

TEST(Membership, RestartsComeAtGrowingDistances) {
  Group group(1, {.first_start_attempts = 100});
  group.Joins("local", 1);
  group.Actions();
  absl::Duration now;
  for (const int delay : {0, 100, 200, 400, 800, 1600, 3200, 5000, 5000}) {
    group.Dies(0);
    if (delay > 0) {
      EXPECT_EQ(group->next_deadline(), kStart + now + absl::Milliseconds(delay));
      EXPECT_EQ(group.At(now + absl::Milliseconds(delay - 1)).Actions(), "");
      now += absl::Milliseconds(delay);
      group.At(now);
    }
    EXPECT_EQ(group.Actions(), "assign local [0] start [0]") << delay;
  }
}

TEST(Membership, AMinuteOfServiceForgivesEarlierFailures) {
  Group group(1);
  group.Joins("local", 1).Dies(0).IsReady(0, 10).HasJoined(1, {0});
  group.At(absl::Seconds(59)).Dies(0);
  EXPECT_EQ(group->next_deadline(), kStart + absl::Seconds(59) + absl::Milliseconds(100));
  group.At(absl::Seconds(60)).IsReady(0, 11).HasJoined(2, {0});
  group.Actions();
  EXPECT_EQ(group.At(absl::Seconds(120)).Dies(0).Actions(),
            "stop 2; end 2; assign local [0] start [0]");
}

TEST(Membership, APermanentFailureOfOneRankIsThatOfTheGroup) {
  Group group(2);
  group.Joins("local", 2).IsReady(0, 10);
  group.Actions();
  group.Refuses(1, absl::NotFoundError("tensor model.norm.weight is missing"));
  EXPECT_EQ(group.Actions(), "give up");
  EXPECT_EQ(group->failure(), absl::NotFoundError("rank 1: tensor model.norm.weight is missing"));
  EXPECT_EQ(group.At(absl::Hours(2)).Dies(0).Actions(), "");
  EXPECT_EQ(group->next_deadline(), absl::InfiniteFuture());
}

TEST(Membership, StartsThatFailAgainAndAgainAreGivenUp) {
  Group group(1, {.first_start_attempts = 3});
  group.Joins("local", 1).Dies(0).Dies(0);
  group.At(absl::Milliseconds(100));
  EXPECT_EQ(group.Actions(),
            "assign local [0] start [0]; assign local [0] start [0]; "
            "assign local [0] start [0]");
  EXPECT_EQ(group.Dies(0, "killed by signal 11").Actions(), "give up");
  EXPECT_EQ(group->failure(),
            absl::UnavailableError(
                "rank 0 was lost 3 times before it served; the last time: killed by signal 11"));
}

TEST(Membership, ALoadThatStandsStillIsStartedAgain) {
  Group group(1, {.load_stall_timeout = absl::Seconds(60)});
  group.Joins("local", 1).Loads(0, 10, 1);
  group.Actions();
  group.At(absl::Seconds(50)).Loads(0, 10, 2);
  EXPECT_EQ(group.At(absl::Seconds(109)).Loads(0, 10, 2).Actions(), "");
  EXPECT_EQ(group.At(absl::Seconds(110)).Actions(), "kill 0 pid 10");
  EXPECT_EQ(group.Dies(0).Actions(), "assign local [0] start [0]");
}

TEST(Membership, ALoadThatTakesTooLongIsStartedAgain) {
  Group group(1, {.load_timeout = absl::Minutes(3), .load_stall_timeout = absl::Minutes(2)});
  group.Joins("local", 1).Loads(0, 10, 1);
  group.At(absl::Minutes(1)).Loads(0, 10, 2);
  group.At(absl::Minutes(2)).Loads(0, 10, 3);
  group.Actions();
  EXPECT_EQ(group.At(absl::Minutes(3)).Actions(), "kill 0 pid 10");
}

TEST(Membership, AnAgentThatJoinsAnewHasLostItsRanks) {
  Group group = ServingPair();
  EXPECT_EQ(group.Joins("local", 2).Actions(), "stop 1; end 1; assign local [0,1] start [0,1]");
}

TEST(Membership, DrainingEndsTheEpochAndStartsNothing) {
  Group group = ServingPair();
  group->Drain(kStart);
  EXPECT_EQ(group.Actions(), "stop 1; end 1");
  EXPECT_EQ(group->status().state, "draining");
  EXPECT_EQ(group.HasLeft(1, {0, 1}).Dies(0).Dies(1).At(absl::Minutes(5)).Actions(), "");
}

TEST(Membership, WhatNamesNoRankIsIgnored) {
  Group group = ServingPair();
  EXPECT_EQ(group.Dies(2).Loads(7, 1).HasLeft(1, {9}).Fails(5, 1, false).Leaves("other").Actions(),
            "");
  EXPECT_TRUE(group->serving());
}

}  // namespace
}  // namespace cohort
