#include "parallel/weight_parts.h"

namespace cohort {

int64_t WeightParts::total() const {
  return embedding + attention + dense_ffn + experts + shared_expert + router + norms + head;
}

WeightParts WeightPartsOf(const ShardPlan& plan) {
  const ModelDims& dims = plan.dims();
  const int64_t row = dims.hidden * dims.weight_bytes;
  const int64_t queries = plan.query_heads().size() * dims.head_dim;
  const int64_t keys = plan.kv_heads().size() * dims.head_dim;
  const int64_t biases = dims.qkv_bias ? queries + 2 * keys : 0;
  const int64_t table = plan.vocabulary().size() * row;
  WeightParts parts;
  parts.embedding = table;
  parts.attention = dims.layers * ((2 * queries + 2 * keys) * row + biases * dims.weight_bytes);
  parts.dense_ffn = dims.dense_layers() * 3 * plan.ffn_columns().size() * row;
  parts.experts =
      dims.sparse_layers * 3 * plan.experts().size() * plan.expert_columns().size() * row;
  parts.shared_expert = dims.sparse_layers * 3 * plan.shared_expert_columns().size() * row;
  parts.router = dims.sparse_layers * (dims.experts + 1) * row;
  parts.norms = (2 * dims.layers + 1) * row;
  parts.head = dims.tied_embeddings ? 0 : table;
  return parts;
}

}  // namespace cohort
