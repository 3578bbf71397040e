// Requests from outside, checked field by field against the served model and turned into what the
// engine takes. Every refusal names its field.
#ifndef COHORT_LAUNCHER_GENERATION_VALIDATION_H_
#define COHORT_LAUNCHER_GENERATION_VALIDATION_H_

#include <cstdint>

#include "cohort/v1/generation.pb.h"
#include "launcher/serving_context.h"
#include "runtime/request.h"

namespace cohort {

// The reason (ErrorInfo) of a prompt that is as long as the model's context, or longer.
inline constexpr char kPromptTooLong[] = "PROMPT_TOO_LONG";

// A checked request.
struct Generation {
  Request request;  // of the first sequence, without the deadline
  uint32_t sequences = 1;
  // The values in effect, every scalar set; for Accepted, and for what the engine does not do
  // (stop strings, what is delivered).
  v1::Sampling sampling;
  v1::Stopping stopping;
  v1::OutputOptions output;
  v1::CacheOptions cache;
  v1::SchedulingOptions scheduling;
};

// The request's own seed, or `drawn_seed` when it has none. INVALID_ARGUMENT lists every bad field;
// its reason is kPromptTooLong when the only fault is that the prompt leaves no room.
absl::StatusOr<Generation> ValidateGenerate(const v1::GenerateRequest& request,
                                            const ServingContext& context, uint64_t drawn_seed);
absl::StatusOr<Request> ValidateScore(const v1::ScoreRequest& request,
                                      const ServingContext& context);

// For an answer of one message: INVALID_ARGUMENT when the log-probabilities could make it
// unreasonably large, which those of a stream cannot.
absl::Status CheckFitsOneMessage(const Generation& generation);

}  // namespace cohort

#endif  // COHORT_LAUNCHER_GENERATION_VALIDATION_H_
