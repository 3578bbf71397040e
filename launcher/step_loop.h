// A rank's life in an epoch: plans come in through one ring, their outcomes leave through another,
// in order. While the device repeats a recorded step the next plan is enqueued behind it, so that
// the device goes on at once; the answers are read meanwhile (runtime/recorded_steps.h).
#ifndef COHORT_LAUNCHER_STEP_LOOP_H_
#define COHORT_LAUNCHER_STEP_LOOP_H_

#include <optional>
#include <string>

#include "absl/time/time.h"
#include "launcher/byte_ring.h"
#include "runtime/worker.h"

namespace cohort {

class StepLoop {
 public:
  // All outlive the loop. A full ring of outcomes is waited for at most `send_timeout`.
  StepLoop(Worker& worker, ByteRingReader& plans, ByteRingWriter& outcomes,
           absl::Duration send_timeout)
      : worker_(worker), plans_(plans), outcomes_(outcomes), send_timeout_(send_timeout) {}

  // Until a ring is aborted or a step fails, whose status is its outcome too.
  absl::Status Run();

 private:
  absl::StatusOr<std::optional<std::string>> NextPlan();
  absl::Status Begin(StringView plan_bytes);
  absl::Status Answer();
  absl::Status Send(const absl::StatusOr<std::string>& result);

  Worker& worker_;
  ByteRingReader& plans_;
  ByteRingWriter& outcomes_;
  const absl::Duration send_timeout_;
  // Their memory serves step after step.
  StepPlan plan_;
  StepResult result_;
};

}  // namespace cohort

#endif  // COHORT_LAUNCHER_STEP_LOOP_H_
