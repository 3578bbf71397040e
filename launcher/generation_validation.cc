#include "launcher/generation_validation.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "launcher/status_details.h"
#include "runtime/chat_template.h"
#include "runtime/utf8.h"

namespace cohort {
namespace {

constexpr int64_t kMaxRequestIdCharacters = 128;
constexpr int kMaxStopTokenIds = 256;
constexpr int kMaxChatMessages = 4096;

using Ids = google::protobuf::RepeatedField<uint32_t>;

int64_t Characters(StringView utf8) {
  return std::count_if(utf8.begin(), utf8.end(), [](char c) { return (c & 0xC0) != 0x80; });
}

// Adds at most one violation per list, for the first id that has no row in the embedding.
std::vector<int32_t> CheckIds(const Ids& ids, StringView field, int64_t vocabulary,
                              FieldViolations& violations) {
  std::vector<int32_t> checked;
  checked.reserve(ids.size());
  for (int i = 0; i < ids.size(); ++i) {
    if (ids[i] >= vocabulary) {
      violations.Add(
          absl::StrCat(field, "[", i, "]"),
          absl::StrCat("id ", ids[i], " is outside the vocabulary (0 to ", vocabulary - 1, ")"));
      return {};
    }
    checked.push_back(static_cast<int32_t>(ids[i]));
  }
  return checked;
}

absl::Status NoTokenizer(const ServingContext& context) {
  return WithReason(
      WithPrecondition(absl::FailedPreconditionError(absl::StrCat(
                           "model '", context.model_name,
                           "' is served without a tokenizer (no tokenizer.json): give token_ids")),
                       "TOKENIZER", context.model_name),
      "NO_TOKENIZER");
}

// FAILED_PRECONDITION without a tokenizer; other faults become violations of `field`.
absl::StatusOr<std::vector<int32_t>> Encode(const std::string& text, StringView field,
                                            bool parse_special, const ServingContext& context,
                                            FieldViolations& violations) {
  if (context.tokenizer == nullptr) return NoTokenizer(context);
  std::vector<int32_t> none;
  if (static_cast<int64_t>(text.size()) > context.max_prompt_bytes) {
    violations.Add(field, absl::StrCat(text.size(), " bytes are more than ", context.max_model_len,
                                       " tokens (max_model_len) can hold"));
    return none;
  }
  if (!IsUtf8(text)) {
    violations.Add(field, absl::StrCat("not UTF-8 at byte ", Utf8Prefix(text)));
    return none;
  }
  absl::StatusOr<std::vector<int32_t>> ids = context.tokenizer->Encode(text, parse_special);
  if (absl::IsInvalidArgument(ids.status())) {
    violations.Add(field, ids.status().message());
    return none;
  }
  return ids;
}

absl::StatusOr<std::string> Render(const v1::Chat& chat, FieldViolations& violations) {
  if (chat.messages().empty()) {
    violations.Add("chat.messages", "the prompt is empty: at least one message is needed");
    return std::string();
  }
  if (chat.messages_size() > kMaxChatMessages) {
    violations.Add("chat.messages", absl::StrCat(chat.messages_size(), " messages are more than ",
                                                 kMaxChatMessages));
    return std::string();
  }
  std::vector<ChatMessage> messages;
  for (int i = 0; i < chat.messages_size(); ++i) {
    if (chat.messages(i).role().empty()) {
      violations.Add(absl::StrCat("chat.messages[", i, "].role"),
                     "empty; legal are system, user, assistant and the like");
    }
    messages.push_back({chat.messages(i).role(), chat.messages(i).content()});
  }
  if (!violations.empty()) return std::string();
  return RenderChat(messages, /*add_generation_prompt=*/true);
}

// The ids of the oneof `input`, never empty without a violation. Works for both request messages.
template <class R>
absl::StatusOr<std::vector<int32_t>> ResolvePrompt(const R& request, const ServingContext& context,
                                                   FieldViolations& violations) {
  switch (request.input_case()) {
    case R::kText: {
      ASSIGN_OR_RETURN(std::vector<int32_t> ids,
                       Encode(request.text(), "text", true, context, violations));
      if (ids.empty() && violations.empty()) violations.Add("text", "the prompt is empty");
      return ids;
    }
    case R::kTokenIds: {
      if (request.token_ids().ids().empty()) {
        violations.Add("token_ids.ids", "the prompt is empty: at least one id is needed");
      }
      return CheckIds(request.token_ids().ids(), "token_ids.ids", context.config.vocabulary,
                      violations);
    }
    case R::kChat: {
      if (context.tokenizer == nullptr) return NoTokenizer(context);
      ASSIGN_OR_RETURN(const std::string text, Render(request.chat(), violations));
      if (!violations.empty()) return std::vector<int32_t>();
      return Encode(text, "chat.messages", true, context, violations);
    }
    case R::INPUT_NOT_SET:
      break;
  }
  violations.Add("input", "one of text, token_ids and chat is needed");
  return std::vector<int32_t>();
}

template <class R>
StringView InputField(const R& request) {
  switch (request.input_case()) {
    case R::kText:
      return "text";
    case R::kTokenIds:
      return "token_ids.ids";
    default:
      return "chat.messages";
  }
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

SamplingParameters CheckSampling(const v1::Sampling& sampling, uint64_t drawn_seed,
                                 FieldViolations& violations) {
  SamplingParameters parameters;
  if (sampling.has_temperature()) parameters.temperature = sampling.temperature();
  if (!std::isfinite(parameters.temperature) || parameters.temperature < 0) {
    violations.Add("sampling.temperature",
                   absl::StrCat(parameters.temperature, " is not a finite number of at least 0"));
  }
  if (sampling.has_top_p()) parameters.top_p = sampling.top_p();
  if (!(parameters.top_p > 0 && parameters.top_p <= 1)) {
    violations.Add("sampling.top_p", absl::StrCat(parameters.top_p, " is outside (0, 1]"));
  }
  constexpr uint32_t kMaxTopK = std::numeric_limits<int32_t>::max();
  if (sampling.top_k() > kMaxTopK) {
    violations.Add("sampling.top_k", absl::StrCat(sampling.top_k(), " is outside 0 to ", kMaxTopK));
  }
  parameters.top_k = static_cast<int32_t>(sampling.top_k());
  parameters.seed = sampling.has_seed() ? sampling.seed() : drawn_seed;
  return parameters;
}

StoppingParameters CheckStopping(const v1::Stopping& stopping, int64_t left,
                                 const ServingContext& context, FieldViolations& violations) {
  StoppingParameters parameters;
  parameters.max_tokens = stopping.has_max_tokens() ? stopping.max_tokens() : left;
  if (stopping.has_max_tokens() && stopping.max_tokens() < 1) {
    violations.Add("stopping.max_tokens",
                   absl::StrCat(stopping.max_tokens(), " is below 1, the least"));
  }
  parameters.ignore_eos = stopping.ignore_eos();
  if (stopping.stop_token_ids_size() > kMaxStopTokenIds) {
    violations.Add(
        "stopping.stop_token_ids",
        absl::StrCat(stopping.stop_token_ids_size(), " ids are more than ", kMaxStopTokenIds));
    return parameters;
  }
  parameters.stop_token_ids = CheckIds(stopping.stop_token_ids(), "stopping.stop_token_ids",
                                       context.config.vocabulary, violations);
  return parameters;
}

}  // namespace

absl::StatusOr<Request> ValidateGenerate(const v1::GenerateRequest& request,
                                         const ServingContext& context, uint64_t drawn_seed) {
  FieldViolations violations;
  RETURN_IF_ERROR(CheckNames(request, context, violations));
  Request checked;
  checked.sampling = CheckSampling(request.sampling(), drawn_seed, violations);
  FieldViolations of_prompt;
  ASSIGN_OR_RETURN(checked.prompt, ResolvePrompt(request, context, of_prompt));
  const int64_t prompt = static_cast<int64_t>(checked.prompt.size());
  const int64_t left = context.max_model_len - prompt;
  checked.stopping = CheckStopping(request.stopping(), left, context, violations);
  if (!of_prompt.empty()) {
    violations.Append(of_prompt);
  } else if (left < 1) {
    violations.Add(InputField(request),
                   absl::StrCat("a prompt of ", prompt, " tokens leaves none to generate of ",
                                context.max_model_len, " (max_model_len)"));
  } else if (checked.stopping.max_tokens > left) {
    violations.Add("stopping.max_tokens",
                   absl::StrCat("a prompt of ", prompt, " tokens plus ",
                                checked.stopping.max_tokens, " is over ", context.max_model_len,
                                " (max_model_len); at most ", left, " are left"));
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
  ASSIGN_OR_RETURN(checked.prompt, ResolvePrompt(request, context, violations));
  const int64_t prompt = static_cast<int64_t>(checked.prompt.size());
  if (prompt > context.max_model_len) {
    violations.Add(InputField(request), absl::StrCat(prompt, " tokens are over ",
                                                     context.max_model_len, " (max_model_len)"));
  }
  RETURN_IF_ERROR(violations.ToStatus());
  return checked;
}

absl::StatusOr<std::vector<int32_t>> TokenizeText(const v1::TokenizeRequest& request,
                                                  const ServingContext& context) {
  if (context.tokenizer == nullptr) return NoTokenizer(context);
  FieldViolations violations;
  const bool parse_special = !request.has_parse_special() || request.parse_special();
  std::string text = request.text();
  StringView field = "text";
  if (request.has_chat()) {
    field = "chat.messages";
    if (!text.empty()) violations.Add("chat", "give text or chat, not both");
    ASSIGN_OR_RETURN(text, Render(request.chat(), violations));
  }
  std::vector<int32_t> ids;
  if (violations.empty()) {
    ASSIGN_OR_RETURN(ids, Encode(text, field, parse_special, context, violations));
  }
  RETURN_IF_ERROR(violations.ToStatus());
  return ids;
}

absl::StatusOr<std::vector<int32_t>> ValidateDetokenize(const v1::DetokenizeRequest& request,
                                                        const ServingContext& context) {
  if (context.tokenizer == nullptr) return NoTokenizer(context);
  FieldViolations violations;
  std::vector<int32_t> ids =
      CheckIds(request.token_ids(), "token_ids", context.config.vocabulary, violations);
  RETURN_IF_ERROR(violations.ToStatus());
  return ids;
}

v1::Sampling ToProto(const SamplingParameters& sampling) {
  v1::Sampling message;
  message.set_temperature(sampling.temperature);
  message.set_top_p(sampling.top_p);
  message.set_top_k(static_cast<uint32_t>(sampling.top_k));
  message.set_seed(sampling.seed);
  return message;
}

v1::Stopping ToProto(const StoppingParameters& stopping) {
  v1::Stopping message;
  message.set_max_tokens(static_cast<uint32_t>(stopping.max_tokens));
  message.set_ignore_eos(stopping.ignore_eos);
  for (const int32_t id : stopping.stop_token_ids) {
    message.add_stop_token_ids(static_cast<uint32_t>(id));
  }
  return message;
}

}  // namespace cohort
