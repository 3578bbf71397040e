// One rank process: started, watched and reaped by its agent. The child inherits the environment,
// standard error (its standard output goes there too) and one control socket, nothing else.
#ifndef COHORT_LAUNCHER_RANK_PROCESS_H_
#define COHORT_LAUNCHER_RANK_PROCESS_H_

#include <sys/types.h>

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "kernels/status.h"
#include "launcher/control_socket.h"
#include "launcher/file_descriptor.h"

namespace cohort {

// How a process ended.
struct ExitStatus {
  bool signalled = false;
  int code = 0;               // the exit code, or the signal's number
  std::string Words() const;  // "killed by signal 9 (Killed)", "exited with 1"
};

class RankProcess {
 public:
  // Runs `executable rank --control-fd N`. Call from a thread that outlives the process: the kernel
  // kills the child when the thread that started it ends. UNAVAILABLE says why it cannot be run.
  // `environment`: NAME=value, in addition to this process's variables and before them.
  static absl::StatusOr<std::unique_ptr<RankProcess>> Start(
      const std::string& executable, const std::vector<std::string>& environment = {});

  // Kills and reaps what is still there.
  ~RankProcess();
  RankProcess(const RankProcess&) = delete;
  RankProcess& operator=(const RankProcess&) = delete;

  int64_t process_id() const { return process_id_; }
  ControlSocket& control() { return control_; }

  // Readable once the process has ended; -1 where the kernel has no pidfd: then ask TryReap.
  int exit_fd() const { return pidfd_.get(); }

  void Kill();  // SIGKILL; harmless once it has ended

  // Reaps the process if it has ended; the same answer from then on.
  std::optional<ExitStatus> TryReap();

 private:
  RankProcess(pid_t process_id, ControlSocket control, FileDescriptor pidfd)
      : process_id_(process_id), control_(std::move(control)), pidfd_(std::move(pidfd)) {}

  const pid_t process_id_;
  ControlSocket control_;
  FileDescriptor pidfd_;
  std::optional<ExitStatus> exit_;
};

}  // namespace cohort

#endif  // COHORT_LAUNCHER_RANK_PROCESS_H_
