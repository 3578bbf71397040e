// Work for one thread, from any thread. Its descriptor is readable while there is work, so that the
// thread can wait for it and for other things in one poll.
#ifndef COHORT_LAUNCHER_TASK_QUEUE_H_
#define COHORT_LAUNCHER_TASK_QUEUE_H_

#include <functional>
#include <mutex>
#include <vector>

#include "absl/time/time.h"
#include "launcher/file_descriptor.h"

namespace cohort {

// Now, on a clock that no one sets: for deadlines between our own threads. Its origin is arbitrary.
absl::Time SteadyNow();

// The timeout of poll(2) for a deadline on SteadyNow: milliseconds rounded up, -1 for never.
int PollTimeout(absl::Time deadline, absl::Time now);

class TaskQueue {
 public:
  using Task = std::function<void()>;

  TaskQueue();

  void Post(Task task);
  int fd() const { return event_.get(); }

  // Runs what was posted so far, in order. From the one thread.
  void Run();

 private:
  FileDescriptor event_;  // an eventfd
  std::mutex mutex_;
  std::vector<Task> tasks_;
};

}  // namespace cohort

#endif  // COHORT_LAUNCHER_TASK_QUEUE_H_
