#include "runtime/sampling.h"

#include <gtest/gtest.h>

#include <limits>

#include "runtime/request.h"

namespace cohort {
namespace {

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kInfinity = std::numeric_limits<float>::infinity();

void ExpectRefused(const SamplingParameters& parameters, StringView field) {
  const absl::Status status = Validate(parameters);
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << field;
  EXPECT_NE(status.message().find(field), StringView::npos) << status;
}

TEST(Sampling, DefaultsAreGreedyAndValid) { EXPECT_TRUE(Validate({}).ok()); }

TEST(Sampling, BordersAreValid) {
  EXPECT_TRUE(Validate({.temperature = 0, .top_p = 1, .top_k = 0, .seed = 0}).ok());
  EXPECT_TRUE(Validate({.temperature = std::numeric_limits<float>::max(),
                        .top_p = std::numeric_limits<float>::denorm_min(),
                        .top_k = std::numeric_limits<int32_t>::max(),
                        .seed = ~uint64_t{0}})
                  .ok());
  EXPECT_TRUE(Validate({.min_p = 1,
                        .repetition_penalty = 0.001f,
                        .presence_penalty = -2,
                        .frequency_penalty = 2,
                        .logit_bias = {{0, -100}, {1, 100}},
                        .allowed_token_ids = {0, 7},
                        .bad_words = {{5, 5}},
                        .logprobs = 20})
                  .ok());
}

TEST(Sampling, ValuesOutOfRangeAreRefusedByTheirField) {
  ExpectRefused({.temperature = -0.1f}, "sampling.temperature is -0.1");
  ExpectRefused({.temperature = kNan}, "sampling.temperature");
  ExpectRefused({.temperature = kInfinity}, "sampling.temperature");
  ExpectRefused({.top_p = 0}, "sampling.top_p is 0");
  ExpectRefused({.top_p = 1.5f}, "sampling.top_p is 1.5");
  ExpectRefused({.top_p = kNan}, "sampling.top_p");
  ExpectRefused({.top_k = -1}, "sampling.top_k is -1");
  ExpectRefused({.min_p = 1.5f}, "sampling.min_p is 1.5");
  ExpectRefused({.min_p = kNan}, "sampling.min_p");
  ExpectRefused({.repetition_penalty = 0}, "sampling.repetition_penalty is 0");
  ExpectRefused({.repetition_penalty = kInfinity}, "sampling.repetition_penalty");
  ExpectRefused({.presence_penalty = 2.5f}, "sampling.presence_penalty is 2.5");
  ExpectRefused({.frequency_penalty = kNan}, "sampling.frequency_penalty");
  ExpectRefused({.logprobs = 21}, "sampling.logprobs is 21");
  ExpectRefused({.logprobs = -2}, "sampling.logprobs is -2");
}

TEST(Sampling, ListsAreBoundedAndInOrder) {
  ExpectRefused({.logit_bias = {{4, 101}}}, "sampling.logit_bias[4] is 101");
  ExpectRefused({.logit_bias = {{4, kNan}}}, "sampling.logit_bias[4]");
  ExpectRefused({.logit_bias = {{4, 1}, {4, 2}}}, "sampling.logit_bias holds the id 4 after 4");
  ExpectRefused({.logit_bias = {{-1, 1}}}, "sampling.logit_bias holds the id -1");
  ExpectRefused({.allowed_token_ids = {7, 3}}, "sampling.allowed_token_ids holds the id 3 after 7");
  ExpectRefused({.bad_words = {{1}, {}}}, "sampling.bad_words holds a word without ids");
  ExpectRefused({.bad_words = {{1, -4}}}, "sampling.bad_words holds the id -4");
  ExpectRefused({.bad_words = {std::vector<int32_t>(65, 1)}}, "sampling.bad_words has 65 entries");
  ExpectRefused({.bad_words = std::vector<std::vector<int32_t>>(257, {1})},
                "sampling.bad_words has 257 entries");
  SamplingParameters many;
  for (int32_t id = 0; id < 1025; ++id) {
    many.allowed_token_ids.push_back(id);
    many.logit_bias.push_back({id, 0});
  }
  ExpectRefused({.allowed_token_ids = many.allowed_token_ids},
                "sampling.allowed_token_ids has 1025 entries; at most 1024");
  ExpectRefused({.logit_bias = many.logit_bias},
                "sampling.logit_bias has 1025 entries; at most 300");
}

TEST(FinishReason, NamesAreThoseOfTheCommandLine) {
  EXPECT_EQ(NameOf(FinishReason::kStop), "stop");
  EXPECT_EQ(NameOf(FinishReason::kLength), "length");
  EXPECT_EQ(NameOf(FinishReason::kCancelled), "cancelled");
  EXPECT_EQ(NameOf(FinishReason::kDeadline), "deadline");
  EXPECT_EQ(NameOf(FinishReason::kError), "error");
}

}  // namespace
}  // namespace cohort
