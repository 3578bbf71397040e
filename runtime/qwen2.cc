#include "runtime/qwen2.h"

#include <cmath>
#include <utility>

#include "absl/memory/memory.h"
#include "runtime/position_rule.h"

namespace cohort {
namespace {

FeedForwardOptions OptionsOf(const Qwen2Options& options) {
  return {.act = options.act, .max_tokens = options.max_batch_tokens, .exchange = options.exchange};
}

}  // namespace

// What the rows of one step pass through; views of the workspace with the step's rows.
struct Qwen2::StepContext {
  Ops& ops;
  Communicator& tp;
  Communicator& data;
  const FeedForward& feed_forward;
  BatchView batch;
  RopeTable rope;
  const DualChunks* chunks;  // null: plain attention
  absl::Span<const int64_t> rows_of_groups;
  absl::Span<const int32_t> kv_head_of_query;
  float eps;
  float scale;
  TensorView residual;  // [tokens, hidden]
  TensorView normed;    // [tokens, hidden]
  TensorView partial;   // [tokens, hidden] fp32
  TensorView qkv;       // [tokens, (query_heads + 2 kv_heads) * head_dim]
  TensorView queries;   // [tokens, query_heads * head_dim]
  TensorView attended;  // [tokens, query_heads * head_dim]

