#include "runtime/feed_forward.h"

#include <algorithm>
#include <vector>

namespace cohort {
namespace {

// The first elements of a buffer as a matrix.
TensorView Matrix(const Tensor& buffer, int64_t rows, int64_t columns) {
  const TensorView& all = buffer.view();
  CHECK_LE(rows * columns, all.shape.elements());
  return TensorView(all.data, all.dtype, Shape{rows, columns});
}

int64_t ExpertsPerRow(const ModelConfig& config, const ShardPlan& plan) {
  return std::min(config.experts_per_token, plan.experts().size());
}

ExpertExchangeOptions ExchangeOptions(const FeedForwardOptions& options) {
  return {.kind = options.exchange, .act = options.act, .max_tokens = options.max_tokens};
}

// Elements of activations that one FFN after the other needs at most: the dense and the shared one
// for the rank's own rows, the routed experts for those of all data-parallel groups.
int64_t Activations(const ModelConfig& config, const ShardPlan& plan,
                    const FeedForwardOptions& options) {
  const int64_t own = std::max(plan.ffn_columns().size(), plan.shared_expert_columns().size());
  const int64_t routed = ExpertsPerRow(config, plan) * plan.expert_columns().size();
  return options.max_tokens * std::max(own, plan.parallelism().dp * routed);
}

}  // namespace

absl::StatusOr<FeedForward> FeedForward::Create(const ModelConfig& config, const ShardPlan& plan,
                                                const FeedForwardOptions& options, Device& device) {
  FeedForward ffn;
  ffn.ops_ = &device.ops();
  const DType act = options.act;
  const int64_t max_tokens = options.max_tokens;
  const int64_t elements = Activations(config, plan, options);
  ASSIGN_OR_RETURN(ffn.gate_up_, device.Allocate({2 * elements}, act));
  ASSIGN_OR_RETURN(ffn.activated_, device.Allocate({elements}, act));
  const Shape hits = {plan.dims().sparse_layers, config.experts};
  ASSIGN_OR_RETURN(ffn.expert_hits_, device.Allocate(hits, DType::kI32));
  if (plan.dims().sparse_layers == 0) {
    return ffn;
  }
  const std::vector<int32_t> zeros(static_cast<size_t>(hits.elements()));
  device.CopyFromHost(zeros.data(), ffn.expert_hits_.view());
  RETURN_IF_ERROR(device.Synchronize());  // before the zeros are gone
  ffn.normalize_weights_ = config.normalize_expert_weights;
  ffn.first_expert_ = plan.experts().begin;
  ffn.experts_per_row_ = ExpertsPerRow(config, plan);
  ASSIGN_OR_RETURN(ffn.exchange_, MakeExpertExchange(ExchangeOptions(options), plan, device));
  const Shape chosen = {max_tokens, config.experts_per_token};
  ASSIGN_OR_RETURN(ffn.router_logits_, device.Allocate({max_tokens, config.experts + 1}, act));
  ASSIGN_OR_RETURN(ffn.expert_ids_, device.Allocate(chosen, DType::kI32));
  ASSIGN_OR_RETURN(ffn.expert_weights_, device.Allocate(chosen, DType::kF32));
  ASSIGN_OR_RETURN(ffn.shared_, device.Allocate({max_tokens, config.hidden}, DType::kF32));
  return ffn;
}

int64_t FeedForward::WorkspaceBytes(const ModelConfig& config, const ShardPlan& plan,
                                    const FeedForwardOptions& options) {
  const int64_t activations = 3 * Activations(config, plan, options) * SizeOf(options.act);
  if (plan.dims().sparse_layers == 0) {
    return activations;
  }
  const int64_t choices = config.experts_per_token * (SizeOf(DType::kI32) + SizeOf(DType::kF32));
  const int64_t row =
      (config.experts + 1) * SizeOf(options.act) + choices + config.hidden * SizeOf(DType::kF32);
  return activations + options.max_tokens * row +
         plan.dims().sparse_layers * config.experts * SizeOf(DType::kI32) +
         ExpertExchangeBytes(ExchangeOptions(options), plan);
}

void FeedForward::Run(const LayerWeights& layer, TensorView normed, TensorView partial,
                      Communicator& data, absl::Span<const int64_t> rows_of_groups) const {
  if (layer.is_sparse()) {
    RunRouted(layer, normed, partial, data, rows_of_groups);
  } else {
    RunOnEveryRow(layer, normed, partial);
  }
}

void FeedForward::RunRouted(const LayerWeights& layer, TensorView normed, TensorView partial,
                            Communicator& data, absl::Span<const int64_t> rows_of_groups) const {
  const int64_t rows = normed.rows();
  const TensorView logits = router_logits_.view().Rows(0, rows);
  const int64_t experts = logits.columns() - 1;
  const Routing routing{expert_ids_.view().Rows(0, rows), expert_weights_.view().Rows(0, rows)};
  ops_->MatMul(normed, {layer.router.view()}, nullptr, logits);
  ops_->RouteTopK(logits.Columns(0, experts), normalize_weights_, routing);
  const TensorView hits = expert_hits_.view().Rows(layer.sparse_index, 1);
  ops_->CountIds(routing.ids, TensorView(hits.data, DType::kI32, Shape{experts}));

  const ExpertRows here = exchange_->Dispatch(normed, routing, partial, data, rows_of_groups);
  const ExpertWeights own{layer.expert_gate_up.view(), layer.expert_down.view(), first_expert_};
  const int64_t pairs = here.x.rows() * experts_per_row_;
  ops_->RoutedFfn(
      here.x, here.routing, own,
      {Matrix(gate_up_, pairs, 2 * own.columns()), Matrix(activated_, pairs, own.columns())},
      here.sums);
  exchange_->Combine(here, partial, data);

  const TensorView shared = shared_.view().Rows(0, rows);
  RunOnEveryRow(layer, normed, shared);
  ops_->AddGated(shared, logits.Columns(experts, 1), partial);
}

// The dense FFN, or the shared expert.
void FeedForward::RunOnEveryRow(const LayerWeights& layer, TensorView normed,
                                TensorView partial) const {
  const int64_t columns = layer.down.view().columns();
  const TensorView act = activated(normed.rows(), columns);
  ops_->ProjectGateUp(normed, {layer.gate_up.view()}, gate_up(normed.rows(), columns), act);
  ops_->MatMul(act, {layer.down.view()}, nullptr, partial);
}

TensorView FeedForward::gate_up(int64_t rows, int64_t columns) const {
  return Matrix(gate_up_, rows, 2 * columns);
}

TensorView FeedForward::activated(int64_t rows, int64_t columns) const {
  return Matrix(activated_, rows, columns);
}

}  // namespace cohort
