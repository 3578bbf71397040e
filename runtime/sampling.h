// The parameters of one request as the engine sees them: effective values, already validated.
#ifndef COHORT_RUNTIME_SAMPLING_H_
#define COHORT_RUNTIME_SAMPLING_H_

#include <cstddef>
#include <cstdint>
#include <vector>

#include "kernels/status.h"

namespace cohort {

inline constexpr size_t kMaxLogitBias = 300;
inline constexpr size_t kMaxAllowedIds = 1024;
inline constexpr size_t kMaxBadWords = 256;
inline constexpr size_t kMaxBadWordIds = 64;  // of one
inline constexpr int32_t kMaxLogprobs = 20;

struct TokenBias {
  int32_t id = 0;
  float bias = 0;  // added to the logit, [-100, 100]
  bool operator==(const TokenBias&) const = default;
};

// In the order in which they act on a row of logits: ids that cannot be chosen (not allowed, the
// end of a bad word, held back), bias, repetition penalty, frequency and presence penalty; then
// temperature, top-k, top-p, min-p. So do transformers (its sequence bias comes before the
// repetition penalty, its warpers in this order) and, with penalties that transformers lacks, vLLM
// (whose min-p comes before top-k). Temperature 0 takes the largest logit after the penalties.
struct SamplingParameters {
  float temperature = 0;         // 0: greedy
  float top_p = 1;               // (0, 1]
  int32_t top_k = 0;             // 0: off
  float min_p = 0;               // [0, 1]; 0: off
  uint64_t seed = 0;             // always set: drawn by the server when the request has none
  float repetition_penalty = 1;  // above 0; of ids in prompt or completion; 1: off
  float presence_penalty = 0;    // [-2, 2]; of ids in the completion
  float frequency_penalty = 0;   // [-2, 2]; of ids in the completion, times their count
  std::vector<TokenBias> logit_bias = {};       // ascending, distinct ids
  std::vector<int32_t> allowed_token_ids = {};  // ascending, distinct; empty: all
  std::vector<std::vector<int32_t>> bad_words =
      {};  // the last id is not chosen after those before it
  // Most probable ids reported beside each chosen token's log-probability (of the raw logits, over
  // the whole vocabulary); -1: no log-probabilities.
  int32_t logprobs = -1;

  // Whether a choice depends on the ids before it.
  bool NeedsHistory() const {
    return repetition_penalty != 1 || presence_penalty != 0 || frequency_penalty != 0 ||
           !bad_words.empty();
  }
  bool operator==(const SamplingParameters&) const = default;
};

struct StoppingParameters {
  int64_t max_tokens = 0;  // at least 1 when generating
  int64_t min_tokens = 0;  // before so many were generated, no id that would end is chosen
  bool ignore_eos = false;
  std::vector<int32_t> stop_token_ids =
      {};  // beside the model's end ids; honoured even with ignore_eos
};

// INVALID_ARGUMENT names the field ("sampling.top_p") and the value.
absl::Status Validate(const SamplingParameters& parameters);

}  // namespace cohort

#endif  // COHORT_RUNTIME_SAMPLING_H_
