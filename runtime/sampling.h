// The parameters of one request as the engine sees them: effective values, already validated.
#ifndef COHORT_RUNTIME_SAMPLING_H_
#define COHORT_RUNTIME_SAMPLING_H_

#include <cstdint>
#include <vector>

#include "kernels/status.h"

namespace cohort {

struct SamplingParameters {
  float temperature = 0;  // 0: greedy
  float top_p = 1;        // (0, 1]
  int32_t top_k = 0;      // 0: off
  uint64_t seed = 0;      // always set: drawn by the server when the request has none
};

struct StoppingParameters {
  int64_t max_tokens = 0;  // at least 1 when generating
  bool ignore_eos = false;
  std::vector<int32_t> stop_token_ids;  // beside the model's end ids; honoured even with ignore_eos
};

// INVALID_ARGUMENT names the field ("sampling.top_p") and the value.
absl::Status Validate(const SamplingParameters& parameters);

}  // namespace cohort

#endif  // COHORT_RUNTIME_SAMPLING_H_
