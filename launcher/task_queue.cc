#include "launcher/task_queue.h"

#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <limits>
#include <utility>

#include "kernels/check.h"
#include "parallel/shared_region.h"

namespace cohort {

absl::Time SteadyNow() { return absl::UnixEpoch() + absl::Nanoseconds(MonotonicNanos()); }

int PollTimeout(absl::Time deadline, absl::Time now) {
  if (deadline == absl::InfiniteFuture()) return -1;
  const absl::Duration left = absl::Ceil(deadline - now, absl::Milliseconds(1));
  return static_cast<int>(
      std::clamp<int64_t>(absl::ToInt64Milliseconds(left), 0, std::numeric_limits<int>::max()));
}

TaskQueue::TaskQueue() : event_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
  CHECK(event_.valid()) << "eventfd";
}

void TaskQueue::Post(Task task) {
  const std::lock_guard<std::mutex> lock(mutex_);
  tasks_.push_back(std::move(task));
  const uint64_t one = 1;
  CHECK_EQ(write(fd(), &one, sizeof(one)), static_cast<ssize_t>(sizeof(one)));
}

void TaskQueue::Run() {
  std::vector<Task> tasks;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    uint64_t posted = 0;
    // Nothing to read when nothing was posted.
    [[maybe_unused]] const ssize_t bytes = read(fd(), &posted, sizeof(posted));
    tasks = std::exchange(tasks_, {});
  }
  for (const Task& task : tasks) task();
}

}  // namespace cohort
