#include "launcher/generation_prompt.h"

#include "runtime/chat_template.h"
#include "runtime/utf8.h"

namespace cohort {
namespace {

constexpr int kMaxChatMessages = 4096;

absl::Status NoChatTemplate(const ServingContext& context) {
  const absl::Status& refusal = context.chat_template.status();
  return WithReason(WithPrecondition(absl::Status(refusal.code(), refusal.message()),
                                     "CHAT_TEMPLATE", context.model_name),
                    "UNKNOWN_CHAT_TEMPLATE");
}

absl::StatusOr<std::string> Render(const v1::Chat& chat, const ServingContext& context,
                                   FieldViolations& violations) {
  if (context.tokenizer == nullptr) return NoTokenizer(context);
  if (!context.chat_template.ok()) return NoChatTemplate(context);
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
  bool legal = true;
  for (int i = 0; i < chat.messages_size(); ++i) {
    const v1::ChatMessage& message = chat.messages(i);
    const absl::Status role = CheckChatRole(*context.chat_template, message.role());
    if (!role.ok()) violations.Add(absl::StrCat("chat.messages[", i, "].role"), role.message());
    legal = legal && role.ok();
    messages.push_back({message.role(), message.content()});
  }
  if (!legal) return std::string();
  return RenderChat(*context.chat_template, messages, /*add_generation_prompt=*/true);
}

}  // namespace

StringView PromptView::field() const {
  if (text != nullptr) return "text";
  return token_ids != nullptr ? "token_ids.ids" : "chat.messages";
}

absl::Status NoTokenizer(const ServingContext& context) {
  return WithReason(
      WithPrecondition(absl::FailedPreconditionError(absl::StrCat(
                           "model '", context.model_name,
                           "' is served without a tokenizer (no tokenizer.json): give token_ids")),
                       "TOKENIZER", context.model_name),
      "NO_TOKENIZER");
}

std::vector<int32_t> CheckIds(const google::protobuf::RepeatedField<uint32_t>& ids,
                              StringView field, int64_t vocabulary, FieldViolations& violations) {
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

absl::StatusOr<std::vector<int32_t>> EncodeText(const std::string& text, StringView field,
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

absl::StatusOr<std::vector<int32_t>> ResolvePrompt(const PromptView& prompt,
                                                   const ServingContext& context,
                                                   FieldViolations& violations) {
  FieldViolations found;
  absl::StatusOr<std::vector<int32_t>> ids = std::vector<int32_t>();
  if (prompt.text != nullptr) {
    ids = EncodeText(*prompt.text, "text", true, context, found);
  } else if (prompt.token_ids != nullptr) {
    ids = CheckIds(prompt.token_ids->ids(), "token_ids.ids", context.config.vocabulary, found);
  } else if (prompt.chat != nullptr) {
    ASSIGN_OR_RETURN(const std::string text, Render(*prompt.chat, context, found));
    if (found.empty()) ids = EncodeText(text, "chat.messages", true, context, found);
  } else {
    found.Add("input", "one of text, token_ids and chat is needed");
  }
  RETURN_IF_ERROR(ids.status());
  if (ids->empty() && found.empty()) {
    found.Add(prompt.field(), "the prompt is empty: at least one token is needed");
  }
  violations.Append(found);
  return ids;
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
    ASSIGN_OR_RETURN(text, Render(request.chat(), context, violations));
  }
  std::vector<int32_t> ids;
  if (violations.empty()) {
    ASSIGN_OR_RETURN(ids, EncodeText(text, field, parse_special, context, violations));
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

}  // namespace cohort
