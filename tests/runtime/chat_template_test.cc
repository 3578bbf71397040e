#include "runtime/chat_template.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

namespace cohort {
namespace {

// Qwen2's, as tokenizer_config.json of its checkpoints has it (line breaks in string literals).
constexpr char kQwen2[] =
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ "
    "'<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n' }}{% endif %}{{'<|im_start|>' "
    "+ message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}{% if "
    "add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";

constexpr char kDefaultSystem[] = "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n";

std::string Render(const std::vector<ChatMessage>& messages, bool add_generation_prompt) {
  return RenderChat(ChatTemplate(), messages, add_generation_prompt).value();
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
  const auto text = RenderChat(ChatTemplate(), {}, true);
  EXPECT_EQ(text.status().code(), absl::StatusCode::kInvalidArgument);
}

TEST(ChatTemplate, RefusesAnEmptyRoleByItsPlace) {
  const std::vector<ChatMessage> messages = {{"user", "a"}, {"", "b"}};
  const auto text = RenderChat(ChatTemplate(), messages, true);
  EXPECT_EQ(text.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_NE(text.status().message().find("messages[1].role"), std::string::npos);
}

TEST(ChatTemplate, OneWithListedRolesRefusesOthers) {
  const ChatTemplate limited{
      .name = "Qwen2.5", .default_system = "Be kind.", .roles = {"system", "user", "assistant"}};
  const std::vector<ChatMessage> messages = {{"user", "a"}, {"tool", "b"}};
  const absl::Status status = RenderChat(limited, messages, true).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_NE(status.message().find("messages[1].role: \"tool\""), std::string::npos) << status;
  EXPECT_EQ(RenderChat(limited, absl::MakeSpan(messages).subspan(0, 1), false).value(),
            "<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\na<|im_end|>\n");
}

TEST(ChatTemplate, RecognisesQwen2WithItsSystemMessage) {
  EXPECT_EQ(RecognizeChatTemplate(kQwen2)->name, "Qwen2");
  EXPECT_EQ(RecognizeChatTemplate(kQwen2)->default_system, "You are a helpful assistant.");
  std::string other = kQwen2;
  other.replace(other.find("You are"), 28, R"(Put it in \\boxed{}.)");
  EXPECT_EQ(RecognizeChatTemplate(absl::StrCat(other, "\n"))->default_system,
            R"(Put it in \boxed{}.)");
}

TEST(ChatTemplate, RefusesAnyOtherAndSaysHowToGoOn) {
  std::string changed = kQwen2;
  changed.replace(changed.find("endfor"), 6, "endfir");
  for (const std::string& source :
       {changed, std::string(), std::string("'<|im_start|>system\n'")}) {
    const absl::Status status = RecognizeChatTemplate(source).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition) << source;
    EXPECT_NE(status.message().find("as text"), std::string::npos) << status;
  }
}

class ChatTemplateFiles : public ::testing::Test {
 protected:
  ChatTemplateFiles()
      : directory_(::testing::TempDir() + "/chat_template_" +
                   ::testing::UnitTest::GetInstance()->current_test_info()->name()) {
    std::filesystem::remove_all(directory_);  // of a run before
    std::filesystem::create_directories(directory_);
  }
  void Write(const std::string& name, StringView text) {
    std::ofstream(directory_ + "/" + name) << text;
  }
  absl::StatusCode CodeOfLoad() { return LoadChatTemplate(directory_).status().code(); }

  const std::string directory_;
};

TEST_F(ChatTemplateFiles, AreRead) {
  EXPECT_EQ(LoadChatTemplate(directory_)->name, "Qwen2") << "without any";
  Write("tokenizer_config.json", R"({"chat_template": null})");
  EXPECT_EQ(LoadChatTemplate(directory_)->name, "Qwen2") << "without a template";
  Write("tokenizer_config.json", R"({"chat_template": "other"})");
  EXPECT_EQ(CodeOfLoad(), absl::StatusCode::kFailedPrecondition);
  Write("tokenizer_config.json",
        R"({"chat_template": [{"name": "tool_use", "template": "x"},
                              {"name": "default", "template": "other"}]})");
  EXPECT_EQ(CodeOfLoad(), absl::StatusCode::kFailedPrecondition);
  Write("chat_template.jinja", kQwen2);
  EXPECT_EQ(LoadChatTemplate(directory_)->name, "Qwen2") << "the file of its own comes first";
}

TEST_F(ChatTemplateFiles, ThatAreBrokenAreErrors) {
  for (const StringView json : {R"({"chat_template": 5})", R"({"chat_template": [5]})", "{"}) {
    Write("tokenizer_config.json", json);
    EXPECT_EQ(CodeOfLoad(), absl::StatusCode::kInvalidArgument) << json;
  }
}

}  // namespace
}  // namespace cohort
