// A node's word on the checkpoint it would read, for the coordinator to compare with its own.
#ifndef COHORT_LAUNCHER_CHECKPOINT_REPORT_H_
#define COHORT_LAUNCHER_CHECKPOINT_REPORT_H_

#include <atomic>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#include "cohort/v1/cluster.pb.h"
#include "runtime/checkpoint_digest.h"

namespace cohort {

v1::CheckpointReport MakeCheckpointReport(const std::string& path,
                                          const absl::StatusOr<std::vector<CheckpointPart>>& parts);

// OK when the report is of the coordinator's checkpoint; FAILED_PRECONDITION names the first part
// that differs, or says why the node could not read its checkpoint.
absl::Status CompareCheckpoint(const std::vector<CheckpointPart>& ours,
                               const v1::CheckpointReport& report);

// Digests a checkpoint on a thread of its own.
class CheckpointDigestTask {
 public:
  // `done` is called from that thread, unless the task is destroyed first.
  CheckpointDigestTask(std::string model, bool with_weights,
                       std::function<void(v1::CheckpointReport)> done);
  ~CheckpointDigestTask();  // cancels and waits

 private:
  std::atomic<bool> cancelled_{false};
  std::thread thread_;
};

}  // namespace cohort

#endif  // COHORT_LAUNCHER_CHECKPOINT_REPORT_H_
