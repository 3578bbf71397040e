#include "runtime/model_config.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "runtime/config_keys.h"
#include "runtime/json.h"
#include "runtime/published_configs.h"
#include "runtime/rope_config.h"

namespace cohort {
namespace {

// Far above every model of the family, and low enough that the bytes of a model fit int64_t.
constexpr int64_t kMaxDimension = int64_t{1} << 22;
constexpr int64_t kMaxHeads = 16384;
constexpr int64_t kMaxLayers = 4096;
constexpr int64_t kMaxExperts = 16384;
constexpr StringView kDenseClass = "Qwen2ForCausalLM";
constexpr StringView kDenseType = "qwen2";
constexpr StringView kExpertsClass = "Qwen2MoeForCausalLM";
constexpr StringView kExpertsType = "qwen2_moe";
// What transformers takes for these keys of model_type qwen2 when the file lacks them.
constexpr int64_t kDefaultSlidingWindow = 4096;
constexpr int64_t kDefaultMaxWindowLayers = 28;

absl::StatusOr<Json> ParseObject(StringView json, StringView what) {
  ASSIGN_OR_RETURN(Json object, ParseJson(json, what));
  if (!object.is_object()) {
    return absl::InvalidArgumentError(
        absl::StrCat(what, ": expected an object, found ", object.kind_name()));
  }
  return object;
}

absl::Status RefuseModel(StringView what, StringView key, StringView value) {
  return absl::InvalidArgumentError(
      absl::StrCat(what, ": ", key, " is ", JsonQuote(value),
                   " and is not served; Qwen2ForCausalLM (model_type \"qwen2\") and "
                   "Qwen2MoeForCausalLM (model_type \"qwen2_moe\") are"));
}

// The class that transformers would load.
absl::Status ParseArchitecture(const ConfigKeys& keys, StringView what, ModelConfig& config) {
  std::string name;
  if (const Json* architectures = keys.Find("architectures"); architectures != nullptr) {
    if (!architectures->is_array() || architectures->elements().size() != 1 ||
        !architectures->elements()[0].is_string()) {
      return keys.Unsupported("architectures", "expected a list of one name");
    }
    name = *architectures->elements()[0].AsString();
    if (name != kDenseClass && name != kExpertsClass) {
      return RefuseModel(what, "architectures", name);
    }
  }
  RETURN_IF_ERROR(keys.Require("model_type", config.model_type));
  if (config.model_type != kDenseType && config.model_type != kExpertsType) {
    return RefuseModel(what, "model_type", config.model_type);
  }
  config.architecture = std::string(config.model_type == kDenseType ? kDenseClass : kExpertsClass);
  if (!name.empty() && name != config.architecture) {
    return keys.Unsupported(
        "architectures", absl::StrCat("model_type ", JsonQuote(config.model_type), " is that of ",
                                      config.architecture));
  }
  return absl::OkStatus();
}

absl::Status ParseSizes(const ConfigKeys& keys, ModelConfig& config) {
  RETURN_IF_ERROR(keys.Require("hidden_size", kMaxDimension, config.hidden));
  RETURN_IF_ERROR(keys.Require("num_hidden_layers", kMaxLayers, config.layers));
  RETURN_IF_ERROR(keys.Require("num_attention_heads", kMaxHeads, config.query_heads));
  RETURN_IF_ERROR(keys.Require("num_key_value_heads", kMaxHeads, config.kv_heads));
  RETURN_IF_ERROR(keys.Require("intermediate_size", kMaxDimension, config.ffn_columns));
  RETURN_IF_ERROR(keys.Require("vocab_size", kMaxDimension, config.vocabulary));
  RETURN_IF_ERROR(keys.Require("max_position_embeddings", kMaxPositions, config.max_positions));
  RETURN_IF_ERROR(keys.Read("head_dim", kMaxDimension, config.head_dim));
  if (config.query_heads % config.kv_heads != 0) {
    return keys.Error("num_key_value_heads",
                      absl::StrCat("is ", config.kv_heads, ", which does not divide the ",
                                   config.query_heads, " attention heads"));
  }
  if (config.head_dim == 0) {
    if (config.hidden % config.query_heads != 0) {
      return keys.Error("hidden_size", absl::StrCat("is ", config.hidden,
                                                    ", not a multiple of the ", config.query_heads,
                                                    " attention heads, and head_dim is missing"));
    }
    config.head_dim = config.hidden / config.query_heads;
  }
  if (config.head_dim % 2 != 0 || config.head_dim < 8 || config.head_dim > 128) {
    return keys.Error("head_dim",
                      absl::StrCat("(or hidden_size / num_attention_heads) is ", config.head_dim,
                                   "; even sizes of 8 to 128 are served"));
  }
  return absl::OkStatus();
}

absl::Status ParseDenseLayers(const ConfigKeys& keys, ModelConfig& config) {
  const Json* layers = keys.Find("mlp_only_layers");
  if (layers == nullptr) {
    return absl::OkStatus();
  }
  if (!layers->is_array()) {
    return keys.Unsupported("mlp_only_layers", "expected a list of layer numbers");
  }
  for (const Json& layer : layers->elements()) {
    const absl::StatusOr<int64_t> number = layer.AsInteger();
    if (!number.ok()) {
      return keys.Unsupported("mlp_only_layers", number.status().message());
    }
    config.dense_layers.push_back(*number);
  }
  std::sort(config.dense_layers.begin(), config.dense_layers.end());
  return absl::OkStatus();
}

absl::Status ParseExperts(const ConfigKeys& keys, ModelConfig& config) {
  if (config.model_type != kExpertsType) {
    return absl::OkStatus();
  }
  RETURN_IF_ERROR(keys.Require("num_experts", kMaxExperts, config.experts));
  RETURN_IF_ERROR(keys.Require("num_experts_per_tok", config.experts, config.experts_per_token));
  RETURN_IF_ERROR(keys.Require("moe_intermediate_size", kMaxDimension, config.expert_columns));
  RETURN_IF_ERROR(
      keys.Require("shared_expert_intermediate_size", kMaxDimension, config.shared_expert_columns));
  RETURN_IF_ERROR(keys.Read("norm_topk_prob", config.normalize_expert_weights));
  RETURN_IF_ERROR(keys.Read("qkv_bias", config.qkv_bias));
  config.sparse_step = 1;
  RETURN_IF_ERROR(keys.Read("decoder_sparse_step", kMaxLayers, config.sparse_step));
  return ParseDenseLayers(keys, config);
}

// Which layers would attend to a window: those that layer_types says, else those from
// max_window_layers on when use_sliding_window is set.
absl::StatusOr<bool> HasWindowLayers(const ConfigKeys& keys, const ModelConfig& config) {
  const Json* layer_types = keys.Find("layer_types");
  if (layer_types == nullptr) {
    bool use_sliding_window = false;
    int64_t first_window_layer = kDefaultMaxWindowLayers;
    RETURN_IF_ERROR(keys.Read("use_sliding_window", use_sliding_window));
    if (!use_sliding_window) {
      return false;
    }
    if (const Json* written = keys.Find("max_window_layers"); written != nullptr) {
      const absl::StatusOr<int64_t> value = written->AsInteger();
      if (!value.ok()) {
        return keys.Unsupported("max_window_layers", value.status().message());
      }
      first_window_layer = *value;  // 0: every layer
    }
    return first_window_layer < config.layers;
  }
  if (!layer_types->is_array() ||
      static_cast<int64_t>(layer_types->elements().size()) != config.layers) {
    return keys.Unsupported("layer_types",
                            absl::StrCat("expected a list of ", config.layers, " names"));
  }
  bool has_window = false;
  for (const Json& element : layer_types->elements()) {
    const absl::StatusOr<std::string> type = element.AsString();
    if (!type.ok() || (*type != "full_attention" && *type != "sliding_attention")) {
      return keys.Unsupported(
          "layer_types", absl::StrCat("it holds ", Excerpt(element), "; full_attention is served"));
    }
    has_window |= *type == "sliding_attention";
  }
  return has_window;
}

absl::Status CheckNoWindow(const ConfigKeys& keys, const ModelConfig& config) {
  ASSIGN_OR_RETURN(const bool has_window_layers, HasWindowLayers(keys, config));
  if (!has_window_layers) {
    return absl::OkStatus();
  }
  int64_t window = keys.IsWritten("sliding_window") ? kMaxPositions : kDefaultSlidingWindow;
  RETURN_IF_ERROR(keys.Read("sliding_window", std::numeric_limits<int64_t>::max(), window));
  if (window >= config.max_positions) {
    return absl::OkStatus();
  }
  return keys.Unsupported(
      keys.Find("layer_types") != nullptr ? "layer_types" : "use_sliding_window",
      absl::StrCat("a sliding window of ", window, " positions, shorter than the ",
                   config.max_positions, " of max_position_embeddings, is not supported yet"));
}

absl::Status CheckNothingElseChangesTheResult(const ConfigKeys& keys) {
  for (const StringView key : {"quantization_config", "compression_config"}) {
    if (keys.Find(key) != nullptr) {
      return keys.Unsupported(key, "it changes the computation and is not supported yet");
    }
  }
  std::string activation = "silu";
  RETURN_IF_ERROR(keys.Read("hidden_act", activation));
  return activation == "silu" ? absl::OkStatus()
                              : keys.Unsupported("hidden_act", "only \"silu\" is supported");
}

absl::Status AddEndId(const ConfigKeys& keys, const Json& id, ModelConfig& config) {
  const absl::StatusOr<int64_t> value = id.AsInteger();
  if (!value.ok()) {
    return keys.Unsupported("eos_token_id", value.status().message());
  }
  if (*value < 0) {
    return keys.Error("eos_token_id", absl::StrCat("holds ", *value, ", which is no token id"));
  }
  // Small configs keep the ids of a large vocabulary; an id beyond the rows is never chosen.
  if (*value < config.vocabulary) {
    config.eos_token_ids.push_back(static_cast<int32_t>(*value));
  }
  return absl::OkStatus();
}

// A number, a list of numbers, or nothing.
absl::Status AddEndIds(const ConfigKeys& keys, ModelConfig& config) {
  const Json* ids = keys.Find("eos_token_id");
  if (ids == nullptr) {
    return absl::OkStatus();
  }
  if (ids->is_array()) {
    for (const Json& id : ids->elements()) {
      RETURN_IF_ERROR(AddEndId(keys, id, config));
    }
  } else {
    RETURN_IF_ERROR(AddEndId(keys, *ids, config));
  }
  std::vector<int32_t>& all = config.eos_token_ids;
  std::sort(all.begin(), all.end());
  all.erase(std::unique(all.begin(), all.end()), all.end());
  return absl::OkStatus();
}

}  // namespace

bool ModelConfig::IsSparse(int64_t layer) const {
  return experts > 0 && (layer + 1) % sparse_step == 0 &&
         !std::binary_search(dense_layers.begin(), dense_layers.end(), layer);
}

ModelDims ModelConfig::Dims(DType dtype) const {
  ModelDims dims;
  dims.hidden = hidden;
  dims.layers = layers;
  dims.query_heads = query_heads;
  dims.kv_heads = kv_heads;
  dims.head_dim = head_dim;
  dims.ffn_columns = ffn_columns;
  dims.vocabulary = vocabulary;
  dims.tied_embeddings = tied_embeddings;
  dims.weight_bytes = SizeOf(dtype);
  dims.kv_bytes = SizeOf(dtype);
  dims.experts = experts;
  dims.experts_per_token = experts_per_token;
  dims.expert_columns = expert_columns;
  dims.shared_expert_columns = shared_expert_columns;
  dims.qkv_bias = qkv_bias;
  for (int64_t layer = 0; layer < layers; ++layer) {
    dims.sparse_layers += IsSparse(layer) ? 1 : 0;
  }
  return dims;
}

int64_t ModelConfig::plain_rope_positions() const {
  return yarn_auto ? yarn->original_positions : 0;
}

int64_t ModelConfig::unscaled_positions() const {
  return dual_chunk.has_value() ? dual_chunk->original_positions : 0;
}

absl::StatusOr<ModelConfig> ParseModelConfig(StringView json, StringView what,
                                             const ModelOverrides& overrides) {
  ASSIGN_OR_RETURN(const Json object, ParseObject(json, what));
  const ConfigKeys keys(object, what);
  ModelConfig config;
  RETURN_IF_ERROR(ParseArchitecture(keys, what, config));
  RETURN_IF_ERROR(ParseSizes(keys, config));
  RETURN_IF_ERROR(ParseExperts(keys, config));
  RETURN_IF_ERROR(keys.Require("rms_norm_eps", config.rms_norm_eps));
  RETURN_IF_ERROR(ParseRope(keys, overrides, config));
  RETURN_IF_ERROR(ParseDualChunks(keys, overrides, config));
  RETURN_IF_ERROR(CheckNoWindow(keys, config));
  RETURN_IF_ERROR(CheckNothingElseChangesTheResult(keys));
  RETURN_IF_ERROR(keys.Read("tie_word_embeddings", config.tied_embeddings));
  RETURN_IF_ERROR(keys.Read("torch_dtype", config.checkpoint_dtype));
  RETURN_IF_ERROR(keys.Read("dtype", config.checkpoint_dtype));
  RETURN_IF_ERROR(AddEndIds(keys, config));
  return config;
}

absl::Status MergeGenerationConfig(StringView json, StringView what, ModelConfig& config) {
  ASSIGN_OR_RETURN(const Json object, ParseObject(json, what));
  return AddEndIds(ConfigKeys(object, what), config);
}

absl::StatusOr<ModelConfig> LoadModelConfig(const std::string& model_dir) {
  const std::string config_path = absl::StrCat(model_dir, "/config.json");
  ASSIGN_OR_RETURN(const std::string config_text, ReadFile(config_path, kMaxConfigBytes));
  ASSIGN_OR_RETURN(ModelConfig config, ParseModelConfig(config_text, config_path));
  const std::string generation_path = absl::StrCat(model_dir, "/generation_config.json");
  const absl::StatusOr<std::string> generation_text = ReadFile(generation_path, kMaxConfigBytes);
  if (generation_text.ok()) {
    RETURN_IF_ERROR(MergeGenerationConfig(*generation_text, generation_path, config));
  } else if (!absl::IsNotFound(generation_text.status())) {
    return generation_text.status();
  }
  return config;
}

const char* PublishedConfig(StringView name) {
  for (const PublishedModel& model : PublishedModels()) {
    if (name == model.name) {
      return model.config_json;
    }
  }
  return nullptr;
}

std::vector<std::string> PublishedConfigNames() {
  std::vector<std::string> names;
  for (const PublishedModel& model : PublishedModels()) {
    names.push_back(model.name);
  }
  return names;
}

}  // namespace cohort
