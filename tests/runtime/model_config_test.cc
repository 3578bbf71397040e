#include "runtime/model_config.h"

#include <gtest/gtest.h>

#include "absl/strings/str_replace.h"
#include "runtime/weights.h"
#include "tests/runtime/checkpoint_writer.h"

namespace cohort {
namespace {

// The tiny config with further members in front.
std::string With(StringView members) {
  return absl::StrCat("{", members, ", ", TinyConfigJson({}).substr(1));
}

// The tiny config with `from`, which it holds, replaced.
std::string Replaced(StringView from, StringView to) {
  const std::string json = TinyConfigJson({});
  EXPECT_NE(json.find(std::string(from)), std::string::npos) << from;
  return absl::StrReplaceAll(json, {{from, to}});
}

std::string Fault(const std::string& json) {
  const auto config = ParseModelConfig(json, "config.json");
  EXPECT_TRUE(absl::IsInvalidArgument(config.status())) << json << ": " << config.status();
  EXPECT_EQ(config.status().message().find("config.json: "), 0u) << config.status();
  return std::string(config.status().message());
}

void ExpectFaultNaming(const std::string& json, const std::vector<StringView>& parts) {
  const std::string fault = Fault(json);
  for (const StringView part : parts) {
    EXPECT_NE(fault.find(std::string(part)), std::string::npos) << fault << " lacks " << part;
  }
}

void ExpectAccepted(const std::string& json) {
  const auto config = ParseModelConfig(json, "config.json");
  EXPECT_TRUE(config.ok()) << json << ": " << config.status();
}

TEST(ModelConfig, TakesEveryValueFromTheFile) {
  const auto config = ParseModelConfig(
      With(R"("torch_dtype": "float16", "head_dim": 16, "future_key": {"a": [1]})"), "config.json");
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->architecture, "Qwen2ForCausalLM");
  EXPECT_EQ(config->model_type, "qwen2");
  EXPECT_EQ(config->hidden, 24);
  EXPECT_EQ(config->layers, 2);
  EXPECT_EQ(config->query_heads, 3);
  EXPECT_EQ(config->kv_heads, 1);
  EXPECT_EQ(config->head_dim, 16);
  EXPECT_EQ(config->ffn_columns, 10);
  EXPECT_EQ(config->vocabulary, 19);
  EXPECT_EQ(config->max_positions, 128);
  EXPECT_EQ(config->rms_norm_eps, 1e-6);
  EXPECT_EQ(config->rope_theta, 1e4);
  EXPECT_FALSE(config->tied_embeddings);
  EXPECT_EQ(config->checkpoint_dtype, "float16");
  EXPECT_EQ(config->eos_token_ids, std::vector<int32_t>{2});
}

TEST(ModelConfig, HeadDimIsHiddenOverHeadsUnlessGiven) { EXPECT_EQ(TinyConfig({}).head_dim, 8); }

TEST(ModelConfig, DimsFollowTheDtype) {
  const ModelDims dims = TinyConfig({}).Dims(DType::kF32);
  EXPECT_EQ(dims.weight_bytes, 4);
  EXPECT_EQ(dims.kv_bytes, 4);
  EXPECT_EQ(dims.ffn_columns, 10);
  EXPECT_EQ(TinyConfig({}).Dims(DType::kBF16).kv_bytes, 2);
}

TEST(ModelConfig, MissingOrNullRequiredKeysAreNamed) {
  for (const StringView member :
       {"\"hidden_size\": 24", "\"num_hidden_layers\": 2", "\"num_attention_heads\": 3",
        "\"num_key_value_heads\": 1", "\"intermediate_size\": 10", "\"vocab_size\": 19",
        "\"max_position_embeddings\": 128", "\"rms_norm_eps\": 1e-06", "\"rope_theta\": 10000.0",
        "\"model_type\": \"qwen2\""}) {
    const StringView key = member.substr(1, member.find(':') - 2);
    ExpectFaultNaming(Replaced(absl::StrCat(member, ", "), ""), {key, "is missing"});
    ExpectFaultNaming(Replaced(member, absl::StrCat("\"", key, "\": null")), {key, "is missing"});
  }
}

TEST(ModelConfig, ValuesOfTheWrongKindOrRangeAreNamed) {
  ExpectFaultNaming(Replaced("\"hidden_size\": 24", "\"hidden_size\": \"24\""),
                    {"hidden_size", "\"24\"", "a string"});
  ExpectFaultNaming(Replaced("\"hidden_size\": 24", "\"hidden_size\": 0"), {"hidden_size", "0"});
  ExpectFaultNaming(Replaced("\"hidden_size\": 24", "\"hidden_size\": 25"), {"hidden_size", "25"});
  ExpectFaultNaming(Replaced("\"vocab_size\": 19", "\"vocab_size\": -1"), {"vocab_size", "-1"});
  ExpectFaultNaming(Replaced("\"vocab_size\": 19", "\"vocab_size\": 1e18"), {"vocab_size"});
  ExpectFaultNaming(Replaced("\"num_hidden_layers\": 2", "\"num_hidden_layers\": 2.5"),
                    {"num_hidden_layers", "2.5"});
  ExpectFaultNaming(Replaced("\"num_key_value_heads\": 1", "\"num_key_value_heads\": 2"),
                    {"num_key_value_heads", "2"});
  ExpectFaultNaming(Replaced("\"rms_norm_eps\": 1e-06", "\"rms_norm_eps\": 0"), {"rms_norm_eps"});
  ExpectFaultNaming(Replaced("\"rope_theta\": 10000.0", "\"rope_theta\": -1"),
                    {"rope_theta", "-1"});
  ExpectFaultNaming(With("\"head_dim\": 7"), {"head_dim", "7"});
  ExpectFaultNaming(With("\"head_dim\": 130"), {"head_dim", "130"});
  Fault("[]");
  Fault("{");
}

TEST(ModelConfig, RefusesOtherArchitecturesByName) {
  ExpectFaultNaming(Replaced("[\"Qwen2ForCausalLM\"]", "[\"LlamaForCausalLM\"]"),
                    {"architectures", "LlamaForCausalLM"});
  ExpectFaultNaming(Replaced("\"model_type\": \"qwen2\"", "\"model_type\": \"qwen3\""),
                    {"model_type", "qwen3"});
  ExpectFaultNaming(Replaced("[\"Qwen2ForCausalLM\"]", "\"Qwen2ForCausalLM\""), {"architectures"});
  ExpectFaultNaming(Replaced("[\"Qwen2ForCausalLM\"]", "[\"Qwen2MoeForCausalLM\"]"),
                    {"architectures", "Qwen2MoeForCausalLM", "model_type \"qwen2\""});
  ExpectAccepted(Replaced("[\"Qwen2ForCausalLM\"]", "null"));
}

constexpr char kExperts[] = R"("num_experts": 6, "num_experts_per_tok": 2,
    "moe_intermediate_size": 12, "shared_expert_intermediate_size": 20)";

