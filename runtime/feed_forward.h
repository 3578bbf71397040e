// The second half of a layer: the dense FFN, or routed experts and the shared one.
#ifndef COHORT_RUNTIME_FEED_FORWARD_H_
#define COHORT_RUNTIME_FEED_FORWARD_H_

#include <cstdint>
#include <memory>

#include "kernels/device.h"
#include "kernels/ops.h"
#include "parallel/expert_exchange.h"
#include "parallel/shard_plan.h"
#include "runtime/model_config.h"
#include "runtime/weight_loader.h"

namespace cohort {

struct FeedForwardOptions {
  DType act = DType::kBF16;
  int64_t max_tokens = 0;  // rows of a step
  ExpertExchangeKind exchange = ExpertExchangeKind::kReplicated;
};

class FeedForward {
 public:
  FeedForward() = default;  // to be assigned

  // Allocates what steps need. `device` must outlive the object.
  static absl::StatusOr<FeedForward> Create(const ModelConfig& config, const ShardPlan& plan,
                                            const FeedForwardOptions& options, Device& device);

  // Bytes that Create() allocates.
  static int64_t WorkspaceBytes(const ModelConfig& config, const ShardPlan& plan,
                                const FeedForwardOptions& options);

  // This rank's part of a layer's sum over its tensor group, of experts as of columns: normed
  // [tokens, hidden] act, partial [tokens, hidden] fp32. A sparse layer exchanges rows with the
  // ranks of `data`, its data group, which all run it; `rows_of_groups` as for
  // ExpertExchange::Dispatch().
  void Run(const LayerWeights& layer, TensorView normed, TensorView partial, Communicator& data,
           absl::Span<const int64_t> rows_of_groups) const;

  // Memory for the products of `rows` rows of a dense FFN: [rows, 2 * columns], [rows, columns]
  // act.
  TensorView gate_up(int64_t rows, int64_t columns) const;
  TensorView activated(int64_t rows, int64_t columns) const;

  // How many rows chose each expert since Create(), of all ranks' experts: [sparse layers, experts]
  // int32, which wraps around. No rows where no layer is sparse.
  const TensorView& expert_hits() const { return expert_hits_.view(); }

 private:
  void RunRouted(const LayerWeights& layer, TensorView normed, TensorView partial,
                 Communicator& data, absl::Span<const int64_t> rows_of_groups) const;
  void RunOnEveryRow(const LayerWeights& layer, TensorView normed, TensorView partial) const;

  Ops* ops_ = nullptr;
  bool normalize_weights_ = false;
  int64_t first_expert_ = 0;
  int64_t experts_per_row_ = 0;  // at most, of this rank's

  std::unique_ptr<ExpertExchange> exchange_;  // null where no layer is sparse

  // Layers of both kinds use the same memory, and so do a layer's routed experts and its shared
  // one; a view of its own shape is made for each.
  Tensor gate_up_;    // elements, act
  Tensor activated_;  // elements, act
  // Of sparse layers alone.
  Tensor router_logits_;   // [tokens, experts + 1] act: the last is the shared expert's gate
  Tensor expert_ids_;      // [tokens, experts_per_token] int32
  Tensor expert_weights_;  // [tokens, experts_per_token] fp32
  Tensor shared_;          // [tokens, hidden] fp32: what the shared expert gives
  Tensor expert_hits_;     // [sparse layers, experts] int32
};

}  // namespace cohort

#endif  // COHORT_RUNTIME_FEED_FORWARD_H_
