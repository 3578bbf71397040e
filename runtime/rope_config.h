// The keys of config.json that say how positions become rotations. transformers 4 writes rope_theta
// and rope_scaling, transformers 5 one object rope_parameters; both are read.
#ifndef COHORT_RUNTIME_ROPE_CONFIG_H_
#define COHORT_RUNTIME_ROPE_CONFIG_H_

#include "runtime/config_keys.h"
#include "runtime/model_config.h"

namespace cohort {

// Sets rope_theta, yarn, yarn_auto and, with YaRN, max_positions, which must hold
// max_position_embeddings before. INVALID_ARGUMENT names the key, or the override, and the value.
absl::Status ParseRope(const ConfigKeys& keys, const ModelOverrides& overrides,
                       ModelConfig& config);

// Sets dual_chunk and position_limit; after ParseRope.
absl::Status ParseDualChunks(const ConfigKeys& keys, const ModelOverrides& overrides,
                             ModelConfig& config);

}  // namespace cohort

#endif  // COHORT_RUNTIME_ROPE_CONFIG_H_
