#include "launcher/generate_command.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <fstream>

namespace cohort {
namespace {

using ::testing::HasSubstr;

GenerateOptions WithIds() {
  GenerateOptions options;
  options.prompt.token_ids = {1, 2};
  return options;
}

TEST(MakeGenerateRequest, LeavesOutWhatWasNotGiven) {
  const absl::StatusOr<v1::GenerateRequest> request = MakeGenerateRequest(WithIds());
  ASSERT_TRUE(request.ok()) << request.status();
  EXPECT_EQ(request->token_ids().ids_size(), 2);
  EXPECT_FALSE(request->sampling().has_temperature());
  EXPECT_FALSE(request->sampling().has_seed());
  EXPECT_FALSE(request->stopping().has_max_tokens());
}

TEST(MakeGenerateRequest, CarriesNonFiniteNumbersToTheServer) {
  GenerateOptions options = WithIds();
  options.top_p = std::nan("");
  options.temperature = 1e300;
  const absl::StatusOr<v1::GenerateRequest> request = MakeGenerateRequest(options);
  ASSERT_TRUE(request.ok());
  EXPECT_TRUE(std::isnan(request->sampling().top_p()));
  EXPECT_TRUE(std::isinf(request->sampling().temperature()));
}

TEST(MakeGenerateRequest, NamesTheFieldsOfNumbersThatTheWireCannotCarry) {
  GenerateOptions options = WithIds();
  options.max_tokens = -1;
  options.top_k = int64_t{1} << 32;
  const absl::Status status = MakeGenerateRequest(options).status();
  EXPECT_TRUE(absl::IsInvalidArgument(status));
  EXPECT_THAT(std::string(status.message()), HasSubstr("stopping.max_tokens: -1"));
  EXPECT_THAT(std::string(status.message()), HasSubstr("sampling.top_k"));
}

TEST(MakeGenerateRequest, ReadsPromptFilesAndRefusesBadText) {
  const std::string path = ::testing::TempDir() + "/prompt.txt";
  std::ofstream(path) << "from a file\n";
  GenerateOptions options;
  options.prompt.file = path;
  EXPECT_EQ(MakeGenerateRequest(options)->text(), "from a file\n");
  options.prompt.file = path + ".missing";
  EXPECT_FALSE(MakeGenerateRequest(options).ok());
  GenerateOptions bad;
  bad.prompt.text = "a\xff";
  EXPECT_THAT(std::string(MakeGenerateRequest(bad).status().message()), HasSubstr("text"));
  GenerateOptions chat;
  chat.prompt.chat = "hello";
  EXPECT_EQ(MakeGenerateRequest(chat)->chat().messages(0).role(), "user");
}

TEST(GenerateJson, HasTheDocumentedForm) {
  GenerateOutcome outcome;
  outcome.accepted.emplace();
  outcome.token_ids = {1, 2};
  outcome.text = "h\"i";
  outcome.finished.emplace().set_reason(v1::FINISH_REASON_LENGTH);
  outcome.finished->mutable_usage()->set_prompt_tokens(3);
  outcome.finished->mutable_usage()->set_completion_tokens(2);
  outcome.finished->mutable_timing()->set_total_milliseconds(1.5);
  EXPECT_EQ(ToJson(outcome).dump(),
            R"({"outputs":[{"token_ids":[1,2],"text":"h\"i","finish_reason":"length"}],)"
            R"("usage":{"prompt_tokens":3,"completion_tokens":2,"cached_tokens":0},)"
            R"("timing":{"queued_milliseconds":0.0,"time_to_first_token_milliseconds":0.0,)"
            R"("total_milliseconds":1.5}})");
}

TEST(GenerateJson, IsMadeOfWhatArrivedWhenTheStreamBroke) {
  GenerateOutcome outcome;
  outcome.accepted.emplace().set_prompt_tokens(4);
  outcome.token_ids = {9};
  outcome.status = grpc::Status(grpc::StatusCode::UNAVAILABLE, "gone");
  const nlohmann::ordered_json json = ToJson(outcome);
  EXPECT_EQ(json["outputs"][0]["finish_reason"], "error");
  EXPECT_EQ(json["usage"]["prompt_tokens"], 4);
  EXPECT_EQ(json["usage"]["completion_tokens"], 1);
  outcome.status = grpc::Status(grpc::StatusCode::DEADLINE_EXCEEDED, "late");
  EXPECT_EQ(FinishReasonOf(outcome), "deadline");
  outcome.status = grpc::Status(grpc::StatusCode::CANCELLED, "interrupted");
  EXPECT_EQ(FinishReasonOf(outcome), "cancelled");
}

}  // namespace
}  // namespace cohort