// The tiny config as a mixture of experts with further members.
std::string ExpertsJson(StringView members) {
  const std::string json = TinyConfigJson({.layers = 5});
  return absl::StrCat("{", members, ", ",
                      absl::StrReplaceAll(json, {{"Qwen2ForCausalLM", "Qwen2MoeForCausalLM"},
                                                 {"\"qwen2\"", "\"qwen2_moe\""}})
                          .substr(1));
}

TEST(ModelConfig, TakesTheExpertsFromTheFile) {
  const auto config = ParseModelConfig(
      ExpertsJson(absl::StrCat(kExperts, R"(, "norm_topk_prob": true, "qkv_bias": false)")), "c");
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->model_type, "qwen2_moe");
  EXPECT_EQ(config->experts, 6);
  EXPECT_EQ(config->experts_per_token, 2);
  EXPECT_EQ(config->expert_columns, 12);
  EXPECT_EQ(config->shared_expert_columns, 20);
  EXPECT_TRUE(config->normalize_expert_weights);
  EXPECT_FALSE(config->qkv_bias);
  EXPECT_EQ(config->Dims(DType::kF32).sparse_layers, 5);
  const auto defaults = ParseModelConfig(ExpertsJson(kExperts), "c");
  ASSERT_TRUE(defaults.ok()) << defaults.status();
  EXPECT_FALSE(defaults->normalize_expert_weights);
  EXPECT_TRUE(defaults->qkv_bias);
}

TEST(ModelConfig, SparseLayersAreEveryStepButThoseListed) {
  const auto config = ParseModelConfig(
      ExpertsJson(
          absl::StrCat(kExperts, R"(, "decoder_sparse_step": 2, "mlp_only_layers": [3, 0, 99])")),
      "c");
  ASSERT_TRUE(config.ok()) << config.status();
  std::vector<int64_t> sparse;
  for (int64_t layer = 0; layer < config->layers; ++layer) {
    if (config->IsSparse(layer)) sparse.push_back(layer);
  }
  EXPECT_EQ(sparse, std::vector<int64_t>{1});
  EXPECT_EQ(config->Dims(DType::kF32).sparse_layers, 1);
  EXPECT_FALSE(TinyConfig({}).IsSparse(0));
}

