#include "runtime/sampling.h"

#include <cmath>

namespace cohort {
namespace {

template <class... Parts>
absl::Status Refused(StringView field, const Parts&... parts) {
  return absl::InvalidArgumentError(absl::StrCat("sampling.", field, parts...));
}

// Also refuses a NaN.
absl::Status CheckRange(StringView field, float value, float least, float most) {
  return value >= least && value <= most
             ? absl::OkStatus()
             : Refused(field, " is ", value, "; it must be in [", least, ", ", most, "]");
}

absl::Status CheckCount(StringView field, size_t count, size_t most) {
  return count <= most ? absl::OkStatus()
                       : Refused(field, " has ", count, " entries; at most ", most, " are taken");
}

// Ascending and distinct, so that equal parameters have one form.
absl::Status CheckAscending(StringView field, int32_t id, int32_t before) {
  return id > before ? absl::OkStatus()
         : id < 0    ? Refused(field, " holds the id ", id)
                     : Refused(field, " holds the id ", id, " after ", before,
                               "; ids must ascend and differ");
}

absl::Status CheckNumbers(const SamplingParameters& parameters) {
  if (!std::isfinite(parameters.temperature) || parameters.temperature < 0) {
    return Refused("temperature", " is ", parameters.temperature,
                   "; it must be a finite number of at least 0 (0 is greedy)");
  }
  if (!(parameters.top_p > 0 && parameters.top_p <= 1)) {  // also refuses a NaN
    return Refused("top_p", " is ", parameters.top_p, "; it must be above 0 and at most 1");
  }
  if (parameters.top_k < 0) {
    return Refused("top_k", " is ", parameters.top_k, "; it must be at least 0 (0 is off)");
  }
  if (!std::isfinite(parameters.repetition_penalty) || parameters.repetition_penalty <= 0) {
    return Refused("repetition_penalty", " is ", parameters.repetition_penalty,
                   "; it must be a finite number above 0 (1 is off)");
  }
  if (parameters.logprobs < -1 || parameters.logprobs > kMaxLogprobs) {
    return Refused("logprobs", " is ", parameters.logprobs, "; it must be in 0..", kMaxLogprobs,
                   " (-1 is off)");
  }
  RETURN_IF_ERROR(CheckRange("min_p", parameters.min_p, 0, 1));
  RETURN_IF_ERROR(CheckRange("presence_penalty", parameters.presence_penalty, -2, 2));
  return CheckRange("frequency_penalty", parameters.frequency_penalty, -2, 2);
}

absl::Status CheckIds(const SamplingParameters& parameters) {
  RETURN_IF_ERROR(CheckCount("logit_bias", parameters.logit_bias.size(), kMaxLogitBias));
  int32_t before = -1;
  for (const TokenBias& bias : parameters.logit_bias) {
    RETURN_IF_ERROR(CheckAscending("logit_bias", bias.id, before));
    RETURN_IF_ERROR(CheckRange(absl::StrCat("logit_bias[", bias.id, "]"), bias.bias, -100, 100));
    before = bias.id;
  }
  RETURN_IF_ERROR(
      CheckCount("allowed_token_ids", parameters.allowed_token_ids.size(), kMaxAllowedIds));
  before = -1;
  for (const int32_t id : parameters.allowed_token_ids) {
    RETURN_IF_ERROR(CheckAscending("allowed_token_ids", id, before));
    before = id;
  }
  RETURN_IF_ERROR(CheckCount("bad_words", parameters.bad_words.size(), kMaxBadWords));
  for (const std::vector<int32_t>& word : parameters.bad_words) {
    if (word.empty()) {
      return Refused("bad_words", " holds a word without ids");
    }
    RETURN_IF_ERROR(CheckCount("bad_words", word.size(), kMaxBadWordIds));
    for (const int32_t id : word) {
      RETURN_IF_ERROR(id >= 0 ? absl::OkStatus() : Refused("bad_words", " holds the id ", id));
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status Validate(const SamplingParameters& parameters) {
  RETURN_IF_ERROR(CheckNumbers(parameters));
  return CheckIds(parameters);
}

}  // namespace cohort
