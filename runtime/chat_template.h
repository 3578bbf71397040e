// Chat templates of the Qwen2 family: a conversation as the text that the model was trained on.
// Checkpoints bring theirs as a Jinja program; the published ones are recognised by their text and
// rendered here, any other is refused.
#ifndef COHORT_RUNTIME_CHAT_TEMPLATE_H_
#define COHORT_RUNTIME_CHAT_TEMPLATE_H_

#include <string>
#include <vector>

#include "absl/types/span.h"
#include "kernels/status.h"

namespace cohort {

struct ChatMessage {
  std::string role;
  std::string content;
};

// The default is Qwen2's, which is also taken for a checkpoint without a template.
struct ChatTemplate {
  std::string name = "Qwen2";
  // Put first when the conversation does not begin with a system message.
  std::string default_system = "You are a helpful assistant.";
  std::vector<std::string> roles = {};  // legal ones; empty: any
};

// By the text of a Jinja template: Qwen2 (and its base models), Qwen2.5 (Coder, Math and base
// models included, each with the default system message that its template holds).
// FAILED_PRECONDITION for any other says how to go on without it.
absl::StatusOr<ChatTemplate> RecognizeChatTemplate(StringView source);

// Reads MODEL_DIR/chat_template.jinja or else chat_template of MODEL_DIR/tokenizer_config.json,
// where there is one. INVALID_ARGUMENT for files that are broken.
absl::StatusOr<ChatTemplate> LoadChatTemplate(const std::string& model_dir);

// INVALID_ARGUMENT for a role that the template has no form for, naming the legal ones.
absl::Status CheckChatRole(const ChatTemplate& chat_template, StringView role);

// The prompt text of a conversation; content is taken verbatim. INVALID_ARGUMENT for no messages or
// an illegal role.
absl::StatusOr<std::string> RenderChat(const ChatTemplate& chat_template,
                                       absl::Span<const ChatMessage> messages,
                                       bool add_generation_prompt);

}  // namespace cohort

#endif  // COHORT_RUNTIME_CHAT_TEMPLATE_H_