TEST(ModelConfig, FaultsOfExpertsAreNamed) {
  for (const StringView key : {"num_experts", "num_experts_per_tok", "moe_intermediate_size",
                               "shared_expert_intermediate_size"}) {
    const std::string renamed =
        absl::StrReplaceAll(kExperts, {{absl::StrCat("\"", key, "\""), "\"other\""}});
    ExpectFaultNaming(ExpertsJson(renamed), {key, "is missing"});
  }
  const auto with = [](StringView members) {
    return ExpertsJson(absl::StrCat(kExperts, ", ", members));
  };
  ExpectFaultNaming(ExpertsJson(absl::StrReplaceAll(kExperts, {{"tok\": 2", "tok\": 7"}})),
                    {"num_experts_per_tok is 7; it must be in 1..6"});
  ExpectFaultNaming(with(R"("decoder_sparse_step": 0)"), {"decoder_sparse_step", "0"});
  ExpectFaultNaming(with(R"("mlp_only_layers": 3)"), {"mlp_only_layers", "a list"});
  ExpectFaultNaming(with(R"("mlp_only_layers": [1, "two"])"), {"mlp_only_layers", "two"});
  ExpectFaultNaming(with(R"("norm_topk_prob": 1)"), {"norm_topk_prob", "1"});
}

TEST(ModelConfig, RefusesKeysThatChangeTheComputationByName) {
  ExpectFaultNaming(With(R"("rope_scaling": {"type": "linear", "factor": 4.0})"),
                    {"rope_scaling", "linear"});
  ExpectFaultNaming(With(R"("quantization_config": {"quant_method": "gptq"})"),
                    {"quantization_config", "gptq"});
  ExpectFaultNaming(With(R"("partial_rotary_factor": 0.5)"), {"partial_rotary_factor", "0.5"});
  ExpectFaultNaming(Replaced("\"silu\"", "\"gelu\""), {"hidden_act", "gelu"});
}

TEST(ModelConfig, AcceptsBothSpellingsAndNullForAbsent) {
  ExpectAccepted(With(R"("rope_scaling": null, "quantization_config": null, "head_dim": null,
                         "sliding_window": null, "layer_types": null)"));
  ExpectAccepted(With(R"("rope_scaling": {"rope_type": "default"})"));
  ExpectAccepted(With(R"("rope_scaling": {"type": "default"}, "partial_rotary_factor": 1.0)"));
  const auto config = ParseModelConfig(
      Replaced(
          "\"rope_theta\": 10000.0",
          R"("rope_parameters": {"rope_theta": 5e5, "rope_type": "default"}, "dtype": "bfloat16")"),
      "config.json");
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->rope_theta, 5e5);
  EXPECT_EQ(config->checkpoint_dtype, "bfloat16");
}

