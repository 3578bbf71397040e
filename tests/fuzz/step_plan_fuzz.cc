// Only what Encode() writes is read.
#include "kernels/check.h"
#include "runtime/step_plan.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const cohort::StringView bytes(reinterpret_cast<const char*>(data), size);
  if (const auto plan = cohort::DecodeStepPlan(bytes); plan.ok()) {
    CHECK(cohort::Encode(*plan) == bytes) << "a plan of " << size << " bytes";
  } else {
    CHECK(absl::IsInvalidArgument(plan.status())) << plan.status().ToString();
  }
  if (const auto result = cohort::DecodeStepResult(bytes); result.ok()) {
    CHECK(cohort::Encode(*result) == bytes) << "a result of " << size << " bytes";
  } else {
    CHECK(absl::IsInvalidArgument(result.status())) << result.status().ToString();
  }
  return 0;
}
