#include "launcher/generation_prompt.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/launcher/service_fixture.h"

namespace cohort {
namespace {

using ::testing::HasSubstr;

class GenerationPrompt : public ::testing::Test {
 protected:
  GenerationPrompt() : tokenizer_(MakeByteTokenizer()) {
    context_ = MakeTestContext(tokenizer_.get(), 200);
    v1::ChatMessage& message = *request_.mutable_chat()->add_messages();
    message.set_role("user");
    message.set_content("hello");
  }

  absl::StatusOr<std::vector<int32_t>> Resolve() {
    FieldViolations violations;
    ASSIGN_OR_RETURN(std::vector<int32_t> ids,
                     ResolvePrompt(PromptOf(request_), context_, violations));
    RETURN_IF_ERROR(violations.ToStatus());
    return ids;
  }

  std::unique_ptr<Tokenizer> tokenizer_;
  ServingContext context_;
  v1::GenerateRequest request_;
};

TEST_F(GenerationPrompt, ChatIsRenderedByTheModelsTemplate) {
  context_.chat_template =
      ChatTemplate{.name = "Qwen2.5", .default_system = "Hi", .roles = {"user"}};
  EXPECT_EQ(tokenizer_->Decode(*Resolve(), false),
            "<|im_start|>system\nHi<|im_end|>\n<|im_start|>user\nhello<|im_end|>\n"
            "<|im_start|>assistant\n");
  request_.mutable_chat()->mutable_messages(0)->set_role("tool");
  EXPECT_THAT(std::string(Resolve().status().message()),
              HasSubstr("chat.messages[0].role: \"tool\""));
}

TEST_F(GenerationPrompt, AnUnknownTemplateRefusesChatOnly) {
  context_.chat_template = absl::FailedPreconditionError("the template is another");
  const absl::Status status = Resolve().status();
  EXPECT_TRUE(absl::IsFailedPrecondition(status));
  EXPECT_THAT(std::string(status.message()), HasSubstr("the template is another"));
  EXPECT_EQ(DetailOf<google::rpc::PreconditionFailure>(ToGrpcStatus(status)).violations_size(), 1);
  request_.set_text("hello");
  EXPECT_EQ(Resolve()->size(), 5u);
}

TEST_F(GenerationPrompt, TokenizeParsesSpecialTokensUnlessToldNotTo) {
  v1::TokenizeRequest tokenize;
  tokenize.set_text("<|im_end|>");
  EXPECT_EQ(*TokenizeText(tokenize, context_), std::vector<int32_t>{258});
  tokenize.set_parse_special(false);
  EXPECT_EQ(TokenizeText(tokenize, context_)->size(), 10);
  tokenize.mutable_chat()->add_messages()->set_role("user");
  EXPECT_TRUE(absl::IsInvalidArgument(TokenizeText(tokenize, context_).status()));
}

}  // namespace
}  // namespace cohort