// Two layers, 128 positions.
TEST(ModelConfig, RefusesASlidingWindowOnlyWhereItHasAnEffect) {
  const StringView window = R"("use_sliding_window": true, "sliding_window": 64)";
  ExpectFaultNaming(With(absl::StrCat(window, R"(, "max_window_layers": 1)")),
                    {"use_sliding_window", "64"});
  ExpectFaultNaming(With(absl::StrCat(window, R"(, "max_window_layers": 0)")),
                    {"use_sliding_window"});
  ExpectAccepted(With(absl::StrCat(window, R"(, "max_window_layers": 2)")));
  ExpectAccepted(With(absl::StrCat(
      window, R"(, "max_window_layers": 0, "layer_types": ["full_attention", "full_attention"])")));
  ExpectAccepted(With(R"("use_sliding_window": true, "max_window_layers": 0,
                         "sliding_window": 128)"));
  ExpectAccepted(With(R"("use_sliding_window": true, "max_window_layers": 0,
                         "sliding_window": null)"));
  ExpectAccepted(With(R"("use_sliding_window": false, "max_window_layers": 0,
                         "sliding_window": 64)"));
  ExpectFaultNaming(With(R"("layer_types": ["full_attention", "sliding_attention"],
                            "sliding_window": 64)"),
                    {"layer_types", "64"});
  ExpectFaultNaming(With(R"("layer_types": ["full_attention", "linear_attention"])"),
                    {"layer_types", "linear_attention"});
  ExpectFaultNaming(With(R"("layer_types": ["full_attention"])"), {"layer_types"});
}

TEST(ModelConfig, EndIdsAreTheUnionOfBothFiles) {
  auto config =
      ParseModelConfig(Replaced("\"eos_token_id\": 2", "\"eos_token_id\": [7, 3]"), "config.json");
  ASSERT_TRUE(config.ok()) << config.status();
  ASSERT_TRUE(MergeGenerationConfig(R"({"eos_token_id": 5})", "g.json", *config).ok());
  ASSERT_TRUE(MergeGenerationConfig(R"({"eos_token_id": [3, 1]})", "g.json", *config).ok());
  ASSERT_TRUE(MergeGenerationConfig(R"({"eos_token_id": null})", "g.json", *config).ok());
  EXPECT_EQ(config->eos_token_ids, (std::vector<int32_t>{1, 3, 5, 7}));
}

TEST(ModelConfig, EndIdsBeyondTheVocabularyAreLeftOutAndOthersNamed) {
  const absl::StatusOr<ModelConfig> small =
      ParseModelConfig(Replaced("\"eos_token_id\": 2", "\"eos_token_id\": [3, 19]"), "config.json");
  ASSERT_TRUE(small.ok()) << small.status();
  EXPECT_EQ(small->eos_token_ids, std::vector<int32_t>{3});
  ExpectFaultNaming(Replaced("\"eos_token_id\": 2", "\"eos_token_id\": [2, -1]"),
                    {"eos_token_id", "-1"});
  ExpectFaultNaming(Replaced("\"eos_token_id\": 2", "\"eos_token_id\": \"<end>\""),
                    {"eos_token_id", "<end>"});
  ModelConfig config = TinyConfig({});
  const absl::Status status = MergeGenerationConfig(R"({"eos_token_id": -3})", "g.json", config);
  EXPECT_EQ(status.message().find("g.json: eos_token_id holds -3"), 0u) << status;
}

TEST(ModelConfig, IsReadFromADirectoryWithOrWithoutGenerationConfig) {
  const TemporaryDirectory directory;
  const absl::Status absent = LoadModelConfig(directory.path()).status();
  EXPECT_TRUE(absl::IsNotFound(absent)) << absent;
  EXPECT_NE(absent.message().find("config.json"), StringView::npos);
  directory.Write("config.json", TinyConfigJson({}));
  EXPECT_EQ(LoadModelConfig(directory.path())->eos_token_ids, std::vector<int32_t>{2});
  directory.Write("generation_config.json", R"({"eos_token_id": [2, 4], "top_k": 20})");
  EXPECT_EQ(LoadModelConfig(directory.path())->eos_token_ids, (std::vector<int32_t>{2, 4}));
  directory.Write("generation_config.json", "{");
  EXPECT_FALSE(LoadModelConfig(directory.path()).ok());
}

struct Published {
  const char* name;
  int64_t parameters;
};

TEST(PublishedConfig, DeclaresThePublishedNumberOfParameters) {
  const Published models[] = {{"Qwen2-0.5B", 494'032'768},
                              {"Qwen2-1.5B", 1'543'714'304},
                              {"Qwen2-7B", 7'615'616'512},
                              {"Qwen2-57B-A14B", 57'408'658'944},
                              {"Qwen2-72B", 72'706'203'648}};
  for (const Published& model : models) {
    ASSERT_NE(PublishedConfig(model.name), nullptr) << model.name;
    const auto config = ParseModelConfig(PublishedConfig(model.name), model.name);
    ASSERT_TRUE(config.ok()) << config.status();
    int64_t parameters = 0;
    for (const DeclaredTensor& tensor : DeclareTensors(*config)) {
      int64_t elements = 1;
      for (const int64_t dim : tensor.shape) {
        elements *= dim;
      }
      parameters += elements;
    }
    EXPECT_EQ(parameters, model.parameters) << model.name;
    EXPECT_EQ(config->max_positions, 131072);
    EXPECT_EQ(config->eos_token_ids, std::vector<int32_t>{151643});
    EXPECT_EQ(config->rms_norm_eps, StringView(model.name) == "Qwen2-72B" ? 1e-5 : 1e-6);
  }
}

TEST(PublishedConfig, TheMixtureOfExpertsHasItsDimensions) {
  ASSERT_NE(PublishedConfig("Qwen2-57B-A14B"), nullptr);
  const auto config = ParseModelConfig(PublishedConfig("Qwen2-57B-A14B"), "Qwen2-57B-A14B");
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->architecture, "Qwen2MoeForCausalLM");
  const ModelDims dims = config->Dims(DType::kBF16);
  EXPECT_EQ(dims.experts, 64);
  EXPECT_EQ(dims.experts_per_token, 8);
  EXPECT_EQ(dims.expert_columns, 2560);
  EXPECT_EQ(dims.shared_expert_columns, 20480);
  EXPECT_EQ(dims.sparse_layers, 28);
  EXPECT_FALSE(config->normalize_expert_weights);
  EXPECT_TRUE(config->qkv_bias);
  EXPECT_EQ(PublishedConfigNames().size(), 5u);
  EXPECT_EQ(PublishedConfig("Qwen2-8B"), nullptr);
}

}  // namespace
}  // namespace cohort
