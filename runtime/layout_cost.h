// How long a layout's steps take by the formulas of performance_model.h.
#ifndef COHORT_RUNTIME_LAYOUT_COST_H_
#define COHORT_RUNTIME_LAYOUT_COST_H_

#include <cstdint>
#include <vector>

#include "parallel/shard_plan.h"
#include "runtime/performance_model.h"

namespace cohort {

// The rows of one step in each data-parallel group, all alike.
struct StepShape {
  double rows = 1;          // tokens that pass through the layers
  double sampled = 1;       // of these, those that pass through the head
  double context = 0;       // positions that each row attends to
  double cached_reads = 1;  // sequences whose keys and values are read, each `context` long
};

// What a step's seconds are spent on; of the slowest rank.
struct StepSeconds {
  double compute = 0;      // reading weights and keys, products: the slower of the two
  double launches = 0;     // between kernels
  double collectives = 0;  // all-reduces of the layers, the embedding and the choice
  double exchange = 0;     // dispatch and combine of experts over data-parallel groups
  double total() const { return compute + launches + collectives + exchange; }
};

class LayoutCost {
 public:
  // `ranks`: ShardPlan::MakeAll of the layout, not empty. `ranks_per_node`: rank r is on node
  // r / ranks_per_node.
  LayoutCost(const std::vector<ShardPlan>& ranks, const Hardware& hardware, int64_t ranks_per_node);

  StepSeconds Seconds(const StepShape& shape) const;

  // One row of every group's sequence after `context` tokens.
  StepSeconds DecodeSeconds(double sequences, double context) const;

  // Tokens a second of all groups, each computing a prompt of `prompt` tokens in steps of at most
  // `max_batch_tokens`.
  double PrefillTokensPerSecond(int64_t prompt, int64_t max_batch_tokens) const;

 private:
  // What one rank reads and multiplies, each per unit of something that a step has.
  struct RankCost {
    StepWork every_step;      // bytes of the weights that all rows pass through; operations per row
    StepWork head;            // operations per sampled row
    double expert_bytes = 0;  // of one expert on this rank, all sparse layers
    double expert_operations = 0;     // of one expert and row
    double experts = 0;               // whole or cut
    double kv_bytes = 0;              // of one position
    double attention_operations = 0;  // of one row and position
    bool operator==(const RankCost&) const = default;
  };

  static RankCost CostOf(const ShardPlan& rank);
  StepWork WorkOf(const RankCost& cost, const StepShape& shape, double busiest_experts) const;
  double BusiestExperts(double world_rows) const;

  ModelDims dims_;
  Parallelism parallelism_;
  Hardware hardware_;
  int64_t sharers_ = 1;  // ranks of a node among whom it is divided
  Spread tensor_group_;
  Spread world_;
  std::vector<int64_t> expert_groups_;  // experts of each; empty for a dense model
  std::vector<RankCost> costs_;         // of all ranks, each kind once
};

}  // namespace cohort

#endif  // COHORT_RUNTIME_LAYOUT_COST_H_
