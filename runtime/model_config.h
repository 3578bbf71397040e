// config.json and generation_config.json of a checkpoint, every value taken from the files.
#ifndef COHORT_RUNTIME_MODEL_CONFIG_H_
#define COHORT_RUNTIME_MODEL_CONFIG_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "kernels/tensor.h"
#include "parallel/shard_plan.h"
#include "runtime/dual_chunk.h"
#include "runtime/yarn.h"

namespace cohort {

// Of config.json and of generation_config.json: a larger file is no such file.
inline constexpr int64_t kMaxConfigBytes = int64_t{16} << 20;

struct ModelConfig {
  std::string architecture;  // "Qwen2ForCausalLM" or "Qwen2MoeForCausalLM"
  std::string model_type;    // "qwen2" or "qwen2_moe"
  int64_t hidden = 0;
  int64_t layers = 0;
  int64_t query_heads = 0;
  int64_t kv_heads = 0;
  int64_t head_dim = 0;     // hidden / query_heads unless the file says otherwise
  int64_t ffn_columns = 0;  // of a dense layer
  int64_t vocabulary = 0;
  // Of a sequence: max_position_embeddings, or what YaRN makes of it.
  int64_t max_positions = 0;
  int64_t position_limit = 0;  // max_positions, or more where dual chunk attention sets no limit
  double rms_norm_eps = 0;
  double rope_theta = 0;
  // Dual chunk attention goes before YaRN: rotations are then plain.
  std::optional<YarnScaling> yarn;
  bool yarn_auto = false;  // sequences within the original length go without
  std::optional<DualChunkConfig> dual_chunk;
  bool tied_embeddings = false;
  bool qkv_bias = true;

  // Mixture of experts; 0 and empty in a dense model.
  int64_t experts = 0;                    // of a sparse layer
  int64_t experts_per_token = 0;          // of these, chosen by the router
  int64_t expert_columns = 0;             // of one of them
  int64_t shared_expert_columns = 0;      // of the expert that every token passes through
  bool normalize_expert_weights = false;  // the chosen experts' weights are made to sum to 1
  int64_t sparse_step = 0;                // every sparse_step-th layer is sparse ...
  std::vector<int64_t> dense_layers;      // ... but these, ascending

  std::string checkpoint_dtype;        // "bfloat16", "float32", "float16"; empty when absent
  std::vector<int32_t> eos_token_ids;  // union of config.json and generation_config.json, ascending

  // Does `layer` (from 0) have experts instead of the dense FFN?
  bool IsSparse(int64_t layer) const;
  ModelDims Dims(DType dtype) const;
  // Sequences of at most so many positions go without YaRN; 0 unless yarn_auto.
  int64_t plain_rope_positions() const;
  // The length of a longer prompt counts in the attention of all its rows; 0: none does.
  int64_t unscaled_positions() const;
};

// YaRN as a flag asks for it.
struct YarnOverride {
  double factor = 1;
  int64_t original_positions = 0;  // 0: those that the file says
};

// What goes before the keys of config.json.
struct ModelOverrides {
  std::optional<YarnOverride> yarn = std::nullopt;  // in place of rope_scaling
  bool yarn_auto = false;
  std::optional<DualChunkConfig> dual_chunk =
      std::nullopt;  // in place of dual_chunk_attention_config
};

// Parses config.json. INVALID_ARGUMENT names the key and its value: a missing or misshapen required
// key, an architecture that is not served, a key that changes the computation and is not supported
// (rope scaling other than YaRN, quantization_config, sparse attention, an active
// sliding window, hidden_act other than silu); or the override and its value. null means
// absent; rope_parameters and dtype (newer files) are accepted too; unknown keys are ignored.
absl::StatusOr<ModelConfig> ParseModelConfig(StringView json, StringView what,
                                             const ModelOverrides& overrides = {});

// Adds the end ids of generation_config.json to `config`.
absl::Status MergeGenerationConfig(StringView json, StringView what, ModelConfig& config);

// Reads MODEL_DIR/config.json and, where present, generation_config.json.
absl::StatusOr<ModelConfig> LoadModelConfig(const std::string& model_dir);

// The published base configs that ship with Cohort, by name ("Qwen2-0.5B"); nullptr otherwise.
const char* PublishedConfig(StringView name);
std::vector<std::string> PublishedConfigNames();

}  // namespace cohort

#endif  // COHORT_RUNTIME_MODEL_CONFIG_H_
