// SIGTERM and SIGINT as something to wait for. Construct before any thread is started: the signals
// are blocked in the constructing thread and in those it starts, until destruction. Child processes
// inherit the blocked mask unless they are started with another one.
#ifndef COHORT_LAUNCHER_STOP_SIGNALS_H_
#define COHORT_LAUNCHER_STOP_SIGNALS_H_

#include <atomic>
#include <csignal>
#include <functional>
#include <thread>

#include "absl/time/time.h"

namespace cohort {

class StopSignals {
 public:
  StopSignals();
  ~StopSignals();
  StopSignals(const StopSignals&) = delete;
  StopSignals& operator=(const StopSignals&) = delete;

  // True when a signal came, each counted once; false after `timeout`.
  bool Wait(absl::Duration timeout);
  // True when `input` can be read (its end counts), false when a signal came first, which is then
  // taken. Waits as long as it takes.
  bool WaitForInput(int input);
  int fd() const { return fd_; }
  // Whether one of those that came was SIGTERM. Any thread.
  bool terminated() const { return terminated_.load(std::memory_order_relaxed); }

 private:
  int fd_ = -1;  // a signalfd
  std::atomic<bool> terminated_{false};
  sigset_t previous_;
};

// Calls `on_signal` from its own thread for every signal, until destruction.
class SignalWatcher {
 public:
  SignalWatcher(StopSignals& signals, std::function<void()> on_signal);
  ~SignalWatcher();

 private:
  int wake_fd_ = -1;  // an eventfd; readable when the thread shall end
  std::thread thread_;
};

}  // namespace cohort

#endif  // COHORT_LAUNCHER_STOP_SIGNALS_H_
