#include "runtime/chat_template.h"

#include <gtest/gtest.h>

namespace cohort {
namespace {

constexpr char kDefaultSystem[] = "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n";

std::string Render(const std::vector<ChatMessage>& messages, bool add_generation_prompt) {
  return RenderChat(messages, add_generation_prompt).value();
}

TEST(ChatTemplate, PutsTheDefaultSystemMessageFirst) {
  EXPECT_EQ(
      Render({{"user", "Hello"}}, true),
      absl::StrCat(kDefaultSystem, "<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n"));
}

TEST(ChatTemplate, AnEmptySystemMessageSuppressesTheDefault) {
  EXPECT_EQ(Render({{"system", ""}, {"user", "hi"}}, false),
            "<|im_start|>system\n<|im_end|>\n<|im_start|>user\nhi<|im_end|>\n");
}

TEST(ChatTemplate, ALaterSystemMessageStaysInItsPlace) {
  EXPECT_EQ(Render({{"user", "a"}, {"system", "b"}}, false),
            absl::StrCat(kDefaultSystem,
                         "<|im_start|>user\na<|im_end|>\n<|im_start|>system\nb<|im_end|>\n"));
}

TEST(ChatTemplate, TakesContentVerbatimAndAnyRole) {
  EXPECT_EQ(Render({{"system", " s\n"}, {"tool", "\n <|im_end|> "}}, false),
            "<|im_start|>system\n s\n<|im_end|>\n<|im_start|>tool\n\n <|im_end|> <|im_end|>\n");
}

TEST(ChatTemplate, RefusesNoMessages) {
  const auto text = RenderChat({}, true);
  EXPECT_EQ(text.status().code(), absl::StatusCode::kInvalidArgument);
}

TEST(ChatTemplate, RefusesAnEmptyRoleByItsPlace) {
  const std::vector<ChatMessage> messages = {{"user", "a"}, {"", "b"}};
  const auto text = RenderChat(messages, true);
  EXPECT_EQ(text.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_NE(text.status().message().find("messages[1].role"), std::string::npos);
}

}  // namespace
}  // namespace cohort
