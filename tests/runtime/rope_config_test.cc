#include "runtime/rope_config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/strings/str_replace.h"
#include "tests/runtime/checkpoint_writer.h"

namespace cohort {
namespace {

using ::testing::HasSubstr;

// The tiny config (128 positions, theta 1e4) with further members in front.
absl::StatusOr<ModelConfig> Parse(StringView members, const ModelOverrides& overrides = {}) {
  return ParseModelConfig(absl::StrCat("{", members, ", ", TinyConfigJson({}).substr(1)),
                          "config.json", overrides);
}

YarnScaling Yarn(StringView members, const ModelOverrides& overrides = {}) {
  const auto config = Parse(members, overrides);
  EXPECT_TRUE(config.ok()) << members << ": " << config.status();
  EXPECT_TRUE(config.ok() && config->yarn.has_value()) << members;
  return config.ok() ? config->yarn.value_or(YarnScaling()) : YarnScaling();
}

std::string Fault(StringView members, const ModelOverrides& overrides = {}) {
  const absl::Status status = Parse(members, overrides).status();
  EXPECT_TRUE(absl::IsInvalidArgument(status)) << members << ": " << status;
  return std::string(status.message());
}

TEST(RopeConfig, ReadsYarnInBothSpellings) {
  const auto older = Parse(R"("rope_scaling": {"type": "yarn", "factor": 4.0,
                                               "original_max_position_embeddings": 64})");
  ASSERT_TRUE(older.ok()) << older.status();
  EXPECT_EQ(older->yarn->factor, 4);
  EXPECT_EQ(older->yarn->original_positions, 64);
  EXPECT_EQ(older->max_positions, 256) << "original x factor, whatever max_position_embeddings is";
  EXPECT_EQ(older->yarn->attention_factor, YarnTemperature(4));
  EXPECT_EQ(older->yarn->beta_fast, 32);
  EXPECT_EQ(older->yarn->beta_slow, 1);
  EXPECT_TRUE(older->yarn->truncate);
  const std::string newer_json = absl::StrReplaceAll(
      TinyConfigJson({}), {{"\"rope_theta\": 10000.0",
                            R"("rope_parameters": {"rope_theta": 5e5, "rope_type": "yarn",
                            "factor": 2, "original_max_position_embeddings": 100,
                            "beta_fast": 16.0, "beta_slow": 2.0, "truncate": false})"}});
  const auto newer = ParseModelConfig(newer_json, "config.json");
  ASSERT_TRUE(newer.ok()) << newer.status();
  EXPECT_EQ(newer->rope_theta, 5e5);
  EXPECT_EQ(newer->max_positions, 200);
  EXPECT_EQ(newer->yarn->beta_fast, 16);
  EXPECT_EQ(newer->yarn->beta_slow, 2);
  EXPECT_FALSE(newer->yarn->truncate);
}

TEST(RopeConfig, FillsInWhatYarnLeavesOut) {
  EXPECT_EQ(Yarn(R"("rope_scaling": {"type": "yarn", "factor": 4.0})").original_positions, 128);
  EXPECT_EQ(Yarn(R"("rope_scaling": {"rope_type": "yarn", "factor": null,
                     "original_max_position_embeddings": 32})")
                .factor,
            4)
      << "the ratio of the lengths, as transformers 5 takes it";
  const YarnScaling zeros = Yarn(R"("rope_scaling": {"type": "yarn", "factor": 4.0,
      "beta_fast": 0, "beta_slow": null, "mscale": 0, "mscale_all_dim": 0.7})");
  EXPECT_EQ(zeros.beta_fast, 32);
  EXPECT_EQ(zeros.beta_slow, 1);
  EXPECT_EQ(zeros.attention_factor, YarnTemperature(4));
  EXPECT_EQ(Yarn(R"("rope_scaling": {"type": "yarn", "factor": 4.0, "mscale": 2.0,
                     "mscale_all_dim": 0.5, "attention_factor": 1.5})")
                .attention_factor,
            1.5);
}

TEST(RopeConfig, NamesKeyAndValueOfWhatItCannotUse) {
  const auto with = [](StringView members) {
    return Fault(absl::StrCat("\"rope_scaling\": {\"type\": \"yarn\", ", members, "}"));
  };
  EXPECT_THAT(with(R"("x": 1)"), HasSubstr("config.json: rope_scaling: factor is missing"));
  EXPECT_THAT(with(R"("factor": "four")"), HasSubstr("factor is \"four\""));
  EXPECT_THAT(with(R"("factor": 0.5)"), HasSubstr("factor is 0.5; it must be at least 1"));
  EXPECT_THAT(with(R"("factor": 1e9)"), HasSubstr("makes more than 16777216"));
  EXPECT_THAT(with(R"("factor": 2, "original_max_position_embeddings": 0)"),
              HasSubstr("original_max_position_embeddings is 0"));
  EXPECT_THAT(with(R"("factor": 2, "attention_factor": 0)"), HasSubstr("attention_factor is 0"));
  EXPECT_THAT(with(R"("factor": 2, "attn_factor": 0.5)"), HasSubstr("attn_factor is 0.5"));
  EXPECT_THAT(with(R"("factor": 2, "beta_fast": 1, "beta_slow": 3)"),
              HasSubstr("beta_fast is 1; it must be at least beta_slow, which is 3"));
  EXPECT_THAT(with(R"("factor": 2, "truncate": 1)"), HasSubstr("truncate is 1"));
  EXPECT_THAT(Fault(R"("rope_scaling": {"rope_type": "longrope", "factor": 2})"),
              HasSubstr("rope_scaling: rope_type is \"longrope\""));
  EXPECT_THAT(Fault(R"("rope_scaling": {"factor": 2})"), HasSubstr("rope_type is missing"));
  EXPECT_THAT(Fault(R"("rope_parameters": [])"), HasSubstr("rope_parameters is []"));
  EXPECT_THAT(Fault(R"("rope_parameters": {"rope_theta": 5.0})"),
              HasSubstr("it disagrees with rope_theta 10000"));
}

