// The way to a rank on the coordinator's own node: a ring with plans, a ring with outcomes.
#ifndef COHORT_LAUNCHER_RING_STEP_LINK_H_
#define COHORT_LAUNCHER_RING_STEP_LINK_H_

#include <memory>
#include <string>

#include "launcher/byte_ring.h"
#include "runtime/step_link.h"

namespace cohort {

// What a rank says of a step: the encoded result, or the status the step failed with.
std::string EncodeOutcome(const absl::StatusOr<std::string>& result);
// The result or that status; DATA_LOSS for bytes that are no outcome.
absl::StatusOr<std::string> DecodeOutcome(StringView outcome);

// The code that a number stands for; UNKNOWN for a number that is none.
absl::StatusCode StatusCodeOf(int64_t number);

class RingStepLink : public StepLink {
 public:
  // Maps both rings, whose descriptors may be closed afterwards.
  static absl::StatusOr<std::unique_ptr<RingStepLink>> Map(std::string name, int plans_fd,
                                                           int outcomes_fd, int spin_iterations);

  std::string name() const override { return name_; }
  absl::Status Send(StringView plan_bytes, absl::Time deadline) override;
  absl::StatusOr<std::string> Receive(absl::Time deadline) override;
  void Abort(absl::Status reason) override;

 private:
  RingStepLink(std::string name, std::unique_ptr<ByteRingWriter> plans,
               std::unique_ptr<ByteRingReader> outcomes)
      : name_(std::move(name)), plans_(std::move(plans)), outcomes_(std::move(outcomes)) {}

  const std::string name_;
  const std::unique_ptr<ByteRingWriter> plans_;
  const std::unique_ptr<ByteRingReader> outcomes_;
};

}  // namespace cohort

#endif  // COHORT_LAUNCHER_RING_STEP_LINK_H_
