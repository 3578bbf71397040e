#include "parallel/shard_plan.h"

#include <algorithm>
#include <utility>

#include "kernels/check.h"
#include "parallel/expert_cuts.h"
#include "parallel/group_cuts.h"
#include "parallel/head_split.h"
#include "parallel/weight_parts.h"

namespace cohort {
namespace {

constexpr int64_t kMaxQueryHeads = 1024;
constexpr int64_t kMaxExperts = 1 << 16;
constexpr int64_t kMaxWorld = 1 << 20;
constexpr double kMaxBytes = 1e18;  // keeps every sum of bytes inside int64

absl::Status CheckExperts(const ModelDims& dims) {
  if (dims.sparse_layers < 0 || dims.sparse_layers > dims.layers) {
    return absl::InvalidArgumentError(
        absl::StrCat("sparse_layers is ", dims.sparse_layers, "; it must be in 0..", dims.layers));
  }
  if (dims.sparse_layers == 0) {
    return absl::OkStatus();
  }
  const std::pair<StringView, int64_t> values[] = {
      {"experts", dims.experts},
      {"experts_per_token", dims.experts_per_token},
      {"expert_columns", dims.expert_columns},
      {"shared_expert_columns", dims.shared_expert_columns},
  };
  for (const auto& [name, value] : values) {
    if (value < 1) {
      return absl::InvalidArgumentError(
          absl::StrCat(name, " is ", value, "; a model with sparse layers needs at least 1"));
    }
  }
  if (dims.experts > kMaxExperts || dims.experts_per_token > dims.experts) {
    return absl::InvalidArgumentError(
        absl::StrCat("experts_per_token is ", dims.experts_per_token, " of ", dims.experts,
                     " experts; 1..experts of 1..", kMaxExperts, " are chosen"));
  }
  return absl::OkStatus();
}

absl::Status CheckDims(const ModelDims& dims) {
  const std::pair<StringView, int64_t> values[] = {
      {"hidden", dims.hidden},           {"layers", dims.layers},
      {"query_heads", dims.query_heads}, {"kv_heads", dims.kv_heads},
      {"head_dim", dims.head_dim},       {"ffn_columns", dims.ffn_columns},
      {"vocabulary", dims.vocabulary},   {"weight_bytes", dims.weight_bytes},
      {"kv_bytes", dims.kv_bytes},
  };
  for (const auto& [name, value] : values) {
    if (value < 1) {
      return absl::InvalidArgumentError(absl::StrCat(name, " is ", value, "; it must be >= 1"));
    }
  }
  RETURN_IF_ERROR(CheckExperts(dims));
  if (dims.query_heads > kMaxQueryHeads) {
    return absl::InvalidArgumentError(
        absl::StrCat("query_heads is ", dims.query_heads, "; it must be in 1..", kMaxQueryHeads));
  }
  if (dims.query_heads % dims.kv_heads != 0) {
    return absl::InvalidArgumentError(absl::StrCat(
        "kv_heads is ", dims.kv_heads, "; it must divide query_heads ", dims.query_heads));
  }
  // In floating point, where nothing overflows; a factor 4 covers all matrices of a layer.
  const auto wide = [](int64_t value) { return static_cast<double>(value); };
  const double layer =
      (wide(dims.hidden) + wide(ShardPlan::kPlanContextTokens)) *
      (wide(dims.query_heads) * wide(dims.head_dim) + wide(dims.ffn_columns) +
       wide(dims.experts) * (wide(dims.expert_columns) + 1) + wide(dims.shared_expert_columns) + 1);
  const double bytes = 4 * wide(std::max(dims.weight_bytes, dims.kv_bytes)) *
                       (wide(dims.layers) * layer + wide(dims.hidden) * wide(dims.vocabulary));
  if (bytes > kMaxBytes) {
    return absl::InvalidArgumentError(absl::StrCat("the dimensions describe a model of about ",
                                                   bytes, " bytes; the limit is ", kMaxBytes));
  }
  return absl::OkStatus();
}

absl::Status CheckParallelism(const ModelDims& dims, const Parallelism& parallelism) {
  if (parallelism.tp < 1 || parallelism.tp > dims.query_heads) {
    return absl::InvalidArgumentError(absl::StrCat("tp is ", parallelism.tp, "; a model of ",
                                                   dims.query_heads, " query heads is cut over 1..",
                                                   dims.query_heads, " ranks"));
  }
  const int64_t max_dp = kMaxWorld / parallelism.tp;
  if (parallelism.dp < 1 || parallelism.dp > max_dp) {
    return absl::InvalidArgumentError(
        absl::StrCat("dp is ", parallelism.dp, "; it must be in 1..", max_dp));
  }
  const int world = parallelism.world();
  if (parallelism.ep < 1 || world % parallelism.ep != 0) {
    return absl::InvalidArgumentError(absl::StrCat(
        "ep is ", parallelism.ep, "; it must be >= 1 and divide the world of ", world, " ranks"));
  }
  return absl::OkStatus();
}

RankList Strided(int begin, int count, int stride) {
  RankList ranks;
  for (int i = 0; i < count; ++i) {
    ranks.push_back(begin + i * stride);
  }
  return ranks;
}

void CheckInWorld(const Parallelism& parallelism, int rank) {
  CHECK_GE(rank, 0);
  CHECK_LT(rank, parallelism.world());
}

}  // namespace

RankList TensorGroup(const Parallelism& parallelism, int rank) {
  CheckInWorld(parallelism, rank);
  return Strided(rank - rank % parallelism.tp, parallelism.tp, 1);
}

RankList WorldGroup(const Parallelism& parallelism) { return Strided(0, parallelism.world(), 1); }

RankList DataGroup(const Parallelism& parallelism, int rank) {
  CheckInWorld(parallelism, rank);
  return Strided(rank % parallelism.tp, parallelism.dp, parallelism.tp);
}

RankList ExpertGroup(const Parallelism& parallelism, int rank) {
  CheckInWorld(parallelism, rank);
  CHECK_EQ(parallelism.world() % parallelism.ep, 0);
  const int members = parallelism.world() / parallelism.ep;
  return Strided(rank - rank % members, members, 1);
}

// What the plans of all ranks are read from.
struct ShardPlan::WorldCuts {
  ExpertCuts experts;
  GroupCuts group;
  std::vector<int64_t> bytes;  // read per token, by world rank
  double imbalance = 1;
};

absl::StatusOr<ShardPlan::WorldCuts> ShardPlan::CutWorld(const ModelDims& dims,
                                                         const Parallelism& parallelism) {
  RETURN_IF_ERROR(CheckDims(dims));
  RETURN_IF_ERROR(CheckParallelism(dims, parallelism));
  WorldCuts cuts;
  cuts.experts = CutExperts(dims, parallelism);
  // Data-parallel groups are cut alike, around the fuller of the ranks that take the same place.
  std::vector<int64_t> fullest(parallelism.tp);
  for (int rank = 0; rank < parallelism.world(); ++rank) {
    const int64_t bytes = ExpertReadBytes(dims, cuts.experts.Of(rank));
    cuts.bytes.push_back(bytes);
    fullest[rank % parallelism.tp] = std::max(fullest[rank % parallelism.tp], bytes);
  }
  cuts.group = CutGroup(dims, fullest);
  double sum = 0;
  for (int rank = 0; rank < parallelism.world(); ++rank) {
    const int place = rank % parallelism.tp;
    cuts.bytes[rank] += cuts.group.bytes[place] - fullest[place];
    sum += static_cast<double>(cuts.bytes[rank]);
  }
  const int64_t slowest = *std::max_element(cuts.bytes.begin(), cuts.bytes.end());
  cuts.imbalance = std::max(1.0, static_cast<double>(slowest) * parallelism.world() / sum);
  return cuts;
}

ShardPlan ShardPlan::Of(const WorldCuts& cuts, const ModelDims& dims,
                        const Parallelism& parallelism, int rank) {
  const int place = rank % parallelism.tp;
  ShardPlan plan;
  plan.rank_ = rank;
  plan.dims_ = dims;
  plan.parallelism_ = parallelism;
  plan.query_heads_ = cuts.group.query_heads[place];
  plan.ffn_columns_ = cuts.group.ffn_columns[place];
  plan.shared_expert_columns_ = cuts.group.shared_expert_columns[place];
  plan.vocabulary_ = cuts.group.vocabulary[place];
  plan.vocabulary_parts_ = cuts.group.vocabulary;
  const ExpertShare experts = cuts.experts.Of(rank);
  plan.experts_ = experts.experts;
  plan.expert_columns_ = experts.columns;
  plan.expert_parts_ = cuts.experts.experts;
  const HeadCosts heads = ReadCostsOf(dims).heads;
  plan.kv_heads_ = KvHeadsOf(heads, plan.query_heads_);
  for (int64_t head = plan.query_heads_.begin; head < plan.query_heads_.end; ++head) {
    plan.kv_head_of_query_.push_back(
        static_cast<int32_t>(KvHeadsOf(heads, {head, head + 1}).begin - plan.kv_heads_.begin));
  }
  plan.bytes_per_token_ = cuts.bytes[rank];
  plan.imbalance_ = cuts.imbalance;
  return plan;
}

absl::StatusOr<ShardPlan> ShardPlan::Make(const ModelDims& dims, const Parallelism& parallelism,
                                          int rank) {
  ASSIGN_OR_RETURN(const WorldCuts cuts, CutWorld(dims, parallelism));
  if (rank < 0 || rank >= parallelism.world()) {
    return absl::InvalidArgumentError(
        absl::StrCat("rank is ", rank, "; it must be in 0..", parallelism.world() - 1));
  }
  return Of(cuts, dims, parallelism, rank);
}

absl::StatusOr<std::vector<ShardPlan>> ShardPlan::MakeAll(const ModelDims& dims,
                                                          const Parallelism& parallelism) {
  ASSIGN_OR_RETURN(const WorldCuts cuts, CutWorld(dims, parallelism));
  std::vector<ShardPlan> plans;
  for (int rank = 0; rank < parallelism.world(); ++rank) {
    plans.push_back(Of(cuts, dims, parallelism, rank));
  }
  return plans;
}

int64_t ShardPlan::weight_bytes() const { return WeightPartsOf(*this).total(); }

int64_t ShardPlan::kv_bytes_per_token() const {
  return 2 * dims_.layers * kv_heads_.size() * dims_.head_dim * dims_.kv_bytes;
}

}  // namespace cohort
