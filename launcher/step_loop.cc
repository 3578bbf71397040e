#include "launcher/step_loop.h"

#include <utility>

#include "absl/time/clock.h"
#include "launcher/ring_step_link.h"

namespace cohort {
namespace {

// Between two looks at the device while a plan is awaited.
constexpr absl::Duration kLookInterval = absl::Microseconds(50);

}  // namespace

absl::Status StepLoop::Run() {
  for (;;) {
    ASSIGN_OR_RETURN(const std::optional<std::string> plan, NextPlan());
    RETURN_IF_ERROR(plan.has_value() ? Begin(*plan) : Answer());
  }
}

// None when there is an answer to give first.
absl::StatusOr<std::optional<std::string>> StepLoop::NextPlan() {
  if (worker_.outstanding() == 0) {
    return plans_.Receive(absl::InfiniteFuture());
  }
  if (worker_.outstanding() > 1 || worker_.under_way() == 0) {
    return std::nullopt;
  }
  // What is there already, then what comes before the device is done.
  absl::Time deadline = absl::Now();
  for (;;) {
    absl::StatusOr<std::string> plan = plans_.Receive(deadline);
    if (!absl::IsDeadlineExceeded(plan.status())) {
      return plan;
    }
    if (worker_.IsDone()) {
      return std::nullopt;
    }
    deadline = absl::Now() + kLookInterval;
  }
}

absl::Status StepLoop::Begin(StringView plan_bytes) {
  absl::Status begun = DecodeStepPlan(plan_bytes, plan_);
  // What cannot run behind the step under way is not computed before that is answered.
  while (worker_.outstanding() > 0 && !(begun.ok() && worker_.RunsAhead(plan_))) {
    RETURN_IF_ERROR(Answer());
  }
  if (begun.ok()) {
    begun = worker_.Enqueue(plan_);
  }
  if (begun.ok()) {
    return begun;
  }
  while (worker_.outstanding() > 0) {
    RETURN_IF_ERROR(Answer());
  }
  RETURN_IF_ERROR(Send(begun));
  return begun;
}

absl::Status StepLoop::Answer() {
  const absl::Status collected = worker_.Collect(result_);
  if (!collected.ok()) {
    RETURN_IF_ERROR(Send(collected));
    return collected;
  }
  return Send(Encode(result_));
}

absl::Status StepLoop::Send(const absl::StatusOr<std::string>& result) {
  return outcomes_.Send(EncodeOutcome(result), absl::Now() + send_timeout_);
}

}  // namespace cohort
