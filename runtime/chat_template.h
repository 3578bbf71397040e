// ChatML as the Qwen2 models were trained on it.
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

// The prompt text of a conversation. Without a leading system message the default one of Qwen2 is
// put first; content is taken verbatim. INVALID_ARGUMENT for no messages or an empty role.
absl::StatusOr<std::string> RenderChat(absl::Span<const ChatMessage> messages,
                                       bool add_generation_prompt);

}  // namespace cohort

#endif  // COHORT_RUNTIME_CHAT_TEMPLATE_H_
