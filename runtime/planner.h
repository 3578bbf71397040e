// What fits where, before anything is allocated: from a model's config and a machine to layouts,
// every byte of every rank and predicted rates. Pure functions; the bytes are those of the ledger
// that workers are checked by (runtime/memory_ledger.h).
#ifndef COHORT_RUNTIME_PLANNER_H_
#define COHORT_RUNTIME_PLANNER_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "parallel/weight_parts.h"
#include "runtime/layout_cost.h"
#include "runtime/model_config.h"
#include "runtime/performance_model.h"

namespace cohort {

struct PlanRequest {
  ModelConfig config;
  DType dtype = DType::kBF16;  // of weights, activations and KV
  Hardware hardware;
  int64_t gpus = 1;                    // ranks that there is room for, of all nodes
  std::optional<int64_t> nodes;        // default: as few as hold the GPUs
  std::optional<int64_t> tp, dp, ep;   // default: what is best
  std::optional<int64_t> context;      // tokens of a sequence; default: kDefaultContext
  int64_t concurrency = 1;             // sequences at a time
  std::optional<bool> host_embedding;  // default: where it would leave too little room
  // As `cohort serve` has them.
  int64_t max_batch_tokens = 512;
  int64_t max_running = 256;
  int64_t block_size = 16;
};

// A layout is of use when it holds a sequence of so many tokens, or of the model's length if that
// is less.
inline constexpr int64_t kDefaultContext = ShardPlan::kPlanContextTokens;

struct RankPlan {
  int rank = 0;
  Range query_heads, kv_heads, ffn_columns, experts, expert_columns, shared_expert_columns;
  Range vocabulary;
  // Bytes.
  WeightParts weights;
  int64_t host = 0;  // of the weights, what lies in host memory
  int64_t kv_per_token = 0;
  int64_t kv = 0;  // of the tokens that its group has room for
  int64_t workspace = 0;
  int64_t communication = 0;
  int64_t reserve = 0;
  int64_t free = 0;  // less than a block takes; negative: missing
};

struct Prediction {
  StepSeconds decode;  // batch 1, at the plan's context
  double prefill_tokens_per_second = 0;
  double decode_tokens_per_second = 0;  // of `decode_sequences` together
  int64_t decode_sequences = 0;
};

// What would let a request that does not fit do so.
struct PlanChange {
  enum class Kind { kMoreGpus, kShorterContext, kFewerSequences };
  Kind kind = Kind::kMoreGpus;
  int64_t value = 0;        // GPUs, tokens, sequences
  Parallelism parallelism;  // the layout that fits then
};

struct LayoutPlan {
  Parallelism parallelism;
  int64_t nodes = 1;
  int64_t idle_gpus = 0;
  std::vector<RankPlan> ranks;
  int64_t checkpoint_bytes = 0;  // of the model's tensors in the plan's dtype
  int64_t replicated_bytes = 0;  // what further ranks hold of the same: sum of weights - checkpoint
  int64_t host_bytes = 0;        // of all ranks
  int64_t context = 0;           // tokens of a sequence
  int64_t concurrency = 1;
  int64_t kv_tokens = 0;  // that all groups together have room for
  double imbalance = 1;   // bytes read per token, slowest rank over mean
  Prediction predicted;
  bool fits = false;
  int64_t missing_bytes = 0;  // on the fullest rank (or node, where ranks share its memory)
  std::string why;            // of the choice, one sentence
};

struct Plan {
  LayoutPlan best;                       // of the lowest decode latency that fits
  std::vector<LayoutPlan> alternatives;  // the one of the highest throughput first
  std::vector<PlanChange> changes;       // where nothing fits
};

// INVALID_ARGUMENT names the value: degrees that the model or the GPUs do not allow, a context
// beyond the model's. A request that does not fit is not an error: best.fits is false.
absl::StatusOr<Plan> MakePlan(const PlanRequest& request);

// One layout; `request.context` and the like as in MakePlan, its degrees are ignored.
absl::StatusOr<LayoutPlan> PlanLayout(const PlanRequest& request, const Parallelism& parallelism);

}  // namespace cohort

#endif  // COHORT_RUNTIME_PLANNER_H_
