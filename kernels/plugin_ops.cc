#include "kernels/plugin_ops.h"

#include <cstddef>
#include <vector>

namespace cohort {
namespace {

static_assert(static_cast<int>(DType::kF32) == kCohortCudaF32);
static_assert(static_cast<int>(DType::kBF16) == kCohortCudaBF16);
static_assert(static_cast<int>(DType::kI32) == kCohortCudaI32);
static_assert(Shape::kMaxRank == kCohortCudaMaxRank);

CohortCudaBatch ToPlugin(const BatchView& batch) {
  return {batch.tokens,
          batch.sequences,
          ToPlugin(batch.positions),
          ToPlugin(batch.sequence_of_token),
          ToPlugin(batch.block_table),
          ToPlugin(batch.rope_rows),
          ToPlugin(batch.logit_factors),
          ToPlugin(batch.first_rows),
          batch.leading_decodes,
          batch.longest_chunk};
}

CohortCudaRope ToPlugin(const RopeTable& rope) {
  return {ToPlugin(rope.cosine), ToPlugin(rope.sine), rope.keys_only ? 1 : 0};
}

CohortCudaRouting ToPlugin(const Routing& routing) {
  return {ToPlugin(routing.ids), ToPlugin(routing.weights)};
}

CohortCudaKv ToPlugin(const KvView& kv) { return {ToPlugin(kv.keys), ToPlugin(kv.values)}; }

CohortCudaDenseLayer ToPlugin(const DenseLayer& layer) {
  return {ToPlugin(layer.attention_norm),
          ToPlugin(layer.qkv.data),
          layer.qkv_bias != nullptr ? ToPlugin(*layer.qkv_bias) : CohortCudaTensor{},
          ToPlugin(layer.attention_out.data),
          ToPlugin(layer.ffn_norm),
          ToPlugin(layer.gate_up.data),
          ToPlugin(layer.down.data),
          ToPlugin(layer.kv)};
}

}  // namespace

CohortCudaTensor ToPlugin(const TensorView& view) {
  CohortCudaTensor tensor{};
  tensor.data = view.data;
  tensor.dtype = static_cast<int32_t>(view.dtype);
  tensor.rank = view.shape.rank();
  for (int axis = 0; axis < view.shape.rank(); ++axis) {
    tensor.dims[axis] = view.shape[axis];
  }
  tensor.row_stride = view.row_stride;
  return tensor;
}

void PluginOps::DoEmbed(TensorView ids, TensorView table, int64_t first_row, TensorView out) {
  const CohortCudaTensor plugin_ids = ToPlugin(ids);
  const CohortCudaTensor plugin_table = ToPlugin(table);
  const CohortCudaTensor plugin_out = ToPlugin(out);
  table_->embed(device_, &plugin_ids, &plugin_table, first_row, &plugin_out);
}

void PluginOps::DoRmsNorm(TensorView x, TensorView gamma, float eps, TensorView out) {
  const CohortCudaTensor plugin_x = ToPlugin(x);
  const CohortCudaTensor plugin_gamma = ToPlugin(gamma);
  const CohortCudaTensor plugin_out = ToPlugin(out);
  table_->rms_norm(device_, &plugin_x, &plugin_gamma, eps, &plugin_out);
}

void PluginOps::DoAddRmsNorm(TensorView residual, TensorView x, TensorView gamma, float eps,
                             TensorView out) {
  const CohortCudaTensor plugin_residual = ToPlugin(residual);
  const CohortCudaTensor plugin_x = ToPlugin(x);
  const CohortCudaTensor plugin_gamma = ToPlugin(gamma);
  const CohortCudaTensor plugin_out = ToPlugin(out);
  table_->add_rms_norm(device_, &plugin_residual, &plugin_x, &plugin_gamma, eps, &plugin_out);
}

void PluginOps::DoMatMul(TensorView x, const Weight& w, const TensorView* bias, TensorView out) {
  const CohortCudaTensor plugin_x = ToPlugin(x);
  const CohortCudaTensor plugin_weight = ToPlugin(w.data);
  const CohortCudaTensor plugin_bias = bias != nullptr ? ToPlugin(*bias) : CohortCudaTensor{};
  const CohortCudaTensor plugin_out = ToPlugin(out);
  table_->mat_mul(device_, &plugin_x, &plugin_weight, bias != nullptr ? &plugin_bias : nullptr,
                  &plugin_out);
}

void PluginOps::DoRopeAndStoreKv(TensorView qkv, int64_t query_heads, const RopeTable& rope,
                                 const BatchView& batch, const KvView& kv) {
  const CohortCudaTensor plugin_qkv = ToPlugin(qkv);
  const CohortCudaRope plugin_rope = ToPlugin(rope);
  const CohortCudaBatch plugin_batch = ToPlugin(batch);
  const CohortCudaKv plugin_kv = ToPlugin(kv);
  table_->rope_and_store_kv(device_, &plugin_qkv, query_heads, &plugin_rope, &plugin_batch,
                            &plugin_kv);
}

void PluginOps::DoPagedAttention(TensorView queries, absl::Span<const int32_t> kv_head_of_query,
                                 const BatchView& batch, const KvView& kv, float scale,
                                 TensorView out) {
  const CohortCudaTensor plugin_queries = ToPlugin(queries);
  const CohortCudaBatch plugin_batch = ToPlugin(batch);
  const CohortCudaKv plugin_kv = ToPlugin(kv);
  const CohortCudaTensor plugin_out = ToPlugin(out);
  table_->paged_attention(device_, &plugin_queries, kv_head_of_query.data(),
                          static_cast<int64_t>(kv_head_of_query.size()), &plugin_batch, &plugin_kv,
                          scale, &plugin_out);
}

void PluginOps::DoSiluMultiply(TensorView gate_up, TensorView out) {
  const CohortCudaTensor plugin_gate_up = ToPlugin(gate_up);
  const CohortCudaTensor plugin_out = ToPlugin(out);
  table_->silu_multiply(device_, &plugin_gate_up, &plugin_out);
}

void PluginOps::DoDualChunkAttention(TensorView queries, absl::Span<const int32_t> kv_head_of_query,
                                     const DualChunks& chunks, const BatchView& batch,
                                     const KvView& kv, float scale, TensorView out) {
  const CohortCudaTensor plugin_queries = ToPlugin(queries);
  const CohortCudaDualChunks plugin_chunks = {chunks.chunk_size, chunks.chunk_length,
                                              ToPlugin(chunks.rope)};
  const CohortCudaBatch plugin_batch = ToPlugin(batch);
  const CohortCudaKv plugin_kv = ToPlugin(kv);
  const CohortCudaTensor plugin_out = ToPlugin(out);
  table_->dual_chunk_attention(device_, &plugin_queries, kv_head_of_query.data(),
                               static_cast<int64_t>(kv_head_of_query.size()), &plugin_chunks,
                               &plugin_batch, &plugin_kv, scale, &plugin_out);
}

void PluginOps::DoPrefetchWeights(const NextWeights& next) {
  const CohortCudaNextWeights plugin_next = {ToPlugin(next.product), ToPlugin(next.gate_up)};
  table_->prefetch_weights(device_, &plugin_next);
}

void PluginOps::DoProjectQkv(TensorView x, const Weight& w, const TensorView* bias, TensorView qkv,
                             int64_t query_heads, const RopeTable& rope, const BatchView& batch,
                             const KvView& kv) {
  const CohortCudaTensor plugin_x = ToPlugin(x);
  const CohortCudaTensor plugin_weight = ToPlugin(w.data);
  const CohortCudaTensor plugin_bias = bias != nullptr ? ToPlugin(*bias) : CohortCudaTensor{};
  const CohortCudaTensor plugin_qkv = ToPlugin(qkv);
  const CohortCudaRope plugin_rope = ToPlugin(rope);
  const CohortCudaBatch plugin_batch = ToPlugin(batch);
  const CohortCudaKv plugin_kv = ToPlugin(kv);
  table_->project_qkv(device_, &plugin_x, &plugin_weight, bias != nullptr ? &plugin_bias : nullptr,
                      &plugin_qkv, query_heads, &plugin_rope, &plugin_batch, &plugin_kv);
}

void PluginOps::DoProjectGateUp(TensorView x, const Weight& w, TensorView gate_up, TensorView out) {
  const CohortCudaTensor plugin_x = ToPlugin(x);
  const CohortCudaTensor plugin_weight = ToPlugin(w.data);
  const CohortCudaTensor plugin_gate_up = ToPlugin(gate_up);
  const CohortCudaTensor plugin_out = ToPlugin(out);
  table_->project_gate_up(device_, &plugin_x, &plugin_weight, &plugin_gate_up, &plugin_out);
}

void PluginOps::DoDenseLayers(const DenseStep& step) {
  if (!persistent_steps_.value_or(true)) {
    Ops::DoDenseLayers(step);
    return;
  }
  dense_layers_.clear();
  for (const DenseLayer& layer : step.layers) {
    dense_layers_.push_back(ToPlugin(layer));
  }
  const CohortCudaDenseStep plugin_step = {
      .layers = dense_layers_.data(),
      .layer_count = static_cast<int64_t>(dense_layers_.size()),
      .final_norm = ToPlugin(step.final_norm),
      .eps = step.eps,
      .scale = step.scale,
      .rope = ToPlugin(step.rope),
      .batch = ToPlugin(step.batch),
      .kv_head_of_query = step.kv_head_of_query.data(),
      .query_heads = step.query_heads(),
      .residual = ToPlugin(step.residual),
      .normed = ToPlugin(step.normed),
      .partial = ToPlugin(step.partial),
      .qkv = ToPlugin(step.qkv),
      .attended = ToPlugin(step.attended),
      .activated = ToPlugin(step.activated)};
  if (table_->dense_layers(device_, &plugin_step, persistent_steps_.has_value() ? 1 : 0) == 0) {
    Ops::DoDenseLayers(step);
  }
}

void PluginOps::DoRouteTopK(TensorView logits, bool normalize, const Routing& routing) {
  const CohortCudaTensor plugin_logits = ToPlugin(logits);
  const CohortCudaRouting plugin_routing = ToPlugin(routing);
  table_->route_top_k(device_, &plugin_logits, normalize ? 1 : 0, &plugin_routing);
}

void PluginOps::DoRoutedFfn(TensorView x, const Routing& routing, const ExpertWeights& experts,
                            const ExpertScratch& scratch, TensorView out) {
  const CohortCudaTensor plugin_x = ToPlugin(x);
  const CohortCudaRouting plugin_routing = ToPlugin(routing);
  const CohortCudaExperts plugin_experts = {ToPlugin(experts.gate_up), ToPlugin(experts.down),
                                            experts.first};
  const CohortCudaExpertScratch plugin_scratch = {ToPlugin(scratch.gate_up),
                                                  ToPlugin(scratch.activated)};
  const CohortCudaTensor plugin_out = ToPlugin(out);
  table_->routed_ffn(device_, &plugin_x, &plugin_routing, &plugin_experts, &plugin_scratch,
                     &plugin_out);
}

void PluginOps::DoCountIds(TensorView ids, TensorView counts) {
  const CohortCudaTensor plugin_ids = ToPlugin(ids);
  const CohortCudaTensor plugin_counts = ToPlugin(counts);
  table_->count_ids(device_, &plugin_ids, &plugin_counts);
}

void PluginOps::DoAddGated(TensorView x, TensorView gate, TensorView out) {
  const CohortCudaTensor plugin_x = ToPlugin(x);
  const CohortCudaTensor plugin_gate = ToPlugin(gate);
  const CohortCudaTensor plugin_out = ToPlugin(out);
  table_->add_gated(device_, &plugin_x, &plugin_gate, &plugin_out);
}

void PluginOps::DoSelectIds(TensorView sources, TensorView last_tokens, TensorView ids) {
  const CohortCudaTensor plugin_sources = ToPlugin(sources);
  const CohortCudaTensor plugin_last_tokens = ToPlugin(last_tokens);
  const CohortCudaTensor plugin_ids = ToPlugin(ids);
  table_->select_ids(device_, &plugin_sources, &plugin_last_tokens, &plugin_ids);
}

void PluginOps::DoStoreTokens(TensorView tokens, TensorView slots, TensorView last_tokens) {
  const CohortCudaTensor plugin_tokens = ToPlugin(tokens);
  const CohortCudaTensor plugin_slots = ToPlugin(slots);
  const CohortCudaTensor plugin_last_tokens = ToPlugin(last_tokens);
  table_->store_tokens(device_, &plugin_tokens, &plugin_slots, &plugin_last_tokens);
}

void PluginOps::DoFillRandom(const RandomFill& fill, TensorView out) {
  const CohortCudaRandomFill plugin_fill = {fill.key,          fill.stored_columns, fill.first_row,
                                            fill.first_column, fill.center,         fill.width};
  const CohortCudaTensor plugin_out = ToPlugin(out);
  table_->fill_random(device_, &plugin_fill, &plugin_out);
}

void PluginOps::DoGatherRows(TensorView x, TensorView rows, TensorView out) {
  const CohortCudaTensor plugin_x = ToPlugin(x);
  const CohortCudaTensor plugin_rows = ToPlugin(rows);
  const CohortCudaTensor plugin_out = ToPlugin(out);
  table_->gather_rows(device_, &plugin_x, &plugin_rows, &plugin_out);
}

}  // namespace cohort
