#include "launcher/generation_validation.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>

#include "launcher/status_details.h"
#include "tests/launcher/service_fixture.h"

namespace cohort {
namespace {

using ::testing::HasSubstr;

class GenerationValidation : public ::testing::Test {
 protected:
  GenerationValidation() : tokenizer_(MakeByteTokenizer()) {
    context_ = MakeTestContext(tokenizer_.get(), 32);
    request_.mutable_token_ids()->add_ids(7);
  }

  absl::Status Check() { return ValidateGenerate(request_, context_, 5).status(); }
  void ExpectRefused(StringView field) {
    const absl::Status status = Check();
    EXPECT_TRUE(absl::IsInvalidArgument(status)) << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr(std::string(field)));
  }

  std::unique_ptr<Tokenizer> tokenizer_;
  ServingContext context_;
  v1::GenerateRequest request_;
};

TEST_F(GenerationValidation, DefaultsAreGreedyUntilTheLengthWithTheDrawnSeed) {
  const absl::StatusOr<Generation> checked = ValidateGenerate(request_, context_, 5);
  ASSERT_TRUE(checked.ok()) << checked.status();
  const Request* request = &checked->request;
  EXPECT_EQ(request->prompt, std::vector<int32_t>{7});
  EXPECT_EQ(request->sampling.temperature, 0);
  EXPECT_EQ(request->sampling.seed, 5);
  EXPECT_EQ(request->stopping.max_tokens, 31);
  EXPECT_FALSE(request->score);
}

TEST_F(GenerationValidation, WithYarnAutoTheDefaultKeepsToTheLengthWithoutYarn) {
  context_.config.yarn = YarnScaling{.factor = 4, .original_positions = 8};
  context_.config.yarn_auto = true;
  const auto max_tokens = [&] {
    const absl::StatusOr<Generation> checked = ValidateGenerate(request_, context_, 5);
    EXPECT_TRUE(checked.ok()) << checked.status();
    return checked.ok() ? checked->request.stopping.max_tokens : -1;
  };
  EXPECT_EQ(max_tokens(), 7);
  request_.mutable_stopping()->set_min_tokens(9);
  EXPECT_EQ(max_tokens(), 31) << "more is wanted than there is room for";
  request_.mutable_stopping()->set_max_tokens(20);
  EXPECT_EQ(max_tokens(), 20);
  request_.clear_stopping();
  for (uint32_t id = 0; id < 7; ++id) {
    request_.mutable_token_ids()->add_ids(id);
  }
  EXPECT_EQ(max_tokens(), 24) << "the prompt fills the original length";
  context_.config.yarn_auto = false;
  request_.mutable_token_ids()->clear_ids();
  request_.mutable_token_ids()->add_ids(7);
  EXPECT_EQ(max_tokens(), 31);
}

TEST_F(GenerationValidation, GivenValuesAreKept) {
  request_.mutable_sampling()->set_temperature(0.5);
  request_.mutable_sampling()->set_top_p(1);
  request_.mutable_sampling()->set_top_k(3);
  request_.mutable_sampling()->set_seed(0);
  request_.mutable_stopping()->set_max_tokens(31);
  request_.mutable_stopping()->set_ignore_eos(true);
  request_.mutable_stopping()->add_stop_token_ids(9);
  const absl::StatusOr<Generation> checked = ValidateGenerate(request_, context_, 5);
  ASSERT_TRUE(checked.ok()) << checked.status();
  const Request* request = &checked->request;
  EXPECT_EQ(request->sampling.top_k, 3);
  EXPECT_EQ(request->sampling.seed, 0);
  EXPECT_TRUE(request->stopping.ignore_eos);
  EXPECT_EQ(request->stopping.stop_token_ids, std::vector<int32_t>{9});
}

TEST_F(GenerationValidation, NamesEachBadSamplingField) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  for (const float temperature : {-0.5f, kInfinity, std::nanf("")}) {
    request_.mutable_sampling()->set_temperature(temperature);
    ExpectRefused("sampling.temperature");
  }
  request_.mutable_sampling()->clear_temperature();
  for (const float top_p : {0.0f, -1.0f, 1.5f, std::nanf("")}) {
    request_.mutable_sampling()->set_top_p(top_p);
    ExpectRefused("sampling.top_p");
  }
  request_.mutable_sampling()->clear_top_p();
  request_.mutable_sampling()->set_top_k(1u << 31);
  ExpectRefused("sampling.top_k");
}

TEST_F(GenerationValidation, NamesEachBadStoppingField) {
  request_.mutable_stopping()->set_max_tokens(0);
  ExpectRefused("stopping.max_tokens");
  request_.mutable_stopping()->set_max_tokens(32);
  ExpectRefused("stopping.max_tokens");
  request_.mutable_stopping()->set_max_tokens(std::numeric_limits<uint32_t>::max());
  ExpectRefused("stopping.max_tokens");
  request_.mutable_stopping()->clear_max_tokens();
  request_.mutable_stopping()->add_stop_token_ids(kTestVocabulary);
  ExpectRefused("stopping.stop_token_ids[0]");
}

