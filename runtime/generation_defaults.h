// The sampling that a checkpoint's authors recommend: generation_config.json.
#ifndef COHORT_RUNTIME_GENERATION_DEFAULTS_H_
#define COHORT_RUNTIME_GENERATION_DEFAULTS_H_

#include "kernels/status.h"
#include "runtime/sampling.h"

namespace cohort {

// What a request takes for the values it leaves out. As transformers reads the file: greedy
// (temperature 0) unless do_sample is true, and then temperature 1 where there is none; values the
// file does not have are off. INVALID_ARGUMENT names the key and its value. `what` names the
// source.
absl::StatusOr<SamplingParameters> ParseGenerationDefaults(StringView json, StringView what);

}  // namespace cohort

#endif  // COHORT_RUNTIME_GENERATION_DEFAULTS_H_
