#include "parallel/shard_plan.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <string>
#include <vector>

#include "parallel/group_cuts.h"
#include "tests/parallel/model_shapes.h"

namespace cohort {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

// Every rank of small groups; of large ones the first, a middle and the last, for time.
void ForEveryWorld(const std::function<void(const GroupCuts&, const ShardPlan&)>& check) {
  for (const Model& model : AllModels()) {
    for (int tp = 1; tp <= model.dims.query_heads; ++tp) {
      const GroupCuts cuts = CutGroup(model.dims, tp);
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
    const int64_t layer = query_rows * (2 * dims.hidden + 1) + kv_rows * (dims.hidden + 1) +
                          3 * dims.hidden * plan.ffn_columns().size() + 2 * dims.hidden;
    const int64_t table = plan.vocabulary().size() * dims.hidden;
    const int64_t read = dims.layers * layer + table + dims.hidden;
    const int64_t stored = read + (dims.tied_embeddings ? 0 : table);
    EXPECT_EQ(plan.kv_bytes_per_token(), dims.layers * kv_rows * dims.kv_bytes);
    EXPECT_EQ(plan.bytes_per_token(), read * dims.weight_bytes + 4096 * plan.kv_bytes_per_token());
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
  const std::vector<int64_t> bytes = {988065536, 3087428608, 15231233024, 145412407296};
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