TEST_F(GenerationValidation, NamesEveryBadFieldAtOnce) {
  request_.mutable_sampling()->set_top_p(2);
  request_.mutable_stopping()->set_max_tokens(0);
  request_.mutable_token_ids()->add_ids(kTestVocabulary);
  ExpectRefused("sampling.top_p");
  ExpectRefused("stopping.max_tokens");
  ExpectRefused("token_ids.ids[1]");
}

TEST_F(GenerationValidation, PromptsMustNotBeEmpty) {
  request_.mutable_token_ids()->clear_ids();
  ExpectRefused("token_ids.ids");
  request_.set_text("");
  ExpectRefused("text");
  request_.mutable_chat();
  ExpectRefused("chat.messages");
  request_.clear_input();
  ExpectRefused("input");
}

TEST_F(GenerationValidation, PromptsMustLeaveRoom) {
  for (int i = 1; i < 32; ++i) request_.mutable_token_ids()->add_ids(1);
  ExpectRefused("token_ids.ids");
  request_.set_text(std::string(32, 'x'));
  ExpectRefused("text");
  context_.max_prompt_bytes = 8;
  request_.set_text("123456789");
  ExpectRefused("9 bytes");
}

TEST_F(GenerationValidation, TextIsTokenisedWithItsSpecialTokens) {
  request_.set_text("a<|im_end|>b");
  const absl::StatusOr<Generation> checked = ValidateGenerate(request_, context_, 5);
  ASSERT_TRUE(checked.ok()) << checked.status();
  const Request* request = &checked->request;
  EXPECT_EQ(request->prompt, (std::vector<int32_t>{'a', 258, 'b'}));
}

TEST_F(GenerationValidation, ChatNeedsRoles) {
  context_.max_model_len = 200;
  v1::ChatMessage& message = *request_.mutable_chat()->add_messages();
  message.set_content("hello");
  ExpectRefused("chat.messages[0].role");
  message.set_role("user");
  EXPECT_TRUE(Check().ok()) << Check();
}

TEST_F(GenerationValidation, InvalidUtf8IsRefused) {
  request_.set_text("ab\xff");
  ExpectRefused("text: not UTF-8 at byte 2");
}

TEST_F(GenerationValidation, OtherModelsAreNotFound) {
  request_.set_model("tiny");
  EXPECT_TRUE(Check().ok());
  request_.set_model("huge");
  EXPECT_TRUE(absl::IsNotFound(Check())) << Check();
}

TEST_F(GenerationValidation, RequestIdsHaveAtMost128Characters) {
  std::string id;
  for (int i = 0; i < 128; ++i) id += "\xc3\xa9";  // one character of two bytes
  request_.set_request_id(id);
  EXPECT_TRUE(Check().ok()) << Check();
  request_.set_request_id(id + "x");
  ExpectRefused("request_id");
}

TEST_F(GenerationValidation, TextWithoutATokenizerIsAFailedPrecondition) {
  context_.tokenizer = nullptr;
  EXPECT_TRUE(Check().ok());
  request_.set_text("hello");
  EXPECT_TRUE(absl::IsFailedPrecondition(Check())) << Check();
  request_.mutable_chat()->add_messages()->set_role("user");
  EXPECT_TRUE(absl::IsFailedPrecondition(Check())) << Check();
}

TEST_F(GenerationValidation, ScoreMayFillTheWholeLength) {
  v1::ScoreRequest score;
  score.set_text(std::string(32, 'x'));
  const absl::StatusOr<Request> request = ValidateScore(score, context_);
  ASSERT_TRUE(request.ok()) << request.status();
  EXPECT_TRUE(request->score);
  score.set_text(std::string(33, 'x'));
  EXPECT_TRUE(absl::IsInvalidArgument(ValidateScore(score, context_).status()));
}

TEST_F(GenerationValidation, APromptThatLeavesNoRoomHasAReasonOfItsOwn) {
  for (int i = 1; i < 32; ++i) request_.mutable_token_ids()->add_ids(1);
  EXPECT_EQ(ReasonOf(ToGrpcStatus(Check())), kPromptTooLong);
  request_.mutable_sampling()->set_top_p(2);
  EXPECT_EQ(ReasonOf(ToGrpcStatus(Check())), "INVALID_REQUEST");
}

TEST_F(GenerationValidation, ScoresReportTheLikeliestOnRequest) {
  v1::ScoreRequest score;
  score.set_text("abc");
  EXPECT_EQ(ValidateScore(score, context_)->prompt_logprobs, -1);
  score.set_top(20);
  EXPECT_EQ(ValidateScore(score, context_)->prompt_logprobs, 20);
  score.set_top(21);
  EXPECT_TRUE(absl::IsInvalidArgument(ValidateScore(score, context_).status()));
}

TEST_F(GenerationValidation, LogProbabilitiesOfOneAnswerAreBounded) {
  context_.max_model_len = 1 << 20;
  request_.mutable_output()->set_logprobs(20);
  request_.mutable_sampling()->set_n(8);
  const auto fits = [this] {
    return CheckFitsOneMessage(*ValidateGenerate(request_, context_, 5));
  };
  EXPECT_TRUE(absl::IsInvalidArgument(fits())) << fits();
  request_.mutable_stopping()->set_max_tokens(4096);
  EXPECT_TRUE(fits().ok()) << fits();
}

}  // namespace
}  // namespace cohort
