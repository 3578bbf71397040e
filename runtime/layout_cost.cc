#include "runtime/layout_cost.h"

#include <algorithm>
#include <cmath>

#include "kernels/check.h"
#include "parallel/weight_parts.h"

namespace cohort {
namespace {

// Of a captured step (runtime/qwen2.cc): QKV, attention, output, gate and up, down; the two norms
// are part of the reduces where there are any.
constexpr double kKernelsPerLayer = 5;
constexpr double kNormsPerLayer = 2;
// Router, choice, dispatch, gate and up, down of the experts; combine.
constexpr double kKernelsPerSparseLayer = 6;
constexpr double kReducesPerLayer = 2;
// Of the embedding's rows, and the gather of each rank's best candidates.
constexpr double kReducesPerStep = 2;
// Partial sums are reduced, and combined, in fp32.
constexpr double kPartialBytes = 4;

int64_t NodesOf(int64_t first_rank, int64_t last_rank, int64_t ranks_per_node) {
  return last_rank / ranks_per_node - first_rank / ranks_per_node + 1;
}

// The one of all tensor groups that lies on most nodes.
Spread TensorGroupSpread(const Parallelism& parallelism, int64_t ranks_per_node) {
  Spread spread = {.ranks = parallelism.tp, .nodes = 1};
  for (int group = 0; group < parallelism.dp; ++group) {
    const int64_t first = int64_t{group} * parallelism.tp;
    spread.nodes =
        std::max(spread.nodes, NodesOf(first, first + parallelism.tp - 1, ranks_per_node));
  }
  return spread;
}

}  // namespace

LayoutCost::LayoutCost(const std::vector<ShardPlan>& ranks, const Hardware& hardware,
                       int64_t ranks_per_node)
    : dims_(ranks.front().dims()),
      parallelism_(ranks.front().parallelism()),
      hardware_(hardware),
      tensor_group_(TensorGroupSpread(parallelism_, ranks_per_node)) {
  const int64_t world = parallelism_.world();
  CHECK_EQ(static_cast<int64_t>(ranks.size()), world);
  sharers_ = hardware.is_shared ? std::min(world, ranks_per_node) : 1;
  world_ = {.ranks = world, .nodes = NodesOf(0, world - 1, ranks_per_node)};
  for (const Range& experts : ranks.front().expert_parts()) {
    expert_groups_.push_back(experts.size());
  }
  for (const ShardPlan& rank : ranks) {
    const RankCost cost = CostOf(rank);
    if (std::find(costs_.begin(), costs_.end(), cost) == costs_.end()) {
      costs_.push_back(cost);
    }
  }
}

LayoutCost::RankCost LayoutCost::CostOf(const ShardPlan& rank) {
  const ModelDims& dims = rank.dims();
  const WeightParts parts = WeightPartsOf(rank);
  const double element = static_cast<double>(dims.weight_bytes);
  const double products =
      static_cast<double>(parts.attention + parts.dense_ffn + parts.shared_expert + parts.router);
  // The embedding is read as the head where it is the head, and otherwise only a row of it.
  const double head = static_cast<double>(dims.tied_embeddings ? parts.embedding : parts.head);
  const double query_columns = static_cast<double>(rank.query_heads().size() * dims.head_dim);
  RankCost cost;
  cost.every_step = {.bytes = products + static_cast<double>(parts.norms) + head,
                     .operations = 2 * products / element};
  cost.head = {.bytes = 0, .operations = 2 * head / element};
  cost.experts = static_cast<double>(rank.experts().size());
  if (cost.experts > 0) {
    cost.expert_bytes = static_cast<double>(parts.experts) / cost.experts;
    cost.expert_operations = 2 * cost.expert_bytes / element;
  }
  cost.kv_bytes = static_cast<double>(rank.kv_bytes_per_token());
  // Products of a query with a key, and of a weight with a value.
  cost.attention_operations = 2 * 2 * query_columns * static_cast<double>(dims.layers);
  return cost;
}

double LayoutCost::BusiestExperts(double world_rows) const {
  if (expert_groups_.empty() || dims_.experts == 0) {
    return 0;
  }
  const double distinct = DistinctExperts(dims_.experts, dims_.experts_per_token, world_rows);
  return BusiestGroupExperts(expert_groups_,
                             std::min(dims_.experts, static_cast<int64_t>(std::lround(distinct))));
}

StepWork LayoutCost::WorkOf(const RankCost& cost, const StepShape& shape,
                            double busiest_experts) const {
  StepWork work = {
      .bytes = cost.every_step.bytes + shape.cached_reads * shape.context * cost.kv_bytes,
      .operations =
          shape.rows * (cost.every_step.operations + shape.context * cost.attention_operations) +
          shape.sampled * cost.head.operations};
  if (cost.experts > 0) {
    const double chosen_share =
        static_cast<double>(dims_.experts_per_token) / static_cast<double>(dims_.experts);
    work += {.bytes = std::min(cost.experts, busiest_experts) * cost.expert_bytes,
             .operations = shape.rows * parallelism_.dp * chosen_share * cost.experts *
                           cost.expert_operations};
  }
  return work;
}

StepSeconds LayoutCost::Seconds(const StepShape& shape) const {
  const double busiest_experts = BusiestExperts(shape.rows * parallelism_.dp);
  StepSeconds seconds;
  for (const RankCost& cost : costs_) {
    seconds.compute = std::max(
        seconds.compute, ComputeSeconds(hardware_, WorkOf(cost, shape, busiest_experts), sharers_));
  }
  const double layers = static_cast<double>(dims_.layers);
  const double sparse_layers = static_cast<double>(dims_.sparse_layers);
  const double kernels =
      layers * (kKernelsPerLayer + (tensor_group_.ranks > 1 ? 0 : kNormsPerLayer)) +
      sparse_layers * kKernelsPerSparseLayer;
  seconds.launches = kernels * hardware_.launch_seconds;
  const double message = shape.rows * static_cast<double>(dims_.hidden) * kPartialBytes;
  seconds.collectives = (kReducesPerLayer * layers + kReducesPerStep) *
                        AllReduceSeconds(hardware_, tensor_group_, message);
  if (parallelism_.dp > 1 && sparse_layers > 0) {
    // A row goes to every group that holds one of its experts, and a partial sum comes back; the
    // ranks of a tensor group divide the destinations.
    const double members = static_cast<double>(parallelism_.world() / parallelism_.ep);
    const double copies = GroupsOfOneToken(expert_groups_, dims_.experts_per_token) * members /
                          static_cast<double>(parallelism_.tp);
    const double row = copies * shape.rows * static_cast<double>(dims_.hidden);
    seconds.exchange = sparse_layers * (AllToAllSeconds(hardware_, world_,
                                                        row * static_cast<double>(dims_.kv_bytes)) +
                                        AllToAllSeconds(hardware_, world_, row * kPartialBytes));
  }
  return seconds;
}

StepSeconds LayoutCost::DecodeSeconds(double sequences, double context) const {
  return Seconds(
      {.rows = sequences, .sampled = sequences, .context = context, .cached_reads = sequences});
}

double LayoutCost::PrefillTokensPerSecond(int64_t prompt, int64_t max_batch_tokens) const {
  const double rows = static_cast<double>(std::min(prompt, max_batch_tokens));
  const StepSeconds step = Seconds(
      {.rows = rows, .sampled = 1, .context = static_cast<double>(prompt) / 2, .cached_reads = 1});
  return rows * parallelism_.dp / step.total();
}

}  // namespace cohort
