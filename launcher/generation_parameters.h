// The parts of a GenerateRequest beside its prompt: each checked for its range and stored both as
// what the engine takes and as what the client is told.
#ifndef COHORT_LAUNCHER_GENERATION_PARAMETERS_H_
#define COHORT_LAUNCHER_GENERATION_PARAMETERS_H_

#include <cstdint>

#include "cohort/v1/generation.pb.h"
#include "launcher/generation_validation.h"
#include "launcher/status_details.h"

namespace cohort {

// Values left out are the context's defaults, a seed `drawn_seed`. FAILED_PRECONDITION for bad
// words that no tokenizer could turn into ids.
absl::Status CheckSampling(const v1::Sampling& given, uint64_t drawn_seed,
                           const ServingContext& context, Generation& checked,
                           FieldViolations& violations);

// `left`: tokens that the prompt leaves of the model's length. FAILED_PRECONDITION for stop strings
// without a tokenizer. Max tokens over `left` are the caller's to refuse.
absl::Status CheckStopping(const v1::Stopping& given, int64_t left, const ServingContext& context,
                           Generation& checked, FieldViolations& violations);

// After the two above: whether bad words, minimum length and padding leave an allowed id to choose.
void CheckSomethingIsAllowed(const ServingContext& context, const Generation& checked,
                             FieldViolations& violations);

void CheckOutput(const v1::OutputOptions& given, Generation& checked, FieldViolations& violations);
void CheckCache(const v1::CacheOptions& given, Generation& checked, FieldViolations& violations);
void CheckScheduling(const v1::SchedulingOptions& given, Generation& checked);

// How many most probable ids are reported beside a token.
int32_t CheckTop(uint32_t top, StringView field, FieldViolations& violations);

}  // namespace cohort

#endif  // COHORT_LAUNCHER_GENERATION_PARAMETERS_H_
