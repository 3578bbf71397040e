#include "launcher/model_setup.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "tests/launcher/service_fixture.h"

namespace cohort {
namespace {

using ::testing::HasSubstr;

TEST(SetUpKv, FillsTheMemoryWithBlocks) {
  ServeOptions options;
  options.kv_memory_bytes = 1'000'000;
  options.block_size = 16;
  const absl::StatusOr<KvSetup> kv = SetUpKv(options, 100, {2048, 2048});
  ASSERT_TRUE(kv.ok()) << kv.status();
  EXPECT_EQ(kv->blocks, 625);
  EXPECT_EQ(kv->max_model_len, 2048);
  EXPECT_TRUE(kv->warnings.empty());
}

TEST(SetUpKv, LowersADefaultLengthWithAWarning) {
  ServeOptions options;
  options.kv_memory_bytes = 16'000;
  const absl::StatusOr<KvSetup> kv = SetUpKv(options, 100, {2048, 2048});
  ASSERT_TRUE(kv.ok()) << kv.status();
  EXPECT_EQ(kv->max_model_len, 160);
  ASSERT_EQ(kv->warnings.size(), 1u);
  EXPECT_THAT(kv->warnings[0], HasSubstr("max_model_len is lowered to 160"));
}

TEST(SetUpKv, RefusesAnExplicitLengthWithTheBytesMissing) {
  ServeOptions options;
  options.kv_memory_bytes = 16'000;
  options.max_model_len = 2048;
  const absl::Status status = SetUpKv(options, 100, {4096, 4096}).status();
  EXPECT_TRUE(absl::IsResourceExhausted(status));
  EXPECT_THAT(std::string(status.message()), HasSubstr("--max-model-len 2048"));
  EXPECT_THAT(std::string(status.message()), HasSubstr("188800 bytes are missing"));
}

TEST(SetUpKv, RefusesLengthsOverTheModelsAndMemoryBelowOneBlock) {
  ServeOptions options;
  options.max_model_len = 4097;
  EXPECT_THAT(std::string(SetUpKv(options, 100, {4096, 4096}).status().message()),
              HasSubstr("4096"));
  options.max_model_len = 0;
  options.kv_memory_bytes = 1599;
  EXPECT_THAT(std::string(SetUpKv(options, 100, {4096, 4096}).status().message()),
              HasSubstr("1600 bytes"));
}

class SetUpModelTest : public ::testing::Test {
 protected:
  SetUpModelTest() : directory_(::testing::TempDir() + "/" + TestName()) {
    std::filesystem::create_directories(directory_);
    Write("config.json", R"({"architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2",
        "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "intermediate_size": 64, "vocab_size": 264,
        "max_position_embeddings": 128, "rms_norm_eps": 1e-6, "rope_theta": 10000.0,
        "hidden_act": "silu", "tie_word_embeddings": false, "torch_dtype": "float32",
        "eos_token_id": 256})");
    options_.model = directory_;
    options_.device = "cpu";
    options_.dummy_weights = true;
  }
  ~SetUpModelTest() override { std::filesystem::remove_all(directory_); }

  static std::string TestName() {
    return ::testing::UnitTest::GetInstance()->current_test_info()->name();
  }
  void Write(const std::string& name, const std::string& text) {
    std::ofstream(directory_ + "/" + name) << text;
  }
  void ExpectRefused(StringView says) {
    const absl::Status status = SetUpModel(options_).status();
    EXPECT_THAT(std::string(status.message()), HasSubstr(std::string(says)));
  }

