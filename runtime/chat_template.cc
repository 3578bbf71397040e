#include "runtime/chat_template.h"

namespace cohort {
namespace {

void AppendTurn(StringView role, StringView content, std::string& text) {
  absl::StrAppend(&text, "<|im_start|>", role, "\n", content, "<|im_end|>\n");
}

}  // namespace

absl::StatusOr<std::string> RenderChat(absl::Span<const ChatMessage> messages,
                                       bool add_generation_prompt) {
  if (messages.empty()) {
    return absl::InvalidArgumentError("messages is empty; a chat needs at least one message");
  }
  std::string text;
  if (messages.front().role != "system") {
    AppendTurn("system", "You are a helpful assistant.", text);
  }
  for (size_t i = 0; i < messages.size(); ++i) {
    if (messages[i].role.empty()) {
      return absl::InvalidArgumentError(absl::StrCat(
          "messages[", i, "].role is empty; use \"system\", \"user\" or \"assistant\""));
    }
    AppendTurn(messages[i].role, messages[i].content, text);
  }
  if (add_generation_prompt) text += "<|im_start|>assistant\n";
  return text;
}

}  // namespace cohort
