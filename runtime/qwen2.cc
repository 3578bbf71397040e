#include "runtime/qwen2.h"

#include <cmath>
#include <utility>

#include "absl/memory/memory.h"

namespace cohort {

// What the rows of one step pass through; views of the workspace with the step's rows.
struct Qwen2::StepContext {
  Ops& ops;
  Communicator& tp;
  const BatchView& batch;
  RopeTable rope;
  absl::Span<const int32_t> kv_head_of_query;
  float eps;
  float scale;
  TensorView residual;   // [tokens, hidden]
  TensorView normed;     // [tokens, hidden]
  TensorView partial;    // [tokens, hidden] fp32
  TensorView qkv;        // [tokens, (query_heads + 2 kv_heads) * head_dim]
  TensorView attended;   // [tokens, query_heads * head_dim]
  TensorView gate_up;    // [tokens, 2 ffn_columns]
  TensorView activated;  // [tokens, ffn_columns]

  TensorView queries() const { return qkv.Columns(0, attended.columns()); }
  int64_t query_heads() const { return static_cast<int64_t>(kv_head_of_query.size()); }
};

// `c.normed` holds the normed input and receives the next layer's.
void Qwen2::ForwardLayer(const LayerWeights& layer, TensorView next_norm, const KvView& kv,
                         const StepContext& c) const {
  c.ops.ProjectQkv(c.normed, {layer.qkv.view()}, &layer.qkv_bias.view(), c.qkv, c.query_heads(),
                   c.rope, c.batch, kv);
  c.ops.PagedAttention(c.queries(), c.kv_head_of_query, c.batch, kv, c.scale, c.attended);
  c.ops.MatMul(c.attended, {layer.attention_out.view()}, nullptr, c.partial);
  c.tp.AllReduceAddRmsNorm(c.ops, c.partial, c.residual, layer.ffn_norm.view(), c.eps, c.normed);

  c.ops.ProjectGateUp(c.normed, {layer.gate_up.view()}, c.gate_up, c.activated);
  c.ops.MatMul(c.activated, {layer.down.view()}, nullptr, c.partial);
  c.tp.AllReduceAddRmsNorm(c.ops, c.partial, c.residual, next_norm, c.eps, c.normed);
}

void Qwen2::Forward(TensorView ids, const BatchView& batch, const KvCache& kv, Communicator& tp) {
  const auto rows = [&](const Tensor& tensor) { return tensor.view().Rows(0, batch.tokens); };
  const StepContext c{.ops = ops_,
                      .tp = tp,
                      .batch = batch,
                      .rope = rope_.table(),
                      .kv_head_of_query = plan_.kv_head_of_query(),
                      .eps = rms_norm_eps_,
                      .scale = attention_scale_,
                      .residual = rows(workspace_.residual),
                      .normed = rows(workspace_.normed),
                      .partial = rows(workspace_.partial),
                      .qkv = rows(workspace_.qkv),
                      .attended = rows(workspace_.attended),
                      .gate_up = rows(workspace_.gate_up),
                      .activated = rows(workspace_.activated)};
  // One rank has the row and the others zeros: the sum is exact.
  c.ops.Embed(ids, weights_.embedding.view(), plan_.vocabulary().begin, c.residual);
  c.tp.AllReduceSum(c.residual);
  c.ops.RmsNorm(c.residual, weights_.layers.front().attention_norm.view(), c.eps, c.normed);
  for (size_t i = 0; i < weights_.layers.size(); ++i) {
    const bool is_last = i + 1 == weights_.layers.size();
    const Tensor& next_norm = is_last ? weights_.final_norm : weights_.layers[i + 1].attention_norm;
    ForwardLayer(weights_.layers[i], next_norm.view(), kv.layer(i), c);
  }
}

TensorView Qwen2::LocalLogits(TensorView rows) {
  CHECK_LE(rows.rows(), kMaxLogitRows);
  const TensorView input = workspace_.head_input.view().Rows(0, rows.rows());
  const TensorView local = workspace_.local_logits.view().Rows(0, rows.rows());
  ops_.GatherRows(workspace_.normed.view(), rows, input);
  ops_.MatMul(input, {weights_.head()}, nullptr, local);
  return local;
}

TensorView Qwen2::GatherLogits(TensorView local, Communicator& tp) {
  CHECK_LE(local.rows(), kMaxWholeRows);
  const TensorView whole = workspace_.whole_logits.view().Rows(0, local.rows());
  tp.AllGather(local, plan_.vocabulary_parts(), whole);
  return whole;
}

Qwen2::Qwen2(const ModelConfig& config, const ShardPlan& plan, ModelWeights weights, Device& device)
    : plan_(plan),
      rms_norm_eps_(static_cast<float>(config.rms_norm_eps)),
      attention_scale_(1.0f / std::sqrt(static_cast<float>(config.head_dim))),
      weights_(std::move(weights)),
      ops_(device.ops()) {}

absl::StatusOr<std::unique_ptr<Qwen2>> Qwen2::Create(const ModelConfig& config,
                                                     const ShardPlan& plan, ModelWeights weights,
                                                     const Qwen2Options& options, Device& device) {
  auto model = absl::WrapUnique(new Qwen2(config, plan, std::move(weights), device));
  const int64_t tokens = options.max_batch_tokens;
  const int64_t query_columns = plan.query_heads().size() * config.head_dim;
  const int64_t kv_columns = plan.kv_heads().size() * config.head_dim;
  const int64_t ffn_columns = plan.ffn_columns().size();
  const DType act = options.act;
  Workspace& w = model->workspace_;
  ASSIGN_OR_RETURN(w.residual, device.Allocate({tokens, config.hidden}, act));
  ASSIGN_OR_RETURN(w.normed, device.Allocate({tokens, config.hidden}, act));
  ASSIGN_OR_RETURN(w.partial, device.Allocate({tokens, config.hidden}, DType::kF32));
  ASSIGN_OR_RETURN(w.qkv, device.Allocate({tokens, query_columns + 2 * kv_columns}, act));
  ASSIGN_OR_RETURN(w.attended, device.Allocate({tokens, query_columns}, act));
  ASSIGN_OR_RETURN(w.gate_up, device.Allocate({tokens, 2 * ffn_columns}, act));
  ASSIGN_OR_RETURN(w.activated, device.Allocate({tokens, ffn_columns}, act));
  ASSIGN_OR_RETURN(w.head_input, device.Allocate({kMaxLogitRows, config.hidden}, act));
  ASSIGN_OR_RETURN(w.local_logits,
                   device.Allocate({kMaxLogitRows, plan.vocabulary().size()}, DType::kF32));
  ASSIGN_OR_RETURN(w.whole_logits,
                   device.Allocate({kMaxWholeRows, config.vocabulary}, DType::kF32));
  ASSIGN_OR_RETURN(model->rope_, MakeRopeTensors(config.rope_theta, config.head_dim,
                                                 options.max_positions, act, device));
  return model;
}

int64_t Qwen2::WorkspaceBytes(const ModelConfig& config, const ShardPlan& plan,
                              const Qwen2Options& options) {
  const int64_t query_columns = plan.query_heads().size() * config.head_dim;
  const int64_t kv_columns = plan.kv_heads().size() * config.head_dim;
  const int64_t act_columns =
      2 * config.hidden + 2 * query_columns + 2 * kv_columns + 3 * plan.ffn_columns().size();
  const int64_t act_bytes = SizeOf(options.act);
  const int64_t fp32_bytes = SizeOf(DType::kF32);
  return options.max_batch_tokens * (act_columns * act_bytes + config.hidden * fp32_bytes) +
         kMaxLogitRows * (config.hidden * act_bytes + plan.vocabulary().size() * fp32_bytes) +
         kMaxWholeRows * config.vocabulary * fp32_bytes +
         options.max_positions * config.head_dim * fp32_bytes;
}

}  // namespace cohort
