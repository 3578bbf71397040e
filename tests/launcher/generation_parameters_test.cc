#include "launcher/generation_parameters.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "tests/launcher/service_fixture.h"

namespace cohort {
namespace {

using ::testing::HasSubstr;

class GenerationParameters : public ::testing::Test {
 protected:
  GenerationParameters() : tokenizer_(MakeByteTokenizer()) {
    context_ = MakeTestContext(tokenizer_.get(), 100);
    context_.choosable_ids = 259;
  }

  absl::Status Check() {
    FieldViolations violations;
    checked_ = {};
    RETURN_IF_ERROR(CheckSampling(sampling_, 5, context_, checked_, violations));
    RETURN_IF_ERROR(CheckStopping(stopping_, 50, context_, checked_, violations));
    CheckSomethingIsAllowed(context_, checked_, violations);
    CheckOutput(output_, checked_, violations);
    CheckCache(cache_, checked_, violations);
    return violations.ToStatus();
  }
  void ExpectRefused(StringView field) {
    const absl::Status status = Check();
    EXPECT_TRUE(absl::IsInvalidArgument(status)) << field << ": " << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr(std::string(field)));
  }
  // Every value of `bad` is refused by the field's name, every one of `good` is not.
  void ExpectRange(StringView field, void (v1::Sampling::*set)(float), std::vector<float> good,
                   std::vector<float> bad) {
    for (const float value : bad) {
      (sampling_.*set)(value);
      ExpectRefused(field);
    }
    for (const float value : good) {
      (sampling_.*set)(value);
      EXPECT_TRUE(Check().ok()) << Check();
    }
    sampling_.Clear();
  }

  const SamplingParameters& sampling() const { return checked_.request.sampling; }

