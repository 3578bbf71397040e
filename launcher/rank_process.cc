#include "launcher/rank_process.h"

#include <fcntl.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <utility>
#include <vector>

namespace cohort {
namespace {

// The child's descriptors after 0, 1 and 2.
constexpr int kControlFd = 3;
constexpr int kReportFd = 4;
constexpr int kFirstClosedFd = 5;

// What the child needs, made before the fork: between fork and exec only async-signal-safe calls
// are allowed, which excludes allocation.
struct ChildPlan {
  const char* executable;
  std::array<char*, 5> arguments;
  std::vector<char*> environment;
  int control;  // above kReportFd
  int report;   // above kReportFd; errno goes there when the child cannot become a rank
  pid_t parent;
};

[[noreturn]] void GiveUp(int report) {
  const int error = errno;
  [[maybe_unused]] const ssize_t written = write(report, &error, sizeof(error));
  _exit(127);
}

void ResetSignals() {
  struct sigaction standard = {};
  standard.sa_handler = SIG_DFL;
  for (int number = 1; number < NSIG; ++number) sigaction(number, &standard, nullptr);
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, nullptr);
}

// Runs in the child.
[[noreturn]] void BecomeRank(const ChildPlan& plan) {
  if (prctl(PR_SET_PDEATHSIG, SIGKILL) != 0) GiveUp(plan.report);
  if (getppid() != plan.parent) _exit(127);  // the parent died before the line above
  ResetSignals();
  const int nothing = open("/dev/null", O_RDONLY);
  if (nothing < 0 || dup2(nothing, STDIN_FILENO) < 0 ||
      dup2(STDERR_FILENO, STDOUT_FILENO) < 0 ||  // standard output carries only results
      dup2(plan.control, kControlFd) < 0 || dup2(plan.report, kReportFd) < 0 ||
      fcntl(kReportFd, F_SETFD, FD_CLOEXEC) != 0) {
    GiveUp(plan.report);
  }
  // Libraries of the parent may hold descriptors that are not close-on-exec. Kernels before 5.9
  // lack the call; our own descriptors do not need it.
  syscall(SYS_close_range, kFirstClosedFd, ~0U, 0);
  execve(plan.executable, plan.arguments.data(), plan.environment.data());
  GiveUp(kReportFd);
}

// `added` and this process's variables of other names, ended by a null; valid while neither
// changes.
std::vector<char*> MergeEnvironment(const std::vector<std::string>& added) {
  std::vector<char*> merged;
  for (const std::string& variable : added) merged.push_back(const_cast<char*>(variable.c_str()));
  for (char** own = environ; *own != nullptr; ++own) {
    const StringView name = StringView(*own).substr(0, StringView(*own).find('=') + 1);
    const bool is_replaced = std::any_of(added.begin(), added.end(), [name](StringView variable) {
      return variable.substr(0, name.size()) == name;
    });
    if (!is_replaced) merged.push_back(*own);
  }
  merged.push_back(nullptr);
  return merged;
}

// A duplicate above the descriptors that the child gives a meaning to.
FileDescriptor Above(int fd) { return FileDescriptor(fcntl(fd, F_DUPFD_CLOEXEC, kFirstClosedFd)); }

absl::Status StartError(const std::string& executable, StringView what, int error) {
  return absl::UnavailableError(absl::StrCat("cannot start a rank process (", executable,
                                             "): ", what, ": ", std::strerror(error)));
}

// 0 once the child runs the executable, else its errno. Waits for one or the other.
int ReadReport(int report) {
  int error = 0;
  ssize_t bytes;
  do {
    bytes = read(report, &error, sizeof(error));
  } while (bytes < 0 && errno == EINTR);
  return bytes == sizeof(error) ? error : 0;
}

}  // namespace

std::string ExitStatus::Words() const {
  return signalled ? absl::StrCat("killed by signal ", code, " (", strsignal(code), ")")
                   : absl::StrCat("exited with ", code);
}

absl::StatusOr<std::unique_ptr<RankProcess>> RankProcess::Start(
    const std::string& executable, const std::vector<std::string>& environment) {
  ASSIGN_OR_RETURN(ControlSocket::Pair sockets, ControlSocket::MakePair());
  int report[2];
  if (pipe2(report, O_CLOEXEC) != 0) return StartError(executable, "pipe", errno);
  const FileDescriptor report_read(report[0]);
  FileDescriptor report_write(report[1]);
  FileDescriptor high_report = Above(report_write.get());
  FileDescriptor high_control = Above(sockets.second.fd());
  if (!high_report.valid() || !high_control.valid()) {
    return StartError(executable, "descriptors", errno);
  }
  std::array<std::string, 4> words = {"cohort", "rank", "--control-fd", absl::StrCat(kControlFd)};
  const ChildPlan plan = {
      .executable = executable.c_str(),
      .arguments = {words[0].data(), words[1].data(), words[2].data(), words[3].data(), nullptr},
      .environment = MergeEnvironment(environment),
      .control = high_control.get(),
      .report = high_report.get(),
      .parent = getpid()};
  const pid_t child = fork();
  if (child < 0) return StartError(executable, "fork", errno);
  if (child == 0) BecomeRank(plan);
  report_write.Close();
  high_report.Close();
  FileDescriptor pidfd(static_cast<int>(syscall(SYS_pidfd_open, child, 0)));
  std::unique_ptr<RankProcess> process(
      new RankProcess(child, std::move(sockets.first), std::move(pidfd)));
  const int error = ReadReport(report_read.get());
  if (error != 0) return StartError(executable, "exec", error);
  return process;
}

RankProcess::~RankProcess() {
  if (exit_.has_value()) return;
  kill(process_id_, SIGKILL);
  while (waitpid(process_id_, nullptr, 0) < 0 && errno == EINTR) {
  }
}

void RankProcess::Kill() {
  // Not reaped, so the id is still its own.
  if (!exit_.has_value()) kill(process_id_, SIGKILL);
}

std::optional<ExitStatus> RankProcess::TryReap() {
  if (exit_.has_value()) return exit_;
  int status = 0;
  const pid_t reaped = waitpid(process_id_, &status, WNOHANG);
  if (reaped != process_id_) return std::nullopt;
  exit_ = WIFSIGNALED(status) ? ExitStatus{.signalled = true, .code = WTERMSIG(status)}
                              : ExitStatus{.signalled = false, .code = WEXITSTATUS(status)};
  return exit_;
}

}  // namespace cohort
