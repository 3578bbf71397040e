#include "launcher/checkpoint_report.h"

#include <utility>

namespace cohort {

v1::CheckpointReport MakeCheckpointReport(
    const std::string& path, const absl::StatusOr<std::vector<CheckpointPart>>& parts) {
  v1::CheckpointReport report;
  report.set_path(path);
  if (!parts.ok()) {
    report.set_status_code(static_cast<int32_t>(parts.status().code()));
    report.set_status_message(std::string(parts.status().message()));
    return report;
  }
  for (const CheckpointPart& part : *parts) {
    v1::CheckpointPart& message = *report.add_parts();
    message.set_name(part.name);
    message.set_form(part.form);
    message.set_hash(part.hash);
  }
  return report;
}

absl::Status CompareCheckpoint(const std::vector<CheckpointPart>& ours,
                               const v1::CheckpointReport& report) {
  if (report.status_code() != 0) {
    return absl::FailedPreconditionError(
        absl::StrCat("the node cannot read the checkpoint ", report.path(), ": ",
                     report.status_message(), "; give it the path on that machine with --model"));
  }
  std::vector<CheckpointPart> theirs;
  for (const v1::CheckpointPart& part : report.parts()) {
    theirs.push_back({part.name(), part.form(), part.hash()});
  }
  const std::string difference = DescribeDifference(ours, theirs);
  if (difference.empty()) return absl::OkStatus();
  return absl::FailedPreconditionError(absl::StrCat(
      "the node's checkpoint ", report.path(), " is not the coordinator's: ", difference,
      " (here: at the coordinator; there: at the node)"));
}

CheckpointDigestTask::CheckpointDigestTask(std::string model, bool with_weights,
                                           std::function<void(v1::CheckpointReport)> done)
    : thread_([this, model = std::move(model), with_weights, done = std::move(done)] {
        v1::CheckpointReport report = MakeCheckpointReport(
            model, DigestCheckpoint(model, with_weights, [this] { return cancelled_.load(); }));
        if (!cancelled_.load()) done(std::move(report));
      }) {}

CheckpointDigestTask::~CheckpointDigestTask() {
  cancelled_.store(true);
  thread_.join();
}

}  // namespace cohort
