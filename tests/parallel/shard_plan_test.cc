#include "parallel/shard_plan.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <string>
#include <vector>

#include "parallel/expert_cuts.h"
#include "parallel/group_cuts.h"
#include "tests/parallel/model_shapes.h"

namespace cohort {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

// What each rank reads per token of routed experts.
std::vector<int64_t> ExpertBytes(const ModelDims& dims, const Parallelism& parallelism) {
  std::vector<int64_t> bytes;
  for (int rank = 0; rank < parallelism.world(); ++rank) {
    bytes.push_back(ExpertReadBytes(dims, CutExperts(dims, parallelism).Of(rank)));
  }
  return bytes;
}

// Every rank of small groups; of large ones the first, a middle and the last, for time.
void ForEveryWorld(const std::function<void(const GroupCuts&, const ShardPlan&)>& check) {
  for (const Model& model : AllModels()) {
    for (int tp = 1; tp <= model.dims.query_heads; ++tp) {
      const GroupCuts cuts = CutGroup(model.dims, ExpertBytes(model.dims, {.tp = tp}));
      for (int rank = 0; rank < tp; ++rank) {
        if (tp <= 8 || rank == 0 || rank == tp / 2 || rank + 1 == tp) {
          SCOPED_TRACE(testing::Message() << model.name << ", rank " << rank << " of " << tp);
          const absl::StatusOr<ShardPlan> plan = ShardPlan::Make(model.dims, {.tp = tp}, rank);
          ASSERT_TRUE(plan.ok()) << plan.status();
          check(cuts, *plan);
        }
      }
    }
  }
}

TEST(ShardPlan, EveryRankHoldsItsShareOfTheSameCuts) {
  ForEveryWorld([](const GroupCuts& cuts, const ShardPlan& plan) {
    EXPECT_EQ(plan.query_heads(), cuts.query_heads[plan.rank()]);
    EXPECT_EQ(plan.ffn_columns(), cuts.ffn_columns[plan.rank()]);
    EXPECT_EQ(plan.vocabulary(), cuts.vocabulary[plan.rank()]);
    EXPECT_EQ(plan.bytes_per_token(), cuts.bytes[plan.rank()]);
    EXPECT_THAT(plan.vocabulary_parts(), testing::ElementsAreArray(cuts.vocabulary));
  });
}

TEST(ShardPlan, EveryQueryHeadFindsItsKvHead) {
  ForEveryWorld([](const GroupCuts&, const ShardPlan& plan) {
    const int64_t group = plan.dims().query_heads / plan.dims().kv_heads;
    const Range queries = plan.query_heads();
    ASSERT_EQ(static_cast<int64_t>(plan.kv_head_of_query().size()), queries.size());
    for (int64_t local = 0; local < queries.size(); ++local) {
      EXPECT_EQ(plan.kv_heads().begin + plan.kv_head_of_query()[local],
                (queries.begin + local) / group);
    }
    EXPECT_EQ(plan.kv_head_of_query().front(), 0) << "a KV head that nobody uses";
    EXPECT_EQ(plan.kv_head_of_query().back(), plan.kv_heads().size() - 1);
  });
}

TEST(ShardPlan, BytesAreThoseOfTheFormula) {
  ForEveryWorld([](const GroupCuts& cuts, const ShardPlan& plan) {
    const ModelDims& dims = plan.dims();
    const int64_t query_rows = plan.query_heads().size() * dims.head_dim;
    const int64_t kv_rows = 2 * plan.kv_heads().size() * dims.head_dim;
    const int64_t layer =
        query_rows * (2 * dims.hidden + 1) + kv_rows * (dims.hidden + 1) + 2 * dims.hidden;
    const int64_t dense = 3 * dims.hidden * plan.ffn_columns().size();
    const int64_t shared = 3 * dims.hidden * plan.shared_expert_columns().size();
    const int64_t router = (dims.experts + 1) * dims.hidden;
    const int64_t expert = 3 * dims.hidden * plan.expert_columns().size();
    const int64_t table = plan.vocabulary().size() * dims.hidden;
    const int64_t read = dims.layers * layer + dims.dense_layers() * dense +
                         dims.sparse_layers * (shared + router) + table + dims.hidden;
    const int64_t stored = read + (dims.tied_embeddings ? 0 : table) +
                           dims.sparse_layers * plan.experts().size() * expert;
    const int64_t chosen = dims.experts == 0
                               ? 0
                               : dims.sparse_layers * plan.experts().size() * expert *
                                     dims.experts_per_token * dims.weight_bytes / dims.experts;
    EXPECT_EQ(plan.kv_bytes_per_token(), dims.layers * kv_rows * dims.kv_bytes);
    EXPECT_EQ(plan.bytes_per_token(),
              read * dims.weight_bytes + chosen + 4096 * plan.kv_bytes_per_token());
    EXPECT_EQ(plan.weight_bytes(), stored * dims.weight_bytes);

    double sum = 0;
    for (const int64_t bytes : cuts.bytes) {
      sum += static_cast<double>(bytes);
    }
    const double ranks = static_cast<double>(cuts.bytes.size());
    EXPECT_DOUBLE_EQ(plan.imbalance(),
                     std::max(1.0, static_cast<double>(cuts.slowest()) * ranks / sum));
  });
}

TEST(ShardPlan, WeightsOfOneRankAreThoseOfTheCheckpoint) {
  const std::vector<int64_t> bytes = {988065536, 3087428608, 15231233024, 145412407296,
                                      114817317888};
  for (size_t i = 0; i < bytes.size(); ++i) {
    const auto plan = ShardPlan::Make(PublishedModels()[i].dims, {}, 0);
    ASSERT_TRUE(plan.ok()) << plan.status();
    EXPECT_EQ(plan->weight_bytes(), bytes[i]);
    EXPECT_EQ(plan->imbalance(), 1);
  }
}

TEST(ShardPlan, TwentyEightHeadsOnEightRanksAreThreeOrFourWithOneKvHeadEach) {
  for (int rank = 0; rank < 8; ++rank) {
    const auto plan = ShardPlan::Make(PublishedModels()[2].dims, {.tp = 8}, rank);
    ASSERT_TRUE(plan.ok()) << plan.status();
    EXPECT_THAT(plan->query_heads().size(), testing::AnyOf(3, 4));
    EXPECT_EQ(plan->kv_heads().size(), 1);
    EXPECT_LT(plan->imbalance(), 1.001);
  }
}

// Does the world hold each column of a sparse layer's routed experts once?
bool ExpertColumnsAreHeldOnce(const std::vector<ShardPlan>& plans) {
  const ModelDims& dims = plans.front().dims();
  std::vector<int> copies(dims.experts * dims.expert_columns);
  for (const ShardPlan& plan : plans) {
    for (int64_t expert = plan.experts().begin; expert < plan.experts().end; ++expert) {
      for (int64_t i = plan.expert_columns().begin; i < plan.expert_columns().end; ++i) {
        ++copies[expert * dims.expert_columns + i];
      }
    }
  }
  return std::all_of(copies.begin(), copies.end(), [](int count) { return count == 1; });
}

void ForEveryExpertLayout(const std::function<void(const std::vector<ShardPlan>&)>& check) {
  for (const Model& model : AllModels()) {
    for (int tp = 1; model.dims.experts > 0 && tp <= model.dims.query_heads; ++tp) {
      for (const int dp : {1, 2, 3}) {
        for (int ep = 1; ep <= tp * dp; ++ep) {
          if (tp * dp % ep == 0 && (dp == 1 || tp <= 6)) {
            SCOPED_TRACE(testing::Message()
                         << model.name << ", tp " << tp << ", dp " << dp << ", ep " << ep);
            const auto plans = ShardPlan::MakeAll(model.dims, {.tp = tp, .dp = dp, .ep = ep});
            ASSERT_TRUE(plans.ok()) << plans.status();
            check(*plans);
          }
        }
      }
    }
  }
}

TEST(ShardPlan, ExpertsAreTiledOnceByTheWorldAndTheRestByEveryTensorGroup) {
  ForEveryExpertLayout([](const std::vector<ShardPlan>& plans) {
    const Parallelism& parallelism = plans.front().parallelism();
    EXPECT_TRUE(ExpertColumnsAreHeldOnce(plans));
    for (int group = 0; group < parallelism.dp; ++group) {
      int64_t shared = 0;
      int64_t ffn = 0;
      for (int rank = group * parallelism.tp; rank < (group + 1) * parallelism.tp; ++rank) {
        EXPECT_EQ(plans[rank].shared_expert_columns().begin, shared);
        EXPECT_EQ(plans[rank].ffn_columns().begin, ffn);
        shared = plans[rank].shared_expert_columns().end;
        ffn = plans[rank].ffn_columns().end;
      }
      EXPECT_EQ(shared, plans.front().dims().shared_expert_columns);
      EXPECT_EQ(ffn,
                plans.front().dims().dense_layers() > 0 ? plans.front().dims().ffn_columns : 0);
    }
  });
}

TEST(ShardPlan, ExpertGroupsDifferByAtMostOneExpertAndKnowEachOther) {
  ForEveryExpertLayout([](const std::vector<ShardPlan>& plans) {
    const Parallelism& parallelism = plans.front().parallelism();
    const int64_t least = plans.front().dims().experts / parallelism.ep;
    for (const ShardPlan& plan : plans) {
      ASSERT_EQ(static_cast<int>(plan.expert_parts().size()), parallelism.ep);
      EXPECT_GE(plan.experts().size(), least);
      EXPECT_LE(plan.experts().size(), least + 1);
      const int group = plan.rank() / (parallelism.world() / parallelism.ep);
      EXPECT_EQ(plan.expert_parts()[group], plan.experts());
      EXPECT_EQ(ExpertGroup(parallelism, plan.rank()).front(),
                group * (parallelism.world() / parallelism.ep));
    }
  });
}

TEST(ShardPlan, EveryRankOfAllIsTheOneMadeAlone) {
  const ModelDims dims = PublishedModels()[4].dims;
  for (const Parallelism& parallelism :
       {Parallelism{.tp = 6, .dp = 1, .ep = 3}, Parallelism{.tp = 3, .dp = 2, .ep = 2}}) {
    const auto all = ShardPlan::MakeAll(dims, parallelism);
    ASSERT_TRUE(all.ok()) << all.status();
    for (int rank = 0; rank < parallelism.world(); ++rank) {
      const auto plan = ShardPlan::Make(dims, parallelism, rank);
      ASSERT_TRUE(plan.ok()) << plan.status();
      EXPECT_EQ(plan->rank(), rank);
      EXPECT_EQ((*all)[rank].experts(), plan->experts());
      EXPECT_EQ((*all)[rank].query_heads(), plan->query_heads());
      EXPECT_EQ((*all)[rank].bytes_per_token(), plan->bytes_per_token());
      EXPECT_EQ((*all)[rank].imbalance(), plan->imbalance());
    }
  }
}

TEST(ShardPlan, SixtyFourExpertsOnThreeGroupsAreLevelledByTheSharedExpert) {
  const ModelDims dims = PublishedModels()[4].dims;
  for (const Parallelism& parallelism :
       {Parallelism{.tp = 3, .ep = 3}, Parallelism{.tp = 6, .ep = 6}, Parallelism{.tp = 6, .ep = 3},
        Parallelism{.tp = 28, .ep = 1}, Parallelism{.tp = 8, .ep = 8}}) {
    const auto plans = ShardPlan::MakeAll(dims, parallelism);
    ASSERT_TRUE(plans.ok()) << plans.status();
    EXPECT_LT(plans->front().imbalance(), 1.002) << parallelism.tp << ", " << parallelism.ep;
  }
  const auto first = ShardPlan::Make(dims, {.tp = 3, .ep = 3}, 0);
  const auto last = ShardPlan::Make(dims, {.tp = 3, .ep = 3}, 2);
  ASSERT_TRUE(first.ok() && last.ok());
  EXPECT_EQ(first->experts(), (Range{0, 22}));
  EXPECT_EQ(last->experts(), (Range{43, 64}));
}

TEST(ShardPlan, DataParallelRanksHoldTheSameCuts) {
  const ModelDims dims = PublishedModels()[0].dims;
  const Parallelism parallelism = {.tp = 3, .dp = 2};
  for (int rank = 0; rank < 3; ++rank) {
    const auto first = ShardPlan::Make(dims, parallelism, rank);
    const auto second = ShardPlan::Make(dims, parallelism, rank + 3);
    ASSERT_TRUE(first.ok() && second.ok());
    EXPECT_EQ(second->rank(), rank + 3);
    EXPECT_EQ(first->query_heads(), second->query_heads());
    EXPECT_EQ(first->ffn_columns(), second->ffn_columns());
    EXPECT_EQ(first->vocabulary(), second->vocabulary());
  }
}

TEST(ShardPlan, GroupsAreListsOfWorldRanks) {
  const Parallelism parallelism = {.tp = 2, .dp = 3, .ep = 2};
  EXPECT_THAT(WorldGroup(parallelism), ElementsAre(0, 1, 2, 3, 4, 5));
  EXPECT_THAT(TensorGroup(parallelism, 3), ElementsAre(2, 3));
  EXPECT_THAT(DataGroup(parallelism, 3), ElementsAre(1, 3, 5));
  EXPECT_THAT(ExpertGroup(parallelism, 4), ElementsAre(3, 4, 5));
}

struct Refusal {
  std::function<void(ModelDims&, Parallelism&, int&)> spoil;
  std::string message;
};

TEST(ShardPlan, RefusesValuesOutsideTheirRangeByName) {
  const std::vector<Refusal> refusals = {
      {[](ModelDims&, Parallelism& p, int&) { p.tp = 29; },
       "tp is 29; a model of 28 query heads is cut over 1..28 ranks"},
      {[](ModelDims&, Parallelism& p, int&) { p.tp = 0; }, "tp is 0"},
      {[](ModelDims&, Parallelism& p, int&) { p.dp = 0; }, "dp is 0"},
      {[](ModelDims&, Parallelism& p, int&) { p.dp = 2'000'000'000; }, "dp is 2000000000"},
      {[](ModelDims&, Parallelism& p, int&) { p.ep = 3; },
       "ep is 3; it must be >= 1 and divide the world of 2 ranks"},
      {[](ModelDims&, Parallelism& p, int&) { p.ep = 0; }, "ep is 0"},
      {[](ModelDims&, Parallelism&, int& rank) { rank = 2; }, "rank is 2; it must be in 0..1"},
      {[](ModelDims&, Parallelism&, int& rank) { rank = -1; }, "rank is -1"},
      {[](ModelDims& d, Parallelism&, int&) { d.kv_heads = 5; },
       "kv_heads is 5; it must divide query_heads 28"},
      {[](ModelDims& d, Parallelism&, int&) { d.hidden = 0; }, "hidden is 0; it must be >= 1"},
      {[](ModelDims& d, Parallelism&, int&) { d.vocabulary = -7; }, "vocabulary is -7"},
      {[](ModelDims& d, Parallelism&, int&) { d.kv_bytes = 0; }, "kv_bytes is 0"},
      {[](ModelDims& d, Parallelism&, int&) { d.query_heads = 4000; },
       "query_heads is 4000; it must be in 1..1024"},
      {[](ModelDims& d, Parallelism&, int&) { d.sparse_layers = 29; },
       "sparse_layers is 29; it must be in 0..28"},
      {[](ModelDims& d, Parallelism&, int&) { d.sparse_layers = 1; },
       "experts is 0; a model with sparse layers needs at least 1"},
      {[](ModelDims& d, Parallelism&, int&) { d = WithExperts(d, 4, 5, 8, 8, 1); },
       "experts_per_token is 5 of 4 experts"},
      {[](ModelDims& d, Parallelism&, int&) { d = WithExperts(d, 60000, 5, INT64_MAX / 2, 8, 1); },
       "the limit is 1e+18"},
      {[](ModelDims& d, Parallelism&, int&) { d.hidden = INT64_MAX; }, "the limit is 1e+18"},
      {[](ModelDims& d, Parallelism&, int&) { d.layers = int64_t{1} << 50; }, "the limit is"},
  };
  for (const Refusal& refusal : refusals) {
    ModelDims dims = PublishedModels()[2].dims;
    Parallelism parallelism = {.tp = 2};
    int rank = 0;
    refusal.spoil(dims, parallelism, rank);
    const absl::Status status = ShardPlan::Make(dims, parallelism, rank).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(status.message()), HasSubstr(refusal.message));
  }
}

}  // namespace
}  // namespace cohort
