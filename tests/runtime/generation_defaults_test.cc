#include "runtime/generation_defaults.h"

#include <gtest/gtest.h>

namespace cohort {
namespace {

SamplingParameters Parse(StringView json) {
  return ParseGenerationDefaults(json, "generation_config.json").value();
}

TEST(GenerationDefaults, AreThoseOfAnInstructModel) {
  const SamplingParameters defaults = Parse(
      R"({"bos_token_id": 151643, "do_sample": true, "eos_token_id": [151645, 151643],
          "repetition_penalty": 1.05, "temperature": 0.7, "top_p": 0.8, "top_k": 20,
          "transformers_version": "4.37.0"})");
  EXPECT_EQ(defaults.temperature, 0.7f);
  EXPECT_EQ(defaults.top_p, 0.8f);
  EXPECT_EQ(defaults.top_k, 20);
  EXPECT_EQ(defaults.repetition_penalty, 1.05f);
  EXPECT_EQ(defaults.min_p, 0);
}

TEST(GenerationDefaults, AreGreedyUnlessTheFileSamples) {
  EXPECT_EQ(Parse("{}"), SamplingParameters());
  EXPECT_EQ(Parse(R"({"do_sample": false, "max_new_tokens": 2048})"), SamplingParameters());
  // Left for requests that name a temperature of their own.
  EXPECT_EQ(Parse(R"({"temperature": 0.7, "top_p": 0.8})").temperature, 0);
  EXPECT_EQ(Parse(R"({"temperature": 0.7, "top_p": 0.8})").top_p, 0.8f);
}

TEST(GenerationDefaults, SampleAtTemperatureOneWithoutATemperature) {
  EXPECT_EQ(Parse(R"({"do_sample": true})").temperature, 1);
  EXPECT_EQ(Parse(R"({"do_sample": true, "temperature": null, "top_k": -1})").temperature, 1);
}

TEST(GenerationDefaults, NameTheKeyThatIsNotLegal) {
  for (const StringView key : {"temperature", "top_p", "min_p", "repetition_penalty", "top_k"}) {
    for (const StringView value : {"-2", "\"hot\"", "1e300"}) {
      const absl::Status status =
          ParseGenerationDefaults(absl::StrCat("{\"", key, "\": ", value, "}"), "file").status();
      EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << key << " " << value;
      EXPECT_NE(status.message().find(key), StringView::npos) << status;
    }
  }
  EXPECT_FALSE(ParseGenerationDefaults(R"({"do_sample": 1})", "file").ok());
  EXPECT_FALSE(ParseGenerationDefaults("[]", "file").ok());
  EXPECT_FALSE(ParseGenerationDefaults("{", "file").ok());
}

}  // namespace
}  // namespace cohort
