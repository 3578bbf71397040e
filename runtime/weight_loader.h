// The slices of the weights that one rank keeps, in device memory.
#ifndef COHORT_RUNTIME_WEIGHT_LOADER_H_
#define COHORT_RUNTIME_WEIGHT_LOADER_H_

#include <cstdint>
#include <functional>
#include <vector>

#include "kernels/device.h"
#include "parallel/shard_plan.h"
#include "runtime/model_config.h"
#include "runtime/weight_source.h"

namespace cohort {

// Sizes are this rank's; hidden is cut nowhere.
struct LayerWeights {
  Tensor attention_norm;  // [hidden]
  Tensor qkv;             // [(query_heads + 2 kv_heads) * head_dim, hidden]: queries, keys, values
  Tensor qkv_bias;        // [(query_heads + 2 kv_heads) * head_dim], none where the model has none
  Tensor attention_out;   // [hidden, query_heads * head_dim]
  Tensor ffn_norm;        // [hidden]
  // Of the dense FFN, or of a sparse layer's shared expert: of the columns of either.
  Tensor gate_up;  // [2 columns, hidden]: gate, up
  Tensor down;     // [hidden, columns]
  // Of a sparse layer alone; the router is whole on every rank.
  int64_t sparse_index = -1;  // among the sparse layers
  Tensor router;  // [experts of the model + 1, hidden]: the last row is the shared expert's gate
  Tensor expert_gate_up;  // [experts, 2 expert_columns, hidden]: gate, up
  Tensor expert_down;     // [experts, hidden, expert_columns]

  bool is_sparse() const { return sparse_index >= 0; }
  const TensorView* bias() const {
    return qkv_bias.view().data == nullptr ? nullptr : &qkv_bias.view();
  }
};

struct ModelWeights {
  Tensor embedding;  // [vocabulary, hidden]
  std::vector<LayerWeights> layers;
  Tensor final_norm;  // [hidden]
  bool is_tied = false;
  Tensor untied_head;  // [vocabulary, hidden] unless tied

  TensorView head() const { return is_tied ? embedding.view() : untied_head.view(); }
  int64_t bytes() const;
};

// Bytes done so far, and in all.
using WeightProgress = std::function<void(int64_t done_bytes, int64_t total_bytes)>;

// Allocates and fills the slices of `plan`'s rank. RESOURCE_EXHAUSTED from the device. With
// `host_embedding` the embedding, which is no tied head, lies in the host memory of the device.
absl::StatusOr<ModelWeights> LoadWeights(const ModelConfig& config, const ShardPlan& plan,
                                         WeightSource& source, DType dtype, Device& device,
                                         const WeightProgress& progress,
                                         bool host_embedding = false);

}  // namespace cohort

#endif  // COHORT_RUNTIME_WEIGHT_LOADER_H_