  int64_t query_heads() const { return static_cast<int64_t>(kv_head_of_query.size()); }
};

// A layer. `c.normed` holds the normed input and receives the next layer's.
void Qwen2::ProjectQkv(const LayerWeights& layer, const KvView& kv, const StepContext& c) {
  c.ops.ProjectQkv(c.normed, {layer.qkv.view()}, layer.bias(), c.qkv, c.query_heads(), c.rope,
                   c.batch, kv);
}

void Qwen2::FinishLayer(const LayerWeights& layer, TensorView next_norm, const KvView& kv,
                        const StepContext& c) {
  c.ops.PrefetchWeights({.product = layer.attention_out.view(),
                         .gate_up = layer.is_sparse() ? TensorView() : layer.gate_up.view()});
  if (c.chunks == nullptr) {
    c.ops.PagedAttention(c.queries, c.kv_head_of_query, c.batch, kv, c.scale, c.attended);
  } else {
    c.ops.DualChunkAttention(c.queries, c.kv_head_of_query, *c.chunks, c.batch, kv, c.scale,
                             c.attended);
  }
  c.ops.MatMul(c.attended, {layer.attention_out.view()}, nullptr, c.partial);
  c.tp.AllReduceAddRmsNorm(c.ops, c.partial, c.residual, layer.ffn_norm.view(), c.eps, c.normed);

  c.feed_forward.Run(layer, c.normed, c.partial, c.data, c.rows_of_groups);
  c.tp.AllReduceAddRmsNorm(c.ops, c.partial, c.residual, next_norm, c.eps, c.normed);
}

Qwen2::StepContext Qwen2::Begin(const StepRows& step, Communicator& tp, Communicator& data) const {
  const auto rows = [&](const Tensor& tensor) { return tensor.view().Rows(0, step.batch.tokens); };
  const TensorView attended = rows(workspace_.attended);
  const RopeTable table = rope_.table();
  return {.ops = ops_,
          .tp = tp,
          .data = data,
          .feed_forward = feed_forward_,
          .batch = step.batch,
          .rope = {table.cosine, table.sine, /*keys_only=*/chunks_.has_value()},
          .chunks = chunks_.has_value() ? &*chunks_ : nullptr,
          .rows_of_groups = step.rows_of_groups,
          .kv_head_of_query = plan_.kv_head_of_query(),
          .eps = rms_norm_eps_,
          .scale = attention_scale_,
          .residual = rows(workspace_.residual),
          .normed = rows(workspace_.normed),
          .partial = rows(workspace_.partial),
          .qkv = rows(workspace_.qkv),
          .queries = rows(workspace_.qkv).Columns(0, attended.columns()),
          .attended = attended};
}

// `c` with the wanted rows alone, after the projections, when nothing needs `c.normed` and the keys
// and values are stored: buffers whose contents are spent receive the rows of others.
Qwen2::StepContext Qwen2::Narrow(const StepContext& c, const StepRows& step) {
  StepContext narrow = c;
  narrow.rows_of_groups = step.wanted_of_groups;  // others may have fewer where this one has not
  if (step.all_wanted()) {
    return narrow;
  }
  const auto rows = [&](TensorView view) { return view.Rows(0, step.wanted_batch.tokens); };
  narrow.batch = step.wanted_batch;
  narrow.residual = rows(c.normed);
  narrow.normed = rows(c.residual);
  narrow.partial = rows(c.partial);
  narrow.queries = rows(c.attended);
  narrow.attended = rows(c.queries);
  c.ops.GatherRows(c.residual, step.wanted, narrow.residual);
  c.ops.GatherRows(c.queries, step.wanted, narrow.queries);
  return narrow;
}

// Whether all rows are decodes that go through whole dense layers: a device may have one kernel for
// such a step.
bool Qwen2::IsDenseStep(const StepContext& c, const StepRows& rows) const {
  return c.tp.size() == 1 && plan_.dims().sparse_layers == 0 && c.chunks == nullptr &&
         rows.all_wanted() && rows.batch.leading_decodes == rows.batch.tokens;
}

void Qwen2::RunDenseLayers(const StepContext& c, const KvCache& kv) {
  dense_layers_.clear();
  for (size_t i = 0; i < weights_.layers.size(); ++i) {
    const LayerWeights& layer = weights_.layers[i];
    dense_layers_.push_back({.attention_norm = layer.attention_norm.view(),
                             .qkv = {layer.qkv.view()},
                             .qkv_bias = layer.bias(),
                             .attention_out = {layer.attention_out.view()},
                             .ffn_norm = layer.ffn_norm.view(),
                             .gate_up = {layer.gate_up.view()},
                             .down = {layer.down.view()},
                             .kv = kv.layer(i)});
  }
  const int64_t rows = c.residual.rows();
  const int64_t columns = weights_.layers.front().down.view().columns();
  c.ops.DenseLayers({.layers = dense_layers_,
                     .final_norm = weights_.final_norm.view(),
                     .eps = c.eps,
                     .rope = c.rope,
                     .batch = c.batch,
                     .kv_head_of_query = c.kv_head_of_query,
                     .scale = c.scale,
                     .residual = c.residual,
                     .normed = c.normed,
                     .partial = c.partial,
                     .qkv = c.qkv,
                     .attended = c.attended,
                     .gate_up = c.feed_forward.gate_up(rows, columns),
                     .activated = c.feed_forward.activated(rows, columns)});
  output_ = c.normed;
}

void Qwen2::Forward(const StepRows& rows, const KvCache& kv, Communicator& tp, Communicator& data) {
  const StepContext c = Begin(rows, tp, data);
  // One rank has the row and the others zeros: the sum is exact.
  c.ops.Embed(rows.ids, weights_.embedding.view(), plan_.vocabulary().begin, c.residual);
  c.tp.AllReduceSum(c.residual);
  if (IsDenseStep(c, rows)) {
    RunDenseLayers(c, kv);
    return;
  }
  c.ops.RmsNorm(c.residual, weights_.layers.front().attention_norm.view(), c.eps, c.normed);
  const size_t last = weights_.layers.size() - 1;
  for (size_t i = 0; i < last; ++i) {
    ProjectQkv(weights_.layers[i], kv.layer(i), c);
    FinishLayer(weights_.layers[i], weights_.layers[i + 1].attention_norm.view(), kv.layer(i), c);
  }
  ProjectQkv(weights_.layers[last], kv.layer(last), c);
  const StepContext wanted = Narrow(c, rows);
  FinishLayer(weights_.layers[last], weights_.final_norm.view(), kv.layer(last), wanted);
  output_ = wanted.normed;
}

TensorView Qwen2::LocalLogits(TensorView rows) {
  CHECK_LE(rows.rows(), kMaxLogitRows);
  const TensorView input = workspace_.head_input.view().Rows(0, rows.rows());
  const TensorView local = workspace_.local_logits.view().Rows(0, rows.rows());
  ops_.GatherRows(output_, rows, input);
  ops_.MatMul(input, {weights_.head()}, nullptr, local);
  return local;
}

TensorView Qwen2::LocalLogits(int64_t begin, int64_t count) {
  CHECK_LE(count, kMaxLogitRows);
  const TensorView local = workspace_.local_logits.view().Rows(0, count);
  ops_.MatMul(output_.Rows(begin, count), {weights_.head()}, nullptr, local);
  return local;
}

TensorView Qwen2::GatherLogits(TensorView local, Communicator& tp) {
  CHECK_LE(local.rows(), kMaxWholeRows);
  if (tp.size() == 1) {
    return local;
  }
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
  const DType act = options.act;
  Workspace& w = model->workspace_;
  ASSIGN_OR_RETURN(w.residual, device.Allocate({tokens, config.hidden}, act));
  ASSIGN_OR_RETURN(w.normed, device.Allocate({tokens, config.hidden}, act));
  ASSIGN_OR_RETURN(w.partial, device.Allocate({tokens, config.hidden}, DType::kF32));
  ASSIGN_OR_RETURN(w.qkv, device.Allocate({tokens, query_columns + 2 * kv_columns}, act));
  ASSIGN_OR_RETURN(w.attended, device.Allocate({tokens, query_columns}, act));
  ASSIGN_OR_RETURN(w.head_input, device.Allocate({kMaxLogitRows, config.hidden}, act));
  ASSIGN_OR_RETURN(w.local_logits,
                   device.Allocate({kMaxLogitRows, plan.vocabulary().size()}, DType::kF32));
  ASSIGN_OR_RETURN(w.whole_logits,
                   device.Allocate({kMaxWholeRows, config.vocabulary}, DType::kF32));
  ASSIGN_OR_RETURN(model->feed_forward_,
                   FeedForward::Create(config, plan, OptionsOf(options), device));
  const PositionRule rule(config, options.max_positions);
  ASSIGN_OR_RETURN(model->rope_, MakeRopeTensors(rule.rope_parts(), act, device));
  if (config.dual_chunk.has_value()) {
    model->chunks_ = {.chunk_size = config.dual_chunk->chunk_size,
                      .chunk_length = config.dual_chunk->chunk_length(),
                      .rope = model->rope_.table()};
  }
  return model;
}

int64_t Qwen2::WorkspaceBytes(const ModelConfig& config, const ShardPlan& plan,
                              const Qwen2Options& options) {
  const int64_t query_columns = plan.query_heads().size() * config.head_dim;
  const int64_t kv_columns = plan.kv_heads().size() * config.head_dim;
  const int64_t act_columns = 2 * config.hidden + 2 * query_columns + 2 * kv_columns;
  const int64_t act_bytes = SizeOf(options.act);
  const int64_t fp32_bytes = SizeOf(DType::kF32);
  return FeedForward::WorkspaceBytes(config, plan, OptionsOf(options)) +
         options.max_batch_tokens * (act_columns * act_bytes + config.hidden * fp32_bytes) +
         kMaxLogitRows * (config.hidden * act_bytes + plan.vocabulary().size() * fp32_bytes) +
         kMaxWholeRows * config.vocabulary * fp32_bytes +
         PositionRule(config, options.max_positions).rope_rows() * config.head_dim * fp32_bytes;
}

}  // namespace cohort
