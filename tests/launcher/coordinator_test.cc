// Real rank processes (the `cohort` of this build) with a pocket model of random weights.
#include "launcher/coordinator.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>

#include <cerrno>
#include <functional>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "absl/time/clock.h"
#include "tests/launcher/pocket_model.h"
#include "tests/runtime/recording_sink.h"

namespace cohort {
namespace {

absl::Time InAMinute() { return absl::Now() + absl::Minutes(1); }

CoordinatorOptions PocketOptions(int ranks) {
  CoordinatorOptions options;
  options.configuration = PocketConfiguration(ranks);
  options.scheduler.blocks = 256;
  options.scheduler.max_batch_tokens = 64;
  options.scheduler.max_running = 8;
  options.scheduler.max_model_len = 4096;
  options.scheduler.eos_token_ids = {95};
  options.rank_executable = COHORT_BINARY_DIR "/bin/cohort";
  return options;
}

std::unique_ptr<Coordinator> StartServing(CoordinatorOptions options) {
  auto coordinator = Coordinator::Start(std::move(options)).value();
  EXPECT_EQ(coordinator->WaitUntilServing(InAMinute()), absl::OkStatus());
  return coordinator;
}

std::shared_ptr<RecordingSink> Submit(Coordinator& coordinator, int64_t max_tokens) {
  Request request;
  request.prompt = {1, 2, 3, 4, 5};
  request.stopping.max_tokens = max_tokens;
  request.stopping.ignore_eos = true;
  auto sink = std::make_shared<RecordingSink>();
  EXPECT_TRUE(coordinator.engine().Submit(std::move(request), sink).ok());
  return sink;
}

std::vector<int32_t> Generate(Coordinator& coordinator, int64_t max_tokens) {
  const auto sink = Submit(coordinator, max_tokens);
  EXPECT_EQ(sink->WaitForFinish().status, absl::OkStatus());
  return sink->tokens();
}

// Polls, for what only the group's status tells.
void WaitFor(const std::function<bool()>& condition) {
  const absl::Time deadline = InAMinute();
  while (!condition() && absl::Now() < deadline) std::this_thread::yield();
  EXPECT_TRUE(condition());
}

void WaitForEpoch(Coordinator& coordinator, uint64_t epoch) {
  WaitFor([&] {
    const GroupStatus group = coordinator.group();
    return group.state == "serving" && group.epoch >= epoch;
  });
}

std::vector<pid_t> ProcessIds(const Coordinator& coordinator) {
  std::vector<pid_t> ids;
  for (const RankStatus& rank : coordinator.group().ranks) {
    ids.push_back(static_cast<pid_t>(rank.process_id));
  }
  return ids;
}

bool HasNoChild() { return waitpid(-1, nullptr, WNOHANG) == -1 && errno == ECHILD; }

TEST(ProcessCoordinator, ServesTheSameTokensWhateverTheDegree) {
  std::vector<int32_t> expected;
  for (const int ranks : {1, 2, 4}) {
    const auto coordinator = StartServing(PocketOptions(ranks));
    const std::vector<int32_t> tokens = Generate(*coordinator, 12);
    EXPECT_EQ(tokens.size(), 12u);
    if (expected.empty()) expected = tokens;
    EXPECT_EQ(tokens, expected) << ranks << " ranks";
  }
  EXPECT_TRUE(HasNoChild());
}

TEST(ProcessCoordinator, TellsTheStateOfItsRanks) {
  const auto coordinator = StartServing(PocketOptions(2));
  const GroupStatus group = coordinator->group();
  EXPECT_EQ(group.state, "serving");
  EXPECT_EQ(group.epoch, 1u);
  ASSERT_EQ(group.ranks.size(), 2u);
  for (int i = 0; i < 2; ++i) {
    const RankStatus& rank = group.ranks[static_cast<size_t>(i)];
    EXPECT_EQ(rank.rank, i);
    EXPECT_EQ(rank.agent, "local");
    EXPECT_EQ(kill(static_cast<pid_t>(rank.process_id), 0), 0);
    EXPECT_EQ(rank.state, "serving");
    EXPECT_EQ(rank.load_progress, 1);
    EXPECT_GT(rank.weight_bytes, 0);
    EXPECT_GT(rank.kv_bytes, 0);
    EXPECT_FALSE(rank.device.empty());
  }
}

TEST(ProcessCoordinator, AKilledRankEndsItsRequestsAndIsReplaced) {
  const auto coordinator = StartServing(PocketOptions(2));
  const std::vector<int32_t> expected = Generate(*coordinator, 12);
  for (const size_t victim : {0u, 1u}) {
    const std::vector<pid_t> before = ProcessIds(*coordinator);
    const uint64_t epoch = coordinator->group().epoch;
    const auto sink = Submit(*coordinator, 4000);
    sink->WaitForTokens(2);
    kill(before[victim], SIGKILL);
    const Finish finish = sink->WaitForFinish();
    EXPECT_EQ(finish.reason, FinishReason::kError);
    EXPECT_EQ(finish.status,
              absl::UnavailableError(absl::StrCat("rank ", victim, " (pid ", before[victim],
                                                  ") was lost: killed by signal 9 (Killed)")));
    WaitForEpoch(*coordinator, epoch + 1);
    const std::vector<pid_t> after = ProcessIds(*coordinator);
    EXPECT_NE(after[victim], before[victim]);
    EXPECT_EQ(after[1 - victim], before[1 - victim]) << "the survivor keeps its weights";
    EXPECT_EQ(Generate(*coordinator, 12), expected);
    EXPECT_EQ(coordinator->engine().load().kv_blocks_used, 0);
  }
}

TEST(ProcessCoordinator, TellsWhenServingStartsAndStops) {
  auto coordinator = Coordinator::Start(PocketOptions(1)).value();
  std::mutex mutex;
  std::vector<bool> changes;
  coordinator->OnServingChange([&](bool serving) {
    const std::lock_guard<std::mutex> lock(mutex);
    changes.push_back(serving);
  });
  ASSERT_TRUE(coordinator->WaitUntilServing(InAMinute()).ok());
  kill(ProcessIds(*coordinator)[0], SIGKILL);
  WaitForEpoch(*coordinator, 2);
  coordinator->Shutdown();
  EXPECT_EQ(changes, (std::vector<bool>{true, false, true, false}));
}

TEST(ProcessCoordinator, AStuckRankIsReplacedAndTheOtherIsKept) {
  CoordinatorOptions options = PocketOptions(2);
  options.configuration.set_step_timeout_milliseconds(1000);
  options.leave_epoch_timeout = absl::Seconds(1);
  const auto coordinator = StartServing(std::move(options));
  const std::vector<pid_t> before = ProcessIds(*coordinator);
  kill(before[1], SIGSTOP);
  const auto sink = Submit(*coordinator, 12);
  EXPECT_EQ(sink->WaitForFinish().status.code(), absl::StatusCode::kUnavailable);
  WaitForEpoch(*coordinator, 2);
  const std::vector<pid_t> after = ProcessIds(*coordinator);
  EXPECT_EQ(after[0], before[0]);
  EXPECT_NE(after[1], before[1]);
  EXPECT_EQ(Generate(*coordinator, 12).size(), 12u);
}

TEST(ProcessCoordinator, ACheckpointThatCannotBeLoadedIsAPermanentFailure) {
  CoordinatorOptions options = PocketOptions(2);
  options.configuration.set_dummy_weights(false);
  options.configuration.set_model("/nonexistent/checkpoint");
  const auto coordinator = Coordinator::Start(std::move(options)).value();
  const absl::Status status = coordinator->WaitUntilServing(InAMinute());
  EXPECT_FALSE(status.ok());
  EXPECT_FALSE(absl::IsDeadlineExceeded(status));
  EXPECT_NE(status.message().find("/nonexistent/checkpoint"), std::string::npos) << status;
  EXPECT_EQ(coordinator->failure(), status);
  coordinator->Shutdown();
  EXPECT_TRUE(HasNoChild());
}

TEST(ProcessCoordinator, AnExecutableThatIsNotThereIsGivenUp) {
  CoordinatorOptions options = PocketOptions(1);
  options.rank_executable = "/nonexistent/cohort";
  const auto coordinator = Coordinator::Start(std::move(options)).value();
  const absl::Status status = coordinator->WaitUntilServing(InAMinute());
  EXPECT_TRUE(absl::IsUnavailable(status));
  EXPECT_NE(status.message().find("/nonexistent/cohort"), std::string::npos) << status;
}

TEST(ProcessCoordinator, AWaitThatIsOverSaysWhatWasAwaited) {
  const auto coordinator = Coordinator::Start(PocketOptions(1)).value();
  const absl::Status status = coordinator->WaitUntilServing(absl::InfinitePast());
  EXPECT_TRUE(absl::IsDeadlineExceeded(status));
  EXPECT_NE(status.message().find("waiting for"), std::string::npos) << status;
}

TEST(ProcessCoordinator, ShutdownEndsRequestsAndReapsEveryRank) {
  const auto coordinator = StartServing(PocketOptions(2));
  const std::vector<pid_t> ids = ProcessIds(*coordinator);
  const auto sink = Submit(*coordinator, 4000);
  sink->WaitForTokens(1);
  coordinator->Shutdown();
  EXPECT_TRUE(absl::IsUnavailable(sink->WaitForFinish().status));
  for (const pid_t id : ids) EXPECT_NE(kill(id, 0), 0);
  EXPECT_TRUE(HasNoChild());
  EXPECT_EQ(coordinator->group().state, "draining");
  coordinator->Shutdown();  // again: nothing
}

TEST(ProcessCoordinator, ShutdownWhileRanksLoadAndWithAStoppedRank) {
  { const auto loading = Coordinator::Start(PocketOptions(2)).value(); }
  CoordinatorOptions options = PocketOptions(2);
  options.exit_grace = absl::Milliseconds(100);
  const auto coordinator = StartServing(std::move(options));
  kill(ProcessIds(*coordinator)[0], SIGSTOP);
  coordinator->Shutdown();
  EXPECT_TRUE(HasNoChild());
}

TEST(Coordinator, RefusesConfigurationsThatNoRankCanHave) {
  CoordinatorOptions options = PocketOptions(1);
  options.configuration.set_data_parallel(0);
  EXPECT_TRUE(absl::IsInvalidArgument(Coordinator::Start(options).status()));
  options = PocketOptions(1);
  options.configuration.set_config_json(std::string(1 << 20, ' '));
  EXPECT_TRUE(absl::IsInvalidArgument(Coordinator::Start(options).status()));
  options = PocketOptions(1);
  options.configuration.set_step_timeout_milliseconds(0);
  EXPECT_TRUE(absl::IsInvalidArgument(Coordinator::Start(options).status()));
  options = PocketOptions(2);
  options.agents = 2;
  EXPECT_TRUE(absl::IsInvalidArgument(Coordinator::Start(options).status())) << "nowhere to join";
  options.cluster_listen = ClusterListenOptions{{"127.0.0.1", 0}, ""};
  options.agents = 3;
  EXPECT_TRUE(absl::IsInvalidArgument(Coordinator::Start(options).status())) << "3 for 2 ranks";
}

}  // namespace
}  // namespace cohort
