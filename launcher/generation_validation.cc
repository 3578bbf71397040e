#include "launcher/generation_validation.h"

#include <algorithm>
#include <utility>

#include "launcher/generation_parameters.h"
#include "launcher/generation_prompt.h"
#include "launcher/status_details.h"

namespace cohort {
namespace {

constexpr int64_t kMaxRequestIdCharacters = 128;

int64_t Characters(StringView utf8) {
  return std::count_if(utf8.begin(), utf8.end(), [](char c) { return (c & 0xC0) != 0x80; });
}

// The fields that every request has.
template <class R>
absl::Status CheckNames(const R& request, const ServingContext& context,
                        FieldViolations& violations) {
  const int64_t characters = Characters(request.request_id());
  if (characters > kMaxRequestIdCharacters) {
    violations.Add("request_id",
                   absl::StrCat(characters, " characters are more than ", kMaxRequestIdCharacters));
  }
  if (!request.model().empty() && request.model() != context.model_name) {
    return WithReason(
        absl::NotFoundError(absl::StrCat("model '", request.model(), "' is not served here; '",
                                         context.model_name, "' is")),
        "MODEL_NOT_FOUND");
  }
  return absl::OkStatus();
}

// INVALID_ARGUMENT for `others` and for the one fault of the prompt's length.
absl::Status PromptTooLong(StringView field, StringView description, FieldViolations others) {
  const bool alone = others.empty();
  others.Add(field, description);
  absl::Status status = others.ToStatus();
  return alone ? WithReason(std::move(status), kPromptTooLong) : status;
}

// What max_tokens is where the request leaves it out. With --yarn auto a prompt that fits the
// original length keeps to it, and so goes without YaRN, unless more is the least wanted.
int64_t DefaultMaxTokens(const v1::Stopping& stopping, int64_t prompt_tokens, int64_t left,
                         const ServingContext& context) {
  const int64_t plain = std::min(context.config.plain_rope_positions() - prompt_tokens, left);
  return plain >= std::max<int64_t>(1, stopping.min_tokens()) ? plain : left;
}

}  // namespace

absl::StatusOr<Generation> ValidateGenerate(const v1::GenerateRequest& request,
                                            const ServingContext& context, uint64_t drawn_seed) {
  FieldViolations violations;
  RETURN_IF_ERROR(CheckNames(request, context, violations));
  Generation checked;
  RETURN_IF_ERROR(CheckSampling(request.sampling(), drawn_seed, context, checked, violations));
  CheckOutput(request.output(), checked, violations);
  CheckCache(request.cache(), checked, violations);
  CheckScheduling(request.scheduling(), checked);

  FieldViolations of_prompt;
  const PromptView prompt = PromptOf(request);
  ASSIGN_OR_RETURN(checked.request.prompt, ResolvePrompt(prompt, context, of_prompt));
  const int64_t tokens = static_cast<int64_t>(checked.request.prompt.size());
  const int64_t left = context.max_model_len - tokens;
  RETURN_IF_ERROR(CheckStopping(request.stopping(),
                                DefaultMaxTokens(request.stopping(), tokens, left, context),
                                context, checked, violations));
  CheckSomethingIsAllowed(context, checked, violations);
  if (!of_prompt.empty()) {
    violations.Append(of_prompt);
  } else if (left < 1) {
    return PromptTooLong(prompt.field(),
                         absl::StrCat("a prompt of ", tokens, " tokens leaves none to generate of ",
                                      context.max_model_len, " (max_model_len)"),
                         std::move(violations));
  } else if (checked.request.stopping.max_tokens > left) {
    violations.Add(
        "stopping.max_tokens",
        absl::StrCat("a prompt of ", tokens, " tokens plus ", checked.request.stopping.max_tokens,
                     " is over ", context.max_model_len, " (max_model_len); at most ", left,
                     " are left"));
  }
  RETURN_IF_ERROR(violations.ToStatus());
  return checked;
}

absl::StatusOr<Request> ValidateScore(const v1::ScoreRequest& request,
                                      const ServingContext& context) {
  FieldViolations violations;
  RETURN_IF_ERROR(CheckNames(request, context, violations));
  Request checked;
  checked.score = true;
  if (request.has_top()) checked.prompt_logprobs = CheckTop(request.top(), "top", violations);
  const PromptView prompt = PromptOf(request);
  ASSIGN_OR_RETURN(checked.prompt, ResolvePrompt(prompt, context, violations));
  const int64_t tokens = static_cast<int64_t>(checked.prompt.size());
  if (tokens > context.max_model_len) {
    return PromptTooLong(
        prompt.field(),
        absl::StrCat(tokens, " tokens are over ", context.max_model_len, " (max_model_len)"),
        std::move(violations));
  }
  RETURN_IF_ERROR(violations.ToStatus());
  return checked;
}

absl::Status CheckFitsOneMessage(const Generation& generation) {
  constexpr int64_t kMost = int64_t{1} << 20;
  const SamplingParameters& sampling = generation.request.sampling;
  if (sampling.logprobs < 0) return absl::OkStatus();
  const int64_t count = int64_t{generation.sequences} * (sampling.logprobs + 1) *
                        generation.request.stopping.max_tokens;
  if (count <= kMost) return absl::OkStatus();
  FieldViolations violations;
  violations.Add("output.logprobs",
                 absl::StrCat(generation.sequences, " sequences of up to ",
                              generation.request.stopping.max_tokens, " tokens with ",
                              sampling.logprobs + 1, " log-probabilities each are more than ",
                              kMost, " in one answer: lower stopping.max_tokens, or stream"));
  return violations.ToStatus();
}

}  // namespace cohort
