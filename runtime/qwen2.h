// The Qwen2 model, dense or with experts, as one rank computes it: slices of the weights, and a
// communicator that sums what the slices leave.
#ifndef COHORT_RUNTIME_QWEN2_H_
#define COHORT_RUNTIME_QWEN2_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "kernels/device.h"
#include "kernels/ops.h"
#include "parallel/communicator.h"
#include "parallel/shard_plan.h"
#include "runtime/feed_forward.h"
#include "runtime/kv_cache.h"
#include "runtime/model_config.h"
#include "runtime/rope.h"
#include "runtime/step_rows.h"
#include "runtime/weight_loader.h"

namespace cohort {

struct Qwen2Options {
  DType act = DType::kBF16;
  int64_t max_batch_tokens = 0;  // rows of one step
  int64_t max_positions = 0;     // of a sequence
  ExpertExchangeKind exchange = ExpertExchangeKind::kReplicated;
};

class Qwen2 {
 public:
  // Rows that one call of LocalLogits(), of GatherLogits() takes at most: bound the memory of
  // logits.
  static constexpr int64_t kMaxLogitRows = 64;
  static constexpr int64_t kMaxWholeRows = 8;

  // Allocates everything a step needs. `device` must outlive the model.
  static absl::StatusOr<std::unique_ptr<Qwen2>> Create(const ModelConfig& config,
                                                       const ShardPlan& plan, ModelWeights weights,
                                                       const Qwen2Options& options, Device& device);

  // Bytes that Create() allocates beside the weights.
  static int64_t WorkspaceBytes(const ModelConfig& config, const ShardPlan& plan,
                                const Qwen2Options& options);

  // One step: the keys and values of all rows go to `kv`, the normed output of the last layer is
  // kept for LocalLogits(), of the wanted rows alone: the last layer computes no others. Where
  // exchanges_rows(), every rank of `data`, the data group, makes the same steps, if without rows.
  void Forward(const StepRows& rows, const KvCache& kv, Communicator& tp, Communicator& data);
  // Whether rows move between data-parallel groups.
  bool exchanges_rows() const {
    return plan_.parallelism().dp > 1 && plan_.dims().sparse_layers > 0;
  }

  // This rank's columns of the logits of some wanted rows of the last Forward(): their indices
  // among the wanted, rows [n] int32 in device memory, n <= kMaxLogitRows. [n, own vocabulary]
  // fp32, valid until the next call.
  TensorView LocalLogits(TensorView rows);
  // The same of those from `begin` on.
  TensorView LocalLogits(int64_t begin, int64_t count);

  // Whole rows from every rank's columns of them: local [n, own vocabulary] fp32, n <=
  // kMaxWholeRows. [n, vocabulary] fp32, equal on every rank, valid until the next call.
  TensorView GatherLogits(TensorView local, Communicator& tp);

  // Of the steps so far; FeedForward::expert_hits().
  const TensorView& expert_hits() const { return feed_forward_.expert_hits(); }
  int64_t weight_bytes() const { return weights_.bytes(); }

 private:
  struct StepContext;

  Qwen2(const ModelConfig& config, const ShardPlan& plan, ModelWeights weights, Device& device);
  static void ProjectQkv(const LayerWeights& layer, const KvView& kv, const StepContext& c);
  static void FinishLayer(const LayerWeights& layer, TensorView next_norm, const KvView& kv,
                          const StepContext& c);
  StepContext Begin(const StepRows& rows, Communicator& tp, Communicator& data) const;
  static StepContext Narrow(const StepContext& c, const StepRows& rows);
  bool IsDenseStep(const StepContext& c, const StepRows& rows) const;
  void RunDenseLayers(const StepContext& c, const KvCache& kv);

  // Sized for max_batch_tokens rows; local sizes.
  struct Workspace {
    Tensor residual;      // [tokens, hidden] act
    Tensor normed;        // [tokens, hidden] act
    Tensor partial;       // [tokens, hidden] fp32: this rank's part of a sum over ranks
    Tensor qkv;           // [tokens, (query_heads + 2 kv_heads) * head_dim] act
    Tensor attended;      // [tokens, query_heads * head_dim] act
    Tensor head_input;    // [kMaxLogitRows, hidden] act
    Tensor local_logits;  // [kMaxLogitRows, local vocabulary] fp32
    Tensor whole_logits;  // [kMaxWholeRows, vocabulary] fp32
  };

  ShardPlan plan_;
  float rms_norm_eps_;
  float attention_scale_;
  ModelWeights weights_;
  Ops& ops_;
  RopeTensors rope_;
  std::optional<DualChunks> chunks_;  // views rope_
  FeedForward feed_forward_;
  Workspace workspace_;
  std::vector<DenseLayer> dense_layers_;  // of the step under way; kept for its memory
  TensorView output_;  // [wanted rows, hidden]: the last Forward()'s, in the workspace
};

}  // namespace cohort

#endif  // COHORT_RUNTIME_QWEN2_H_
