#include "runtime/step_plan.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>
#include <string>

namespace cohort {
namespace {

StepPlan SamplePlan() {
  StepPlan plan;
  plan.epoch = 3;
  plan.step = 0x0102030405060708;
  plan.admits = {{.slot = 7,
                  .sequence_index = 2,
                  .first_position = 2,
                  .prompt_tokens = 3,
                  .plain_rope = true,
                  .history = {11, 12},
                  .min_tokens = 4,
                  .held_back_ids = {151643, 151645},
                  .sampling = {.temperature = 0.5f,
                               .top_p = 0.9f,
                               .top_k = 40,
                               .min_p = 0.01f,
                               .seed = 99,
                               .repetition_penalty = 1.1f,
                               .presence_penalty = -0.5f,
                               .frequency_penalty = 0.25f,
                               .logit_bias = {{.id = 3, .bias = -100}, {.id = 9, .bias = 2.5f}},
                               .allowed_token_ids = {3, 9, 27},
                               .bad_words = {{3}, {9, 27}},
                               .logprobs = 5}}};
  plan.rows = {
      {.slot = 7,
       .first_position = 0,
       .tokens = {{.id = 1}, {.id = 151643}},
       .appended_blocks = {4, 5},
       .sample = true,
       .score_targets = {}},
      {.slot = 1,
       .first_position = uint64_t{1} << 40,
       .tokens = {{.id = 0, .sampled_in_step = 12}},
       .appended_blocks = {},
       .sample = true,
       .score_targets = {}},
      {.slot = 2,
       .first_position = 16,
       .tokens = {{.id = 8}, {.id = 9}},
       .appended_blocks = {},
       .sample = false,
       .score_top = 3,
       .score_targets = {9, -1}},
  };
  plan.releases = {0, 3};
  return plan;
}

StepResult SampleResult() {
  return {.epoch = 3,
          .step = 9,
          .digest = 0xfedcba9876543210,
          .sequences = {{.slot = 7,
                         .tokens = {5},
                         .token_logprobs = {-0.5f},
                         .token_top = {{.id = 5, .logprob = -0.5f}, {.id = 6, .logprob = -1.5f}}},
                        {.slot = 2,
                         .logprobs = {-0.25f, 0.0f},
                         .score_top = {{.id = 4, .logprob = -0.125f}, {.id = 0, .logprob = -1}}},
                        {.slot = 1, .tokens = {1, 2, -1}}},
          .expert_hits = {4, 0, 9}};
}

// A value whose bits are anything.
template <class T>
T Any(std::mt19937_64& random) {
  return static_cast<T>(random());
}

std::vector<int32_t> AnyIds(std::mt19937_64& random) {
  std::vector<int32_t> ids(random() % 4);
  for (int32_t& id : ids) {
    id = Any<int32_t>(random);
  }
  return ids;
}

SamplingParameters AnySampling(std::mt19937_64& random) {
  SamplingParameters sampling = {.temperature = static_cast<float>(random() % 1000) / 7,
                                 .top_p = static_cast<float>(random() % 1000) / 999,
                                 .top_k = Any<int32_t>(random),
                                 .min_p = static_cast<float>(random() % 1000) / 999,
                                 .seed = random(),
                                 .repetition_penalty = static_cast<float>(random() % 1000) / 500,
                                 .presence_penalty = static_cast<float>(random() % 100) / 25 - 2,
                                 .frequency_penalty = static_cast<float>(random() % 100) / 25 - 2,
                                 .allowed_token_ids = AnyIds(random),
                                 .logprobs = Any<int32_t>(random)};
  for (const int32_t id : AnyIds(random)) {
    sampling.logit_bias.push_back({.id = id, .bias = static_cast<float>(random() % 200) - 100});
  }
  for (uint64_t i = random() % 3; i > 0; --i) {
    sampling.bad_words.push_back(AnyIds(random));
  }
  return sampling;
}

StepPlan RandomPlan(std::mt19937_64& random) {
  StepPlan plan;
  plan.epoch = Any<uint64_t>(random);
  plan.step = Any<uint64_t>(random);
  for (uint64_t i = random() % 4; i > 0; --i) {
    plan.admits.push_back({.slot = Any<uint32_t>(random),
                           .sequence_index = Any<uint32_t>(random),
                           .first_position = random(),
                           .prompt_tokens = random(),
                           .plain_rope = random() % 2 == 0,
                           .history = AnyIds(random),
                           .min_tokens = random(),
                           .held_back_ids = AnyIds(random),
                           .sampling = AnySampling(random)});
  }
  for (uint64_t i = random() % 5; i > 0; --i) {
    SequenceRows rows;
    rows.slot = Any<uint32_t>(random);
    rows.first_position = random();
    const bool targets = random() % 3 == 0;
    rows.score_top = targets ? Any<uint32_t>(random) % 3 : 0;
    for (uint64_t t = 1 + random() % 6; t > 0; --t) {
      rows.tokens.push_back({.id = Any<int32_t>(random)});
      if (random() % 4 == 0) {
        rows.tokens.back().sampled_in_step = random() >> 1;
      }
      if (targets) {
        rows.score_targets.push_back(Any<int32_t>(random));
      }
    }
    for (uint64_t b = random() % 4; b > 0; --b) {
      rows.appended_blocks.push_back(Any<int32_t>(random));
    }
    rows.sample = random() % 2 == 0;
    plan.rows.push_back(rows);
  }
  for (uint64_t i = random() % 4; i > 0; --i) {
    plan.releases.push_back(Any<uint32_t>(random));
  }
  return plan;
}

TEST(StepPlan, DecodesToWhatWasEncoded) {
  const auto plan = DecodeStepPlan(Encode(SamplePlan()));
  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_EQ(*plan, SamplePlan());
  const auto result = DecodeStepResult(Encode(SampleResult()));
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(*result, SampleResult());
}

TEST(StepPlan, BytesAreLittleEndianAsDocumented) {
  StepPlan plan;
  plan.epoch = 2;
  plan.step = 0x0102;
  plan.rows = {{.slot = 3,
                .first_position = 16,
                .tokens = {{.id = 5}},
                .appended_blocks = {1},
                .sample = true,
                .score_targets = {}}};
  const unsigned char expected[] = {
      'C', 'P', 'L', 'N', 3, 0, 0, 0,  // magic, version
      2,   0,   0,   0,   0, 0, 0, 0,  // epoch
      2,   1,   0,   0,   0, 0, 0, 0,  // step
      0,   0,   0,   0,                // no admits
      1,   0,   0,   0,                // one sequence
      3,   0,   0,   0,                // slot
      16,  0,   0,   0,   0, 0, 0, 0,  // first position
      3,                               // sample, all literals
      1,   0,   0,   0,   5, 0, 0, 0,  // one token
      1,   0,   0,   0,   1, 0, 0, 0,  // one block
      0,   0,   0,   0,                // no releases
  };
  EXPECT_EQ(Encode(plan), std::string(reinterpret_cast<const char*>(expected), sizeof(expected)));
}

TEST(StepPlan, TokensCountsRowsOfAllSequences) {
  EXPECT_EQ(SamplePlan().tokens(), 5);
  EXPECT_EQ(StepPlan().tokens(), 0);
}

TEST(StepPlan, AnyPlanSurvivesTheRoundTrip) {
  for (uint64_t seed = 0; seed < 300; ++seed) {
    SCOPED_TRACE(seed);
    std::mt19937_64 random(seed);
    const StepPlan plan = RandomPlan(random);
    const std::string bytes = Encode(plan);
    const auto decoded = DecodeStepPlan(bytes);
    ASSERT_TRUE(decoded.ok()) << decoded.status();
    EXPECT_EQ(*decoded, plan);
    EXPECT_EQ(Encode(*decoded), bytes);
  }
}

TEST(StepPlan, EveryTruncationIsRefused) {
  const std::string plan = Encode(SamplePlan());
  for (size_t size = 0; size < plan.size(); ++size) {
    EXPECT_EQ(DecodeStepPlan(StringView(plan).substr(0, size)).status().code(),
              absl::StatusCode::kInvalidArgument)
        << size;
  }
  const std::string result = Encode(SampleResult());
  for (size_t size = 0; size < result.size(); ++size) {
    EXPECT_EQ(DecodeStepResult(StringView(result).substr(0, size)).status().code(),
              absl::StatusCode::kInvalidArgument)
        << size;
  }
}

TEST(StepPlan, TrailingBytesAreRefused) {
  EXPECT_FALSE(DecodeStepPlan(Encode(SamplePlan()) + '\0').ok());
  const auto result = DecodeStepResult(Encode(SampleResult()) + "xyz");
  EXPECT_NE(result.status().message().find("3 trailing bytes"), StringView::npos)
      << result.status();
}

TEST(StepPlan, AnotherVersionOrKindIsRefusedByName) {
  std::string bytes = Encode(SamplePlan());
  bytes[4] = 1;
  EXPECT_NE(DecodeStepPlan(bytes).status().message().find("version 1"), StringView::npos);
  EXPECT_FALSE(DecodeStepPlan(Encode(SampleResult())).ok());
  EXPECT_FALSE(DecodeStepResult(Encode(SamplePlan())).ok());
}

// Whatever decodes has that one encoding, so a digest of the bytes is a digest of the plan.
TEST(StepPlan, FlippedBitsAreRefusedOrDecodeToTheirOwnEncoding) {
  for (uint64_t seed = 0; seed < 20; ++seed) {
    SCOPED_TRACE(seed);
    std::mt19937_64 random(seed);
    const std::string bytes = Encode(RandomPlan(random));
    for (size_t bit = 0; bit < bytes.size() * 8; ++bit) {
      std::string flipped = bytes;
      flipped[bit / 8] = static_cast<char>(flipped[bit / 8] ^ (1 << (bit % 8)));
      const auto plan = DecodeStepPlan(flipped);
      if (plan.ok()) {
        ASSERT_EQ(Encode(*plan), flipped) << "bit " << bit;
      }
    }
  }
}

TEST(StepPlan, HugeCountsAreRefusedBeforeAnythingIsAllocated) {
  std::string bytes = Encode(SamplePlan());
  for (size_t offset = 24; offset + 4 <= bytes.size(); ++offset) {
    std::string hostile = bytes;
    hostile.replace(offset, 4, "\xff\xff\xff\xff");
    const auto plan = DecodeStepPlan(hostile);  // a vector of 2^32 elements would not fit
    if (plan.ok()) {
      EXPECT_EQ(Encode(*plan), hostile);
    }
  }
}

TEST(StepPlan, LogProbabilitiesKeepTheirBits) {
  StepResult result = SampleResult();
  result.sequences[1].logprobs = {-0.0f, -std::numeric_limits<float>::infinity(),
                                  std::numeric_limits<float>::quiet_NaN(),
                                  std::numeric_limits<float>::denorm_min()};
  const auto decoded = DecodeStepResult(Encode(result));
  ASSERT_TRUE(decoded.ok());
  EXPECT_EQ(Encode(*decoded), Encode(result));
  EXPECT_TRUE(std::isnan(decoded->sequences[1].logprobs[2]));
}

TEST(StepPlanDeathTest, RowsWithoutTokensCannotBeEncoded) {
  StepPlan plan;
  plan.rows.emplace_back();
  EXPECT_DEATH(Encode(plan), "rows of slot 0");
}

}  // namespace
}  // namespace cohort