  const std::string directory_;
  ServeOptions options_;
};

TEST_F(SetUpModelTest, DummyWeightsNeedOnlyAConfig) {
  const absl::StatusOr<ModelSetup> setup = SetUpModel(options_);
  ASSERT_TRUE(setup.ok()) << setup.status();
  EXPECT_EQ(setup->served_name, TestName());
  EXPECT_EQ(setup->dtype, DType::kF32);
  EXPECT_EQ(setup->tokenizer, nullptr);
  EXPECT_EQ(setup->token_ids, 264);
  EXPECT_EQ(setup->max_model_len, 128);
  EXPECT_GE(setup->threads, 1);
  const v1::RankConfiguration configuration = MakeRankConfiguration(options_, *setup);
  EXPECT_EQ(configuration.kv_blocks(), setup->kv_blocks);
  EXPECT_EQ(configuration.dtype(), "fp32");
  EXPECT_THAT(configuration.eos_token_ids(), ::testing::ElementsAre(256));
  const SchedulerOptions scheduler = MakeSchedulerOptions(options_, *setup);
  EXPECT_EQ(scheduler.max_waiting, 1024);
  EXPECT_EQ(scheduler.max_waiting_tokens, int64_t{1} << 22);
  EXPECT_EQ(scheduler.max_prefill_tokens, 256);
  EXPECT_TRUE(scheduler.prefix_caching);
}

TEST_F(SetUpModelTest, EveryGroupHasTheWholeKvMemory) {
  const int64_t blocks = SetUpModel(options_)->kv_blocks;
  options_.dp = 3;
  const absl::StatusOr<ModelSetup> setup = SetUpModel(options_);
  ASSERT_TRUE(setup.ok()) << setup.status();
  EXPECT_EQ(setup->kv_blocks, blocks) << "memory is of a rank";
  EXPECT_EQ(MakeRankConfiguration(options_, *setup).data_parallel(), 3u);
}

TEST_F(SetUpModelTest, YarnMakesSequencesLongerAndReachesTheRanks) {
  options_.overrides.yarn = {.factor = 4};
  const absl::StatusOr<ModelSetup> setup = SetUpModel(options_);
  ASSERT_TRUE(setup.ok()) << setup.status();
  EXPECT_EQ(setup->max_model_len, 512);
  const v1::RankConfiguration configuration = MakeRankConfiguration(options_, *setup);
  EXPECT_EQ(configuration.yarn().factor(), 4);
  EXPECT_EQ(configuration.yarn().original_positions(), 0);
  options_.max_model_len = 513;
  ExpectRefused("--max-model-len 513 is outside 1 to 512");
}

TEST_F(SetUpModelTest, YarnAutoTellsTheSchedulerWhereYarnBegins) {
  options_.overrides.yarn_auto = true;
  ExpectRefused("--yarn auto");
  options_.overrides.yarn = {.factor = 4};
  const absl::StatusOr<ModelSetup> setup = SetUpModel(options_);
  ASSERT_TRUE(setup.ok()) << setup.status();
  EXPECT_TRUE(MakeRankConfiguration(options_, *setup).yarn_auto());
  EXPECT_EQ(MakeSchedulerOptions(options_, *setup).plain_rope_positions, 128);
}

TEST_F(SetUpModelTest, DualChunksAllowAnyLength) {
  options_.overrides.dual_chunk = {.chunk_size = 32, .local_size = 8, .original_positions = 100};
  options_.max_model_len = 1000;
  const absl::StatusOr<ModelSetup> setup = SetUpModel(options_);
  ASSERT_TRUE(setup.ok()) << setup.status();
  EXPECT_EQ(setup->max_model_len, 1000);
  EXPECT_TRUE(setup->warnings.empty());
  const v1::RankConfiguration configuration = MakeRankConfiguration(options_, *setup);
  EXPECT_EQ(configuration.dual_chunks().chunk_size(), 32);
  EXPECT_EQ(configuration.dual_chunks().local_size(), 8);
  EXPECT_EQ(configuration.dual_chunks().original_positions(), 100);
  EXPECT_EQ(MakeSchedulerOptions(options_, *setup).unscaled_positions, 100);
  options_.max_model_len = 0;
  EXPECT_EQ(SetUpModel(options_)->max_model_len, 128);
  options_.overrides.yarn = {.factor = 4};
  EXPECT_EQ(SetUpModel(options_)->max_model_len, 512);
  EXPECT_THAT(SetUpModel(options_)->warnings.at(0), HasSubstr("YaRN only says how long"));
}

TEST_F(SetUpModelTest, FlagsGoBeforeTheCheckpoint) {
  options_.dtype = "bf16";
  options_.served_model_name = "other";
  options_.threads = 3;
  const absl::StatusOr<ModelSetup> setup = SetUpModel(options_);
  ASSERT_TRUE(setup.ok()) << setup.status();
  EXPECT_EQ(setup->dtype, DType::kBF16);
  EXPECT_EQ(setup->served_name, "other");
  EXPECT_EQ(setup->threads, 3);
}

TEST_F(SetUpModelTest, EndIdsAreTheUnionOfBothFiles) {
  Write("generation_config.json", R"({"eos_token_id": [258, 256]})");
  const absl::StatusOr<ModelSetup> setup = SetUpModel(options_);
  ASSERT_TRUE(setup.ok()) << setup.status();
  EXPECT_THAT(setup->config.eos_token_ids, ::testing::ElementsAre(256, 258));
}

TEST_F(SetUpModelTest, ATokenizerSaysWhichIdsHaveATokenAndABrokenOneIsRefused) {
  Write("tokenizer.json", ByteTokenizerJson());
  const absl::StatusOr<ModelSetup> setup = SetUpModel(options_);
  ASSERT_TRUE(setup.ok()) << setup.status();
  EXPECT_EQ(setup->token_ids, 259);
  Write("tokenizer.json", "{");
  ExpectRefused("tokenizer.json");
}

TEST_F(SetUpModelTest, RefusesDegreesTheModelDoesNotHave) {
  options_.tp = 5;
  ExpectRefused("--tp 5 is outside 1 to 4");
  options_.tp = 3;
  options_.dp = 1366;
  ExpectRefused("--dp 1366 is outside 1 to 1365: with --tp 3 it makes 4098 ranks");
}

TEST_F(SetUpModelTest, ExpertGroupsDivideTheRanksOfAModelWithExperts) {
  options_.ep = 2;
  options_.tp = 2;
  ExpectRefused("has no experts");
  Write("config.json", R"({"architectures": ["Qwen2MoeForCausalLM"], "model_type": "qwen2_moe",
      "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
      "num_key_value_heads": 2, "intermediate_size": 64, "vocab_size": 264,
      "max_position_embeddings": 128, "rms_norm_eps": 1e-6, "rope_theta": 10000.0,
      "num_experts": 6, "num_experts_per_tok": 2, "moe_intermediate_size": 16,
      "shared_expert_intermediate_size": 24})");
  const absl::StatusOr<ModelSetup> setup = SetUpModel(options_);
  ASSERT_TRUE(setup.ok()) << setup.status();
  EXPECT_EQ(MakeRankConfiguration(options_, *setup).expert_parallel(), 2u);
  EXPECT_FALSE(MakeRankConfiguration(options_, *setup).exchanges_experts());
  options_.tp = 4;
  options_.ep = 3;
  ExpectRefused("--ep 3 does not divide the number of ranks, 4: 1, 2, 4 do");
  options_.tp = 1;
  ExpectRefused("--ep 3 does not divide the number of ranks, 1: 1 does");
  options_.dp = 3;
  options_.expert_exchange = "replicated";
  const absl::StatusOr<ModelSetup> shared = SetUpModel(options_);
  ASSERT_TRUE(shared.ok()) << shared.status();
  EXPECT_TRUE(MakeRankConfiguration(options_, *shared).exchanges_experts());
  EXPECT_EQ(MakeRankConfiguration(options_, *shared).expert_exchange(), "replicated");
}

