#include "runtime/sampling.h"

#include <cmath>

namespace cohort {

absl::Status Validate(const SamplingParameters& parameters) {
  if (!std::isfinite(parameters.temperature) || parameters.temperature < 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("sampling.temperature is ", parameters.temperature,
                     "; it must be a finite number of at least 0 (0 is greedy)"));
  }
  if (!(parameters.top_p > 0 && parameters.top_p <= 1)) {  // also refuses a NaN
    return absl::InvalidArgumentError(
        absl::StrCat("sampling.top_p is ", parameters.top_p, "; it must be above 0 and at most 1"));
  }
  if (parameters.top_k < 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("sampling.top_k is ", parameters.top_k, "; it must be at least 0 (0 is off)"));
  }
  return absl::OkStatus();
}

}  // namespace cohort
