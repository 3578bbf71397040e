#include "launcher/rank_process.h"

#include <gtest/gtest.h>
#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <set>
#include <string>

namespace cohort {
namespace {

// Executable files whose first line names their interpreter stand in for ranks here.
class Script {
 public:
  explicit Script(const std::string& body)
      : path_(testing::TempDir() + "cohort-rank-" + std::to_string(getpid()) + ".sh") {
    std::ofstream(path_) << "#!/bin/sh\n" << body << "\n";
    std::filesystem::permissions(path_, std::filesystem::perms::owner_all);
  }
  ~Script() { std::filesystem::remove(path_); }
  const std::string& path() const { return path_; }

 private:
  const std::string path_;
};

ExitStatus WaitForExit(RankProcess& process) {
  for (;;) {
    const std::optional<ExitStatus> exit = process.TryReap();
    if (exit.has_value()) return *exit;
    pollfd watched = {process.exit_fd(), POLLIN, 0};
    poll(&watched, 1, process.exit_fd() >= 0 ? 60'000 : 10);
  }
}

TEST(ProcessRankProcess, GetsItsControlSocketAndNothingElse) {
  int leaked[2];  // not close-on-exec, as some libraries' descriptors are
  ASSERT_EQ(pipe(leaked), 0);
  const Script script("ls /proc/self/fd >&3; echo \"$*\" >&3; echo result");
  auto process = RankProcess::Start(script.path()).value();
  const auto receive = [&] { return process->control().Receive().value()->bytes; };
  std::string fds = receive();
  std::replace(fds.begin(), fds.end(), '\n', ' ');
  // The fourth is the folder that `ls` reads, the last one the shell's own script.
  EXPECT_EQ(fds.substr(0, 8), "0 1 2 3 ") << fds;
  EXPECT_LE(fds.size(), 13u) << fds;
  EXPECT_EQ(receive(), "rank --control-fd 3\n");
  EXPECT_EQ(WaitForExit(*process).Words(), "exited with 0");
  close(leaked[0]);
  close(leaked[1]);
}

TEST(ProcessRankProcess, HasTheVariablesItIsGivenBesideOurOwn) {
  ASSERT_EQ(setenv("COHORT_TEST_OURS", "ours", 1), 0);
  ASSERT_EQ(setenv("COHORT_TEST_BOTH", "ours", 1), 0);
  const Script script("echo \"$COHORT_TEST_OURS $COHORT_TEST_BOTH $COHORT_TEST_GIVEN\" >&3");
  const std::vector<std::string> given = {"COHORT_TEST_BOTH=given", "COHORT_TEST_GIVEN=given"};
  auto process = RankProcess::Start(script.path(), given).value();
  EXPECT_EQ(process->control().Receive().value()->bytes, "ours given given\n");
  EXPECT_EQ(WaitForExit(*process).Words(), "exited with 0");
}

TEST(ProcessRankProcess, StandardOutputGoesToStandardError) {
  const Script script("[ /proc/self/fd/1 -ef /proc/self/fd/2 ] && exit 7; exit 1");
  auto process = RankProcess::Start(script.path()).value();
  EXPECT_EQ(WaitForExit(*process).Words(), "exited with 7");
}

TEST(ProcessRankProcess, ASignalIsNamed) {
  const Script script("kill -9 $$");
  auto process = RankProcess::Start(script.path()).value();
  EXPECT_EQ(WaitForExit(*process).Words(), "killed by signal 9 (Killed)");
}

TEST(ProcessRankProcess, AnExecutableThatIsNotThereIsAnError) {
  const absl::Status status = RankProcess::Start("/nonexistent/cohort").status();
  EXPECT_TRUE(absl::IsUnavailable(status));
  EXPECT_NE(status.message().find("/nonexistent/cohort): exec: No such file"), std::string::npos)
      << status;
}

TEST(ProcessRankProcess, GoesWithItsOwner) {
  const Script script("read line <&3");
  int64_t process_id = 0;
  {
    const auto process = RankProcess::Start(script.path()).value();
    process_id = process->process_id();
    EXPECT_EQ(kill(static_cast<pid_t>(process_id), 0), 0);
  }
  EXPECT_NE(kill(static_cast<pid_t>(process_id), 0), 0);
}

}  // namespace
}  // namespace cohort