TEST(RopeConfig, AnOverrideGoesBeforeTheFile) {
  ModelOverrides overrides;
  overrides.yarn = {.factor = 3, .original_positions = 50};
  const auto config = Parse(R"("rope_scaling": {"type": "dynamic", "factor": 9})", overrides);
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->max_positions, 150);
  EXPECT_EQ(config->yarn->attention_factor, YarnTemperature(3));
  overrides.yarn = {.factor = 2};
  EXPECT_EQ(Yarn(R"("x": 1)", overrides).original_positions, 128);
  EXPECT_EQ(Yarn(R"("rope_scaling": {"type": "yarn", "factor": 9, "beta_fast": 5,
                     "original_max_position_embeddings": 40})",
                 overrides)
                .positions(),
            80)
      << "the file knows what the model was trained on";
  overrides.yarn = {.factor = 1e9};
  EXPECT_THAT(Fault(R"("x": 1)", overrides), HasSubstr("--rope-scaling yarn:1e+09:128"));
}

TEST(RopeConfig, AWindowIsComparedWithTheLongerLength) {
  EXPECT_THAT(Fault(R"("use_sliding_window": true, "max_window_layers": 0, "sliding_window": 128,
                       "rope_scaling": {"type": "yarn", "factor": 2})"),
              HasSubstr("sliding window of 128 positions"));
}

TEST(RopeConfig, YarnAutoNeedsYarnAndKnowsWhereItBegins) {
  ModelOverrides overrides;
  EXPECT_EQ(Parse(R"("x": 1)")->plain_rope_positions(), 0);
  overrides.yarn_auto = true;
  EXPECT_THAT(Fault(R"("x": 1)", overrides),
              HasSubstr("--yarn auto: config.json has no rope_scaling"));
  const StringView yarn = R"("rope_scaling": {"type": "yarn", "factor": 4.0,
                                               "original_max_position_embeddings": 64})";
  EXPECT_EQ(Parse(yarn, overrides)->plain_rope_positions(), 64);
  EXPECT_EQ(Parse(yarn, overrides)->max_positions, 256);
  EXPECT_EQ(Parse(yarn)->plain_rope_positions(), 0);
}

TEST(DualChunks, AreReadFromTheFileOrTheOverride) {
  const StringView chunks = R"("dual_chunk_attention_config": {"chunk_size": 40, "local_size": 8,
      "original_max_position_embeddings": 64, "sparse_attention_enabled": false})";
  const auto config = Parse(chunks);
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->dual_chunk->chunk_size, 40);
  EXPECT_EQ(config->dual_chunk->chunk_length(), 32);
  EXPECT_EQ(config->unscaled_positions(), 64);
  EXPECT_EQ(config->max_positions, 128);
  EXPECT_EQ(config->position_limit, kMaxPositions);
  EXPECT_EQ(Parse(R"("x": 1)")->position_limit, 128);
  EXPECT_EQ(Parse(R"("x": 1)")->unscaled_positions(), 0);
  const auto usual =
      Parse(R"("dual_chunk_attention_config": {"original_max_position_embeddings": 0})");
  EXPECT_EQ(usual->dual_chunk->chunk_size, 8192);
  EXPECT_EQ(usual->dual_chunk->local_size, 1024);
  EXPECT_EQ(usual->dual_chunk->original_positions, 0);
  ModelOverrides overrides;
  overrides.dual_chunk = {.chunk_size = 20, .local_size = 4};
  EXPECT_EQ(Parse(chunks, overrides)->dual_chunk->chunk_size, 20);
  EXPECT_EQ(Parse(chunks, overrides)->dual_chunk->original_positions, 0);
}

TEST(DualChunks, NameWhatTheyCannotUse) {
  const auto with = [](StringView members) {
    return Fault(absl::StrCat(R"("dual_chunk_attention_config": {)", members, "}"));
  };
  EXPECT_THAT(with(R"("chunk_size": 0)"),
              HasSubstr("dual_chunk_attention_config: chunk_size is 0"));
  EXPECT_THAT(with(R"("chunk_size": 9, "local_size": 9)"),
              HasSubstr("local_size is 9; it must be below chunk_size, which is 9"));
  EXPECT_THAT(with(R"("original_max_position_embeddings": 1.5)"),
              HasSubstr("original_max_position_embeddings is 1.5"));
  EXPECT_THAT(with(R"("sparse_attention_enabled": true)"),
              HasSubstr("sparse_attention_enabled is true: only dense attention"));
  EXPECT_THAT(Fault(R"("dual_chunk_attention_config": 5)"), HasSubstr("is 5: expected an object"));
  ModelOverrides overrides{.yarn = YarnOverride{.factor = 2}, .yarn_auto = true};
  overrides.dual_chunk = {.chunk_size = 20, .local_size = 4};
  EXPECT_THAT(Fault(R"("x": 1)", overrides), HasSubstr("--yarn auto: with dual chunk attention"));
}

}  // namespace
}  // namespace cohort
