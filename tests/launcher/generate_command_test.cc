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
  options.sampling.top_p = std::nan("");
  options.sampling.temperature = 1e300;
  const absl::StatusOr<v1::GenerateRequest> request = MakeGenerateRequest(options);
  ASSERT_TRUE(request.ok());
  EXPECT_TRUE(std::isnan(request->sampling().top_p()));
  EXPECT_TRUE(std::isinf(request->sampling().temperature()));
}

TEST(MakeGenerateRequest, NamesTheFieldsOfNumbersThatTheWireCannotCarry) {
  GenerateOptions options = WithIds();
  options.stopping.max_tokens = -1;
  options.sampling.top_k = int64_t{1} << 32;
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

TEST(MakeGenerateRequest, CarriesEveryParameter) {
  GenerateOptions options = WithIds();
  options.sampling.min_p = 0.1;
  options.sampling.n = 3;
  options.sampling.logit_bias = {{5, -100}};
  options.sampling.allowed_token_ids = {5, 6};
  options.sampling.bad_words = {"no"};
  options.stopping.min_tokens = 2;
  options.stopping.stop_strings = {"a", ""};
  options.stopping.include_stop = true;
  options.logprobs = 4;
  options.priority = -7;
  options.cache_salt = "mine";
  options.bypass_prefix_cache = true;
  const absl::StatusOr<v1::GenerateRequest> request = MakeGenerateRequest(options);
  ASSERT_TRUE(request.ok()) << request.status();
  EXPECT_EQ(request->sampling().n(), 3u);
  EXPECT_EQ(request->sampling().logit_bias().at(5), -100);
  EXPECT_EQ(request->sampling().bad_words(0), "no");
  EXPECT_EQ(request->stopping().stop_strings_size(), 2) << "the server refuses the empty one";
  EXPECT_TRUE(request->stopping().include_stop());
  EXPECT_EQ(request->output().logprobs(), 4u);
  EXPECT_FALSE(request->output().has_prompt_logprobs());
  EXPECT_EQ(request->scheduling().priority(), -7);
  EXPECT_EQ(request->cache().salt(), "mine");
  EXPECT_TRUE(request->cache().bypass_prefix());
}

TEST(MakeGenerateRequest, RefusesTextThatIsNotUtf8ByItsField) {
  GenerateOptions options = WithIds();
  options.stopping.stop_strings = {"ok", "a\xff"};
  options.sampling.bad_words = {"\xff"};
  options.priority = int64_t{1} << 31;
  const std::string message(MakeGenerateRequest(options).status().message());
  EXPECT_THAT(message, HasSubstr("stopping.stop_strings[1]: not UTF-8 at byte 1"));
  EXPECT_THAT(message, HasSubstr("sampling.bad_words[0]"));
  EXPECT_THAT(message, HasSubstr("scheduling.priority: 2147483648"));
}

v1::TokenLogprob Logprob(uint32_t id, float logprob) {
  v1::TokenLogprob message;
  message.set_token_id(id);
  message.set_logprob(logprob);
  v1::TopLogprob& top = *message.add_top();
  top.set_token_id(id + 1);
  top.set_logprob(logprob / 2);
  return message;
}

TEST(GenerateJson, HasTheDocumentedForm) {
  GenerateOutcome outcome;
  outcome.accepted.emplace().set_request_id("r");
  outcome.accepted->mutable_sampling()->set_seed(1ull << 63);
  outcome.accepted->set_prompt_tokens(3);
  SequenceOutcome& sequence = outcome.sequences[0];
  sequence.token_ids = {1, 2};
  sequence.text = "h\"i";
  v1::Finished& finished = sequence.finished.emplace();
  finished.set_reason(v1::FINISH_REASON_LENGTH);
  finished.mutable_usage()->set_prompt_tokens(3);
  finished.mutable_usage()->set_completion_tokens(2);
  finished.mutable_timing()->set_total_milliseconds(1.5);
  EXPECT_EQ(ToJson(outcome).dump(),
            R"({"outputs":[{"token_ids":[1,2],"text":"h\"i","finish_reason":"length"}],)"
            R"("usage":{"prompt_tokens":3,"completion_tokens":2,"cached_tokens":0},)"
            R"("timing":{"queued_milliseconds":0.0,"time_to_first_token_milliseconds":0.0,)"
            R"("total_milliseconds":1.5},"request_id":"r",)"
            R"("parameters":{"sampling":{"seed":9223372036854775808},"stopping":{},"output":{},)"
            R"("cache":{},"scheduling":{}}})");
}

TEST(GenerateJson, HasLogProbabilitiesWhereTheyWereAskedFor) {
  GenerateOutcome outcome;
  outcome.accepted.emplace().mutable_output()->set_logprobs(1);
  outcome.accepted->mutable_output()->set_prompt_logprobs(0);
  outcome.sequences[0].logprobs = {Logprob(7, -0.5f)};
  v1::Finished& finished = outcome.sequences[0].finished.emplace();
  finished.set_reason(v1::FINISH_REASON_STOP);
  finished.mutable_stop()->set_stop_string("x");
  finished.add_prompt_logprobs()->set_token_id(3);
  const nlohmann::ordered_json json = ToJson(outcome);
  EXPECT_EQ(json["outputs"][0]["logprobs"].dump(),
            R"([{"token_id":7,"logprob":-0.5,"top":[{"token_id":8,"logprob":-0.25}]}])");
  EXPECT_EQ(json["outputs"][0]["stop"].dump(), R"({"stop_string":"x"})");
  EXPECT_EQ(json["prompt_logprobs"].dump(), R"([{"token_id":3,"logprob":null,"top":[]}])");
}

TEST(GenerateJson, HasOneOutputPerSequence) {
  GenerateOutcome outcome;
  outcome.accepted.emplace().set_prompt_tokens(4);
  outcome.sequences.resize(2);
  outcome.sequences[0].token_ids = {1, 2};
  outcome.sequences[1].finished.emplace().set_index(1);
  outcome.sequences[1].finished->set_reason(v1::FINISH_REASON_STOP);
  outcome.sequences[1].finished->mutable_usage()->set_completion_tokens(3);
  outcome.status = grpc::Status(grpc::StatusCode::UNAVAILABLE, "gone");
  const nlohmann::ordered_json json = ToJson(outcome);
  EXPECT_EQ(json["outputs"][0]["finish_reason"], "error");
  EXPECT_EQ(json["outputs"][1]["finish_reason"], "stop");
  EXPECT_EQ(json["usage"]["completion_tokens"], 5);
}

TEST(GenerateJson, IsMadeOfWhatArrivedWhenTheStreamBroke) {
  GenerateOutcome outcome;
  outcome.accepted.emplace().set_prompt_tokens(4);
  outcome.sequences[0].token_ids = {9};
  outcome.status = grpc::Status(grpc::StatusCode::UNAVAILABLE, "gone");
  const nlohmann::ordered_json json = ToJson(outcome);
  EXPECT_EQ(json["outputs"][0]["finish_reason"], "error");
  EXPECT_EQ(json["usage"]["prompt_tokens"], 4);
  EXPECT_EQ(json["usage"]["completion_tokens"], 1);
  const auto reason = [&outcome](grpc::StatusCode code) {
    return FinishReasonOf(outcome.sequences[0], grpc::Status(code, "ended"));
  };
  EXPECT_EQ(reason(grpc::StatusCode::DEADLINE_EXCEEDED), "deadline");
  EXPECT_EQ(reason(grpc::StatusCode::CANCELLED), "cancelled");
}

}  // namespace
}  // namespace cohort
