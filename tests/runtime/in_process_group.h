// A whole group in one process: Workers on threads with thread communicators, behind StepLinks.
// The model end to end without launcher, shared memory or processes.
#ifndef COHORT_TESTS_RUNTIME_IN_PROCESS_GROUP_H_
#define COHORT_TESTS_RUNTIME_IN_PROCESS_GROUP_H_

#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

#include "runtime/model_config.h"
#include "runtime/scheduler.h"
#include "runtime/step_link.h"
#include "runtime/worker.h"

namespace cohort {

class InProcessGroup {
 public:
  // options.parallelism.world() workers, one CPU thread each; `options.rank` is set per worker.
  static absl::StatusOr<std::unique_ptr<InProcessGroup>> Create(
      const ModelConfig& config, WorkerOptions options, const DeviceOptions& device_options = {});
  // The executors made by Join must be gone.
  ~InProcessGroup() = default;

  // The group of a new epoch. Waits until the ranks have left the last one (whose executor must
  // have been aborted or destroyed).
  std::unique_ptr<Executor> Join(uint64_t epoch, absl::Duration step_timeout);

  // What the scheduler of this group needs to know of it.
  SchedulerOptions scheduler_options() const;

 private:
  class Rank;
  InProcessGroup(const ModelConfig& config, const WorkerOptions& options)
      : config_(config), options_(options) {}

  ModelConfig config_;
  WorkerOptions options_;
  std::vector<std::unique_ptr<Worker>> workers_;
  std::mutex mutex_;
  std::condition_variable left_;
  int joined_ = 0;  // ranks that belong to an epoch
};

}  // namespace cohort

#endif  // COHORT_TESTS_RUNTIME_IN_PROCESS_GROUP_H_
