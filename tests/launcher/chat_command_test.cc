#include "launcher/chat_command.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "launcher/generation_validation.h"
#include "launcher/status_details.h"

namespace cohort {
namespace {

using ::testing::HasSubstr;

TEST(ParseChatInstruction, TakesOneWordAfterASlash) {
  EXPECT_EQ(ParseChatInstruction("/system Be brief. ")->word, "system");
  EXPECT_EQ(ParseChatInstruction("/system Be brief. ")->argument, "Be brief.");
  EXPECT_EQ(ParseChatInstruction("/exit")->argument, "");
  EXPECT_EQ(ParseChatInstruction("/exxit")->word, "exxit");
  for (const char* text : {"", "hello", "/usr/bin is a path", "/", "/ system", "//", "/2"}) {
    EXPECT_FALSE(ParseChatInstruction(text).has_value()) << text;
  }
}

TEST(DescribeTiming, HasNoSpeedForOneToken) {
  v1::Finished finished;
  finished.mutable_usage()->set_prompt_tokens(40);
  finished.mutable_usage()->set_cached_tokens(32);
  finished.mutable_usage()->set_completion_tokens(1);
  finished.mutable_timing()->set_time_to_first_token_milliseconds(12.3);
  finished.mutable_timing()->set_total_milliseconds(12.3);
  EXPECT_EQ(DescribeTiming(finished), "1 tokens, first token 12 ms, 32 of 40 prompt tokens cached");
  finished.mutable_usage()->set_completion_tokens(11);
  finished.mutable_timing()->set_total_milliseconds(512.3);
  EXPECT_THAT(DescribeTiming(finished), HasSubstr("11 tokens, 20.0 tokens/s,"));
}

TEST(DescribeEnd, SaysHowToGoOn) {
  ChatAnswer answer;
  answer.finished.emplace().set_reason(v1::FINISH_REASON_STOP);
  EXPECT_EQ(DescribeEnd(answer, std::nullopt), "");
  answer.finished->set_reason(v1::FINISH_REASON_LENGTH);
  answer.finished->mutable_usage()->set_completion_tokens(9);
  EXPECT_THAT(DescribeEnd(answer, std::nullopt), HasSubstr("/reset"));
  EXPECT_EQ(DescribeEnd(answer, 9), "cut at --max-tokens 9");
  answer.status = ToGrpcStatus(
      WithReason(absl::InvalidArgumentError("a prompt of 600 tokens"), kPromptTooLong));
  EXPECT_THAT(DescribeEnd(answer, 9), HasSubstr("a prompt of 600 tokens"));
  EXPECT_THAT(DescribeEnd(answer, 9), HasSubstr("/reset"));
  answer.status = ToGrpcStatus(absl::UnavailableError("gone"));
  EXPECT_EQ(DescribeEnd(answer, 9), "UNAVAILABLE: gone");
  answer.interrupted = true;
  EXPECT_EQ(DescribeEnd(answer, 9), "stopped");
}

}  // namespace
}  // namespace cohort