  std::unique_ptr<Tokenizer> tokenizer_;
  ServingContext context_;
  v1::Sampling sampling_;
  v1::Stopping stopping_;
  v1::OutputOptions output_;
  v1::CacheOptions cache_;
  Generation checked_;
};

TEST_F(GenerationParameters, RangesAreThoseOfTheProtocol) {
  const float nan = std::nanf("");
  ExpectRange("sampling.min_p", &v1::Sampling::set_min_p, {0, 0.5, 1}, {-0.1f, 1.1f, nan});
  ExpectRange("sampling.repetition_penalty", &v1::Sampling::set_repetition_penalty, {0.1f, 1, 9},
              {0, -1, nan, INFINITY});
  ExpectRange("sampling.presence_penalty", &v1::Sampling::set_presence_penalty, {-2, 0, 2},
              {-2.1f, 2.1f, nan});
  ExpectRange("sampling.frequency_penalty", &v1::Sampling::set_frequency_penalty, {-2, 0, 2},
              {-2.1f, 2.1f, nan});
}

TEST_F(GenerationParameters, ValuesLeftOutAreTheModelsDefaults) {
  context_.default_sampling = {
      .temperature = 0.7f, .top_p = 0.8f, .top_k = 20, .repetition_penalty = 1.05f};
  ASSERT_TRUE(Check().ok());
  EXPECT_EQ(sampling().temperature, 0.7f);
  EXPECT_EQ(sampling().top_k, 20);
  EXPECT_EQ(sampling().seed, 5u);
  EXPECT_EQ(checked_.sampling.temperature(), 0.7f);
  EXPECT_EQ(checked_.sampling.top_p(), 0.8f);
  EXPECT_EQ(checked_.sampling.n(), 1u);
  sampling_.set_temperature(0);
  sampling_.set_top_k(0);
  ASSERT_TRUE(Check().ok());
  EXPECT_EQ(sampling().temperature, 0);
  EXPECT_EQ(sampling().top_k, 0);
  EXPECT_EQ(sampling().repetition_penalty, 1.05f) << "acts on greedy choices too";
}

TEST_F(GenerationParameters, SequencesAreOneToEight) {
  for (const uint32_t n : {0u, 9u, 1u << 31}) {
    sampling_.set_n(n);
    ExpectRefused("sampling.n");
  }
  sampling_.set_n(8);
  ASSERT_TRUE(Check().ok());
  EXPECT_EQ(checked_.sequences, 8u);
}

TEST_F(GenerationParameters, BiasIsSortedAndBounded) {
  (*sampling_.mutable_logit_bias())[9] = 100;
  (*sampling_.mutable_logit_bias())[3] = -100;
  ASSERT_TRUE(Check().ok());
  EXPECT_EQ(sampling().logit_bias,
            (std::vector<TokenBias>{{.id = 3, .bias = -100}, {.id = 9, .bias = 100}}));
  (*sampling_.mutable_logit_bias())[4] = 101;
  ExpectRefused("sampling.logit_bias[4]: 101");
  sampling_.clear_logit_bias();
  (*sampling_.mutable_logit_bias())[kTestVocabulary] = 1;
  ExpectRefused("id 264");
  for (uint32_t id = 0; id < 301; ++id) (*sampling_.mutable_logit_bias())[id] = 1;
  ExpectRefused("301 ids are more than 300");
}

TEST_F(GenerationParameters, AllowedIdsAreASetOfWhichOneCanBeChosen) {
  for (const uint32_t id : {9u, 3u, 9u}) sampling_.add_allowed_token_ids(id);
  ASSERT_TRUE(Check().ok());
  EXPECT_EQ(sampling().allowed_token_ids, (std::vector<int32_t>{3, 9}));
  EXPECT_EQ(checked_.sampling.allowed_token_ids_size(), 2);
  sampling_.clear_allowed_token_ids();
  sampling_.add_allowed_token_ids(260);  // padding
  ExpectRefused("sampling.allowed_token_ids: none of the 1 ids can be chosen");
  sampling_.add_allowed_token_ids(258);  // ends the sequence
  EXPECT_TRUE(Check().ok());
  stopping_.set_min_tokens(1);
  ExpectRefused("sampling.allowed_token_ids");
  stopping_.set_ignore_eos(true);
  EXPECT_TRUE(Check().ok());
  sampling_.add_bad_token_ids()->add_ids(258);
  ExpectRefused("sampling.allowed_token_ids");
  sampling_.add_allowed_token_ids(kTestVocabulary);
  ExpectRefused("sampling.allowed_token_ids[2]");
}

TEST_F(GenerationParameters, BadWordsAreTokenisedAloneAndAfterASpace) {
  sampling_.add_bad_words("hi");
  sampling_.add_bad_words("<|im_end|>");
  sampling_.add_bad_token_ids()->add_ids(7);
  ASSERT_TRUE(Check().ok()) << Check();
  // In a tokenizer of bytes the form after a space ends in the other one.
  EXPECT_EQ(sampling().bad_words, (std::vector<std::vector<int32_t>>{{'h', 'i'}, {258}, {7}}));
  sampling_.add_bad_words("");
  ExpectRefused("sampling.bad_words[2]: 0 bytes");
  sampling_.set_bad_words(2, std::string(257, 'x'));
  ExpectRefused("sampling.bad_words[2]: 257 bytes");
  sampling_.set_bad_words(2, std::string(65, 'x'));
  ExpectRefused("sampling.bad_words[2]: 65 tokens are more than 64");
  sampling_.clear_bad_words();
  sampling_.add_bad_token_ids();
  ExpectRefused("sampling.bad_token_ids[1].ids: empty");
  for (int i = 0; i < 64; ++i) sampling_.add_bad_words("x");
  sampling_.clear_bad_token_ids();
  EXPECT_TRUE(Check().ok());
  sampling_.add_bad_words("x");
  ExpectRefused("65 words");
}

TEST_F(GenerationParameters, StopStringsAreBounded) {
  stopping_.add_stop_strings("");
  ExpectRefused("stopping.stop_strings[0]: 0 bytes");
  stopping_.set_stop_strings(0, std::string(256, 'x'));
  EXPECT_TRUE(Check().ok());
  for (int i = 0; i < 16; ++i) stopping_.add_stop_strings("y");
  ExpectRefused("17 strings are more than 16");
}

TEST_F(GenerationParameters, MinTokensAreAtMostMaxTokens) {
  stopping_.set_min_tokens(50);
  EXPECT_TRUE(Check().ok()) << "50 are left";
  stopping_.set_max_tokens(49);
  ExpectRefused("stopping.min_tokens: 50 is more than stopping.max_tokens, 49");
}

TEST_F(GenerationParameters, LogProbabilitiesAreAtMostTwenty) {
  ASSERT_TRUE(Check().ok());
  EXPECT_EQ(sampling().logprobs, -1);
  EXPECT_TRUE(checked_.output.text());
  EXPECT_FALSE(checked_.output.has_logprobs());
  output_.set_logprobs(0);
  output_.set_prompt_logprobs(20);
  ASSERT_TRUE(Check().ok());
  EXPECT_EQ(sampling().logprobs, 0);
  EXPECT_EQ(checked_.request.prompt_logprobs, 20);
  output_.set_logprobs(21);
  output_.set_prompt_logprobs(1u << 31);
  ExpectRefused("output.logprobs: 21");
  ExpectRefused("output.prompt_logprobs");
}

TEST_F(GenerationParameters, SaltsAreBounded) {
  cache_.set_salt(std::string(256, 's'));
  cache_.set_bypass_prefix(true);
  ASSERT_TRUE(Check().ok());
  EXPECT_TRUE(checked_.request.bypass_prefix_cache);
  EXPECT_EQ(checked_.request.cache_salt.size(), 256u);
  cache_.set_salt(std::string(257, 's'));
  ExpectRefused("cache.salt");
}

TEST_F(GenerationParameters, WithoutATokenizerOnlyIdsCanBeKeptOut) {
  context_.tokenizer = nullptr;
  sampling_.add_bad_token_ids()->add_ids(7);
  EXPECT_TRUE(Check().ok());
  sampling_.add_bad_words("hi");
  EXPECT_TRUE(absl::IsFailedPrecondition(Check()));
  sampling_.clear_bad_words();
  stopping_.add_stop_strings("x");
  EXPECT_TRUE(absl::IsFailedPrecondition(Check()));
}

}  // namespace
}  // namespace cohort
