#include "launcher/stop_signals.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <limits>
#include <utility>

#include "kernels/check.h"

namespace cohort {

StopSignals::StopSignals() {
  sigset_t stop;
  sigemptyset(&stop);
  sigaddset(&stop, SIGTERM);
  sigaddset(&stop, SIGINT);
  CHECK_EQ(pthread_sigmask(SIG_BLOCK, &stop, &previous_), 0);
  fd_ = signalfd(-1, &stop, SFD_CLOEXEC | SFD_NONBLOCK);
  CHECK_GE(fd_, 0);
}

StopSignals::~StopSignals() {
  close(fd_);
  pthread_sigmask(SIG_SETMASK, &previous_, nullptr);
}

bool StopSignals::Wait(absl::Duration timeout) {
  pollfd waiting = {fd_, POLLIN, 0};
  const int64_t milliseconds =
      std::clamp<int64_t>(absl::ToInt64Milliseconds(timeout), 0, std::numeric_limits<int>::max());
  if (poll(&waiting, 1, static_cast<int>(milliseconds)) <= 0) return false;
  signalfd_siginfo signal;
  if (read(fd_, &signal, sizeof(signal)) != sizeof(signal)) return false;
  if (signal.ssi_signo == SIGTERM) terminated_.store(true, std::memory_order_relaxed);
  return true;
}

bool StopSignals::WaitForInput(int input) {
  for (;;) {
    pollfd waiting[] = {{input, POLLIN, 0}, {fd_, POLLIN, 0}};
    if (poll(waiting, 2, -1) < 0) continue;  // interrupted
    if (waiting[1].revents != 0 && Wait(absl::ZeroDuration())) return false;
    if (waiting[0].revents != 0) return true;
  }
}

SignalWatcher::SignalWatcher(StopSignals& signals, std::function<void()> on_signal)
    : wake_fd_(eventfd(0, EFD_CLOEXEC)) {
  CHECK_GE(wake_fd_, 0);
  thread_ = std::thread([this, &signals, on_signal = std::move(on_signal)] {
    for (;;) {
      pollfd waiting[] = {{signals.fd(), POLLIN, 0}, {wake_fd_, POLLIN, 0}};
      if (poll(waiting, 2, -1) < 0) continue;  // interrupted
      if (waiting[1].revents != 0) return;
      if (signals.Wait(absl::ZeroDuration())) on_signal();
    }
  });
}

SignalWatcher::~SignalWatcher() {
  const uint64_t one = 1;
  CHECK_EQ(write(wake_fd_, &one, sizeof(one)), static_cast<ssize_t>(sizeof(one)));
  thread_.join();
  close(wake_fd_);
}

}  // namespace cohort
