#include "runtime/position_rule.h"

#include <gtest/gtest.h>

#include <cmath>

#include "tests/runtime/checkpoint_writer.h"

namespace cohort {
namespace {

// 128 positions, head_dim 8, theta 1e4.
ModelConfig Config(const ModelOverrides& overrides) {
  const auto config = ParseModelConfig(TinyConfigJson({}), "config.json", overrides);
  CHECK_OK(config.status());
  return *config;
}

TEST(PositionRule, APlainModelReadsTheRowOfThePosition) {
  const PositionRule rule(Config({}), 100);
  ASSERT_EQ(rule.rope_parts().size(), 1u);
  EXPECT_EQ(rule.rope_parts()[0].positions, 100);
  EXPECT_EQ(rule.rope_parts()[0].attention_factor, 1);
  EXPECT_EQ(rule.rope_rows(), 100);
  EXPECT_EQ(rule.RopeRow({}, 99), 99);
  EXPECT_EQ(rule.LogitFactor({.prompt_tokens = 1000}, 99), 1.0f);
}

TEST(PositionRule, YarnHasATableOfItsOwnAndAutoOneMore) {
  ModelOverrides overrides{.yarn = YarnOverride{.factor = 4}};
  const ModelConfig always = Config(overrides);
  ASSERT_EQ(PositionRule(always, 512).rope_parts().size(), 1u);
  EXPECT_EQ(PositionRule(always, 512).rope_parts()[0].attention_factor, YarnTemperature(4));
  EXPECT_EQ(PositionRule(always, 512).rope_parts()[0].inverse_frequencies,
            InverseFrequencies(1e4, 8, *always.yarn));
  overrides.yarn_auto = true;
  const PositionRule rule(Config(overrides), 512);
  const std::vector<RopeRows> parts = rule.rope_parts();
  ASSERT_EQ(parts.size(), 2u);
  EXPECT_EQ(parts[1].positions, 128);
  EXPECT_EQ(parts[1].attention_factor, 1);
  EXPECT_EQ(parts[1].inverse_frequencies, InverseFrequencies(1e4, 8));
  EXPECT_EQ(rule.rope_rows(), 640);
  EXPECT_EQ(rule.RopeRow({.plain_rope = true}, 5), 512 + 5);
  EXPECT_EQ(rule.RopeRow({.plain_rope = false}, 5), 5);
  EXPECT_EQ(PositionRule(Config(overrides), 50).rope_rows(), 100) << "none is ever longer";
}

TEST(PositionRule, DualChunksBeginAgainAndIgnoreYarn) {
  ModelOverrides overrides{.yarn = YarnOverride{.factor = 4}};
  overrides.dual_chunk = {.chunk_size = 40, .local_size = 8, .original_positions = 100};
  const PositionRule rule(Config(overrides), 4096);
  ASSERT_EQ(rule.rope_parts().size(), 1u);
  EXPECT_EQ(rule.rope_parts()[0].inverse_frequencies, InverseFrequencies(1e4, 8));
  EXPECT_EQ(rule.rope_parts()[0].attention_factor, 1);
  EXPECT_EQ(rule.rope_rows(), 41) << "distances 0 to 40";
  EXPECT_EQ(rule.RopeRow({}, 31), 31);
  EXPECT_EQ(rule.RopeRow({}, 32), 0);
  EXPECT_EQ(rule.RopeRow({}, 4095), 31);
  overrides.dual_chunk = {.chunk_size = 40, .local_size = 30};
  EXPECT_EQ(PositionRule(Config(overrides), 4096).rope_rows(), 20) << "0 to twice the length - 1";
}

TEST(PositionRule, LogitsGrowWithTheLengthOfThePromptOrOfTheTextSoFar) {
  ModelOverrides overrides;
  overrides.dual_chunk = {.chunk_size = 40, .local_size = 8, .original_positions = 100};
  const PositionRule rule(Config(overrides), 4096);
  const auto square = [](double length) {
    const double temperature = 0.1 * std::log(length / 100) + 1;
    return static_cast<float>(temperature * temperature);
  };
  EXPECT_EQ(rule.LogitFactor({.prompt_tokens = 100}, 99), 1.0f);
  EXPECT_EQ(rule.LogitFactor({.prompt_tokens = 100}, 100), square(101));
  EXPECT_EQ(rule.LogitFactor({.prompt_tokens = 400}, 7), square(400));
  EXPECT_EQ(rule.LogitFactor({.prompt_tokens = 400}, 999), square(1000));
  overrides.dual_chunk->original_positions = 0;
  EXPECT_EQ(PositionRule(Config(overrides), 4096).LogitFactor({.prompt_tokens = 400}, 999), 1.0f);
}

}  // namespace
}  // namespace cohort
