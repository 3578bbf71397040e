// Who holds what: the only code that divides. Pure arithmetic over model dimensions, no tensors.
#ifndef COHORT_PARALLEL_SHARD_PLAN_H_
#define COHORT_PARALLEL_SHARD_PLAN_H_

#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "kernels/status.h"

namespace cohort {

// What the cuts need to know of a model. All sizes are those of the whole model.
struct ModelDims {
  int64_t hidden = 0;
  int64_t layers = 0;
  int64_t query_heads = 0;
  int64_t kv_heads = 0;
  int64_t head_dim = 0;
  int64_t ffn_columns = 0;       // intermediate size of the dense FFN, where a layer has one
  int64_t vocabulary = 0;        // rows of the embedding
  bool tied_embeddings = false;  // the head reads the embedding's rows
  int64_t weight_bytes = 2;      // of one weight element in memory
  int64_t kv_bytes = 2;          // of one element of the KV cache
  // Mixture of experts; a dense model has none of it.
  int64_t experts = 0;                // of each sparse layer
  int64_t experts_per_token = 0;      // of these, chosen by the router
  int64_t expert_columns = 0;         // intermediate size of one expert
  int64_t shared_expert_columns = 0;  // of the expert that every token passes through
  int64_t sparse_layers = 0;          // layers with experts instead of the dense FFN
  bool qkv_bias = true;               // queries, keys and values have biases

  int64_t dense_layers() const { return layers - sparse_layers; }
};

struct Parallelism {
  int tp = 1;  // ranks one layer is cut over
  int dp = 1;  // groups that attend to their own sequences
  int ep = 1;  // groups that hold whole experts; divides tp * dp
  int world() const { return tp * dp; }
};

// Half-open.
struct Range {
  int64_t begin = 0;
  int64_t end = 0;
  int64_t size() const { return end - begin; }
  bool operator==(const Range&) const = default;
};

// Groups of ranks, each a list of world ranks in group order.
using RankList = std::vector<int>;

// The tensor group of `rank`: the tp ranks that share its dp index. Further groups (expert,
// data-parallel, world) are made by the same kind of function as they are needed.
RankList TensorGroup(const Parallelism& parallelism, int rank);
RankList WorldGroup(const Parallelism& parallelism);
RankList DataGroup(const Parallelism& parallelism, int rank);    // ranks of equal tp index
RankList ExpertGroup(const Parallelism& parallelism, int rank);  // ranks that share whole experts

// One rank's share. Contiguous ranges, ascending with the rank inside its tensor group, that tile
// every dimension; a range may be empty where the dimension is smaller than the group. KV heads are
// replicated where query heads of one group lie on several ranks.
//
// The cuts minimise the bytes that the slowest rank reads per token at batch 1 and
// kPlanContextTokens of context (weights and KV). Query heads are the coarse unit; FFN columns (and
// vocabulary rows) are laid so that they even out what heads cannot. Column borders keep a
// granularity of 64 where the dimension allows (the largest power of two that leaves every rank a
// unit).
//
// Experts lie whole on the ep expert groups, balanced and contiguous; each is cut along its columns
// over the ranks of its group. Of routed experts a rank reads, on average, what the uniform router
// of one token chooses; the other cuts level what is left uneven. They are equal in all
// data-parallel groups.
class ShardPlan {
 public:
  static constexpr int64_t kPlanContextTokens = 4096;

  // INVALID_ARGUMENT names the value: tp outside 1..query_heads, rank outside the world, dims < 1.
  static absl::StatusOr<ShardPlan> Make(const ModelDims& dims, const Parallelism& parallelism,
                                        int rank);

  // The plans of all ranks, for little more than the price of one.
  static absl::StatusOr<std::vector<ShardPlan>> MakeAll(const ModelDims& dims,
                                                        const Parallelism& parallelism);

  int rank() const { return rank_; }
  const ModelDims& dims() const { return dims_; }
  const Parallelism& parallelism() const { return parallelism_; }

  Range query_heads() const { return query_heads_; }
  Range kv_heads() const { return kv_heads_; }
  Range ffn_columns() const { return ffn_columns_; }  // empty where no layer is dense
  Range vocabulary() const { return vocabulary_; }
  // Local query head -> local KV head; ascending, group sizes may differ.
  absl::Span<const int32_t> kv_head_of_query() const { return kv_head_of_query_; }

  // The vocabulary ranges of all ranks of this rank's tensor group, in group order (for AllGather).
  absl::Span<const Range> vocabulary_parts() const { return vocabulary_parts_; }

  // Of a sparse layer; all empty where no layer is sparse.
  Range experts() const { return experts_; }                // whole, of this rank's expert group
  Range expert_columns() const { return expert_columns_; }  // of each of them, on this rank
  Range shared_expert_columns() const { return shared_expert_columns_; }
  // The experts of every expert group; group g is ranks [g * m, (g + 1) * m), m = world / ep.
  absl::Span<const Range> expert_parts() const { return expert_parts_; }

  // Read by this rank at batch 1 and kPlanContextTokens of context.
  int64_t bytes_per_token() const { return bytes_per_token_; }
  double imbalance() const { return imbalance_; }  // slowest rank / mean of the world, >= 1
  int64_t weight_bytes() const;                    // resident weights of this rank
  int64_t kv_bytes_per_token() const;              // of this rank, all layers

 private:
  struct WorldCuts;

  ShardPlan() = default;
  static absl::StatusOr<WorldCuts> CutWorld(const ModelDims& dims, const Parallelism& parallelism);
  static ShardPlan Of(const WorldCuts& cuts, const ModelDims& dims, const Parallelism& parallelism,
                      int rank);

  int rank_ = 0;
  ModelDims dims_;
  Parallelism parallelism_;
  Range query_heads_, kv_heads_, ffn_columns_, vocabulary_;
  Range experts_, expert_columns_, shared_expert_columns_;
  std::vector<int32_t> kv_head_of_query_;
  std::vector<Range> vocabulary_parts_;
  std::vector<Range> expert_parts_;
  int64_t bytes_per_token_ = 0;
  double imbalance_ = 1;
};

}  // namespace cohort

#endif  // COHORT_PARALLEL_SHARD_PLAN_H_