TEST_F(SetUpModelTest, NamesWhatIsMissing) {
  options_.model = directory_ + "/nowhere";
  ExpectRefused("nowhere");
  options_.model = "Qwen2-0.5B";
  EXPECT_TRUE(SetUpModel(options_).ok()) << SetUpModel(options_).status();
  options_.dummy_weights = false;
  ExpectRefused("--load-format dummy");
  options_.model = directory_;
  ExpectRefused("model.safetensors");
  std::filesystem::remove(directory_ + "/config.json");
  ExpectRefused("config.json");
}

TEST_F(SetUpModelTest, KvMemoryMustBeThere) {
  options_.kv_memory_bytes = int64_t{1} << 60;
  ExpectRefused("--kv-memory 1152921504606846976 bytes");
}

TEST_F(SetUpModelTest, FlagsOfGpusNeedOne) {
  options_.gpu_memory = {.fraction = 0.5, .bytes = 0};
  ExpectRefused("--gpu-memory is about GPUs");
  options_.gpu_memory.reset();
  options_.embedding_memory = "host";
  ExpectRefused("--embedding-memory is about GPUs");
}

TEST_F(SetUpModelTest, OnlyGpusHaveProductsToTune) {
  options_.product_tuning = "on";
  ExpectRefused("--product-tuning on is about GPUs");
  options_.product_tuning = "auto";
  EXPECT_TRUE(SetUpModel(options_).ok());
  options_.tuning_file = "/tmp/products.txt";
  ExpectRefused("--tuning-file is about GPUs");
}

TEST_F(SetUpModelTest, WhatIsDeterministicIsNotTuned) {
  const auto setup = SetUpModel(options_);
  ASSERT_TRUE(setup.ok()) << setup.status();
  EXPECT_EQ(MakeRankConfiguration(options_, *setup).product_tuning(), "auto");
  options_.deterministic = true;
  EXPECT_EQ(MakeRankConfiguration(options_, *setup).product_tuning(), "off");
}

TEST_F(SetUpModelTest, ASimulatedRankIsAlone) {
  options_.simulated = {.rank = 1, .size = 2};
  const auto setup = SetUpModel(options_);
  ASSERT_TRUE(setup.ok()) << setup.status();
  const v1::RankConfiguration configuration = MakeRankConfiguration(options_, *setup);
  EXPECT_EQ(configuration.simulated_rank(), 1u);
  EXPECT_EQ(configuration.simulated_size(), 2u);
  EXPECT_EQ(configuration.tensor_parallel(), 1u);
  options_.simulated->size = 4000;
  ExpectRefused("--simulate-rank 1/4000");
  options_.simulated->size = 2;
  options_.dp = 2;
  ExpectRefused("--simulate-rank is one rank alone");
}

TEST_F(SetUpModelTest, CpuRanksAreDeterministic) {
  options_.deterministic = true;
  EXPECT_TRUE(SetUpModel(options_).ok());
}

TEST_F(SetUpModelTest, TheDeviceMustBeThere) {
  options_.device = "tpu";
  ExpectRefused("tpu");
}

TEST(SetUpModel, EveryPublishedNameServesWithDummyWeights) {
  for (const std::string& name : PublishedConfigNames()) {
    ServeOptions options;
    options.model = name;
    options.dummy_weights = true;
    options.device = "cpu";
    const absl::StatusOr<ModelSetup> setup = SetUpModel(options);
    ASSERT_TRUE(setup.ok()) << setup.status();
    EXPECT_EQ(setup->served_name, name);
    EXPECT_GT(setup->kv_blocks, 0);
  }
}

}  // namespace
}  // namespace cohort
