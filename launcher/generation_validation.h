// Requests from outside, checked field by field against the served model and turned into what the
// engine takes. Every refusal names its field.
#ifndef COHORT_LAUNCHER_GENERATION_VALIDATION_H_
#define COHORT_LAUNCHER_GENERATION_VALIDATION_H_

#include <cstdint>

#include "cohort/v1/generation.pb.h"
#include "launcher/serving_context.h"
#include "runtime/request.h"

namespace cohort {

// The request's own seed, or `drawn_seed` when it has none. The deadline is left to the caller.
absl::StatusOr<Request> ValidateGenerate(const v1::GenerateRequest& request,
                                         const ServingContext& context, uint64_t drawn_seed);
absl::StatusOr<Request> ValidateScore(const v1::ScoreRequest& request,
                                      const ServingContext& context);

// The texts of Tokenize and the ids of Detokenize.
absl::StatusOr<std::vector<int32_t>> TokenizeText(const v1::TokenizeRequest& request,
                                                  const ServingContext& context);
absl::StatusOr<std::vector<int32_t>> ValidateDetokenize(const v1::DetokenizeRequest& request,
                                                        const ServingContext& context);

// The values in effect, for Accepted.
v1::Sampling ToProto(const SamplingParameters& sampling);
v1::Stopping ToProto(const StoppingParameters& stopping);

}  // namespace cohort

#endif  // COHORT_LAUNCHER_GENERATION_VALIDATION_H_
