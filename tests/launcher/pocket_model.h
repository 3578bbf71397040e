// A model small enough for every test to start ranks of it: random weights, 4 query heads.
#ifndef COHORT_TESTS_LAUNCHER_POCKET_MODEL_H_
#define COHORT_TESTS_LAUNCHER_POCKET_MODEL_H_

#include "cohort/v1/cluster.pb.h"

namespace cohort {

inline constexpr char kPocketConfig[] = R"({
  "architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "hidden_act": "silu",
  "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
  "intermediate_size": 64, "vocab_size": 96, "max_position_embeddings": 4096,
  "rms_norm_eps": 1e-6, "rope_theta": 10000.0, "tie_word_embeddings": true,
  "torch_dtype": "float32", "eos_token_id": 95})";

inline v1::RankConfiguration PocketConfiguration(int ranks) {
  v1::RankConfiguration configuration;
  configuration.set_model("pocket");
  configuration.set_config_json(kPocketConfig);
  configuration.set_dummy_weights(true);
  configuration.set_token_ids(96);
  configuration.set_dtype("fp32");
  configuration.set_device("cpu");
  configuration.set_threads(1);
  configuration.set_tensor_parallel(static_cast<uint32_t>(ranks));
  configuration.set_data_parallel(1);
  configuration.set_expert_parallel(1);
  configuration.set_kv_blocks(256);
  configuration.set_block_size(16);
  configuration.set_max_batch_tokens(64);
  configuration.set_max_running(8);
  configuration.set_max_model_len(4096);
  configuration.set_step_timeout_milliseconds(30'000);
  return configuration;
}

}  // namespace cohort

#endif  // COHORT_TESTS_LAUNCHER_POCKET_MODEL_H_
