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
  int64_t ffn_columns = 0;       // intermediate size of the dense FFN
  int64_t vocabulary = 0;        // rows of the embedding
  bool tied_embeddings = false;  // the head reads the embedding's rows
  int64_t weight_bytes = 2;      // of one weight element in memory
  int64_t kv_bytes = 2;          // of one element of the KV cache
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
class ShardPlan {
 public:
  static constexpr int64_t kPlanContextTokens = 4096;

  // INVALID_ARGUMENT names the value: tp outside 1..query_heads, rank outside the world, dims < 1.
  static absl::StatusOr<ShardPlan> Make(const ModelDims& dims, const Parallelism& parallelism,
                                        int rank);

  int rank() const { return rank_; }
  const ModelDims& dims() const { return dims_; }
  const Parallelism& parallelism() const { return parallelism_; }

  Range query_heads() const { return query_heads_; }
  Range kv_heads() const { return kv_heads_; }
  Range ffn_columns() const { return ffn_columns_; }
  Range vocabulary() const { return vocabulary_; }
  // Local query head -> local KV head; ascending, group sizes may differ.
  absl::Span<const int32_t> kv_head_of_query() const { return kv_head_of_query_; }

  // The vocabulary ranges of all ranks of this rank's tensor group, in group order (for AllGather).
  absl::Span<const Range> vocabulary_parts() const { return vocabulary_parts_; }

  int64_t bytes_per_token() const {
    return bytes_per_token_;
  }                                                // read by this rank, batch 1, 4,096 tokens
  double imbalance() const { return imbalance_; }  // slowest rank / mean, >= 1
  int64_t weight_bytes() const;                    // resident weights of this rank
  int64_t kv_bytes_per_token() const;              // of this rank, all layers

 private:
  ShardPlan() = default;

  int rank_ = 0;
  ModelDims dims_;
  Parallelism parallelism_;
  Range query_heads_, kv_heads_, ffn_columns_, vocabulary_;
  std::vector<int32_t> kv_head_of_query_;
  std::vector<Range> vocabulary_parts_;
  int64_t bytes_per_token_ = 0;
  double imbalance_ = 1;
};

}  // namespace cohort

#endif  // COHORT_PARALLEL_SHARD_PLAN_H_
