#include "parallel/weight_parts.h"

#include <gtest/gtest.h>

#include "tests/parallel/model_shapes.h"

namespace cohort {
namespace {

WeightParts PartsOf(const ModelDims& dims, const Parallelism& parallelism, int rank) {
  const auto plan = ShardPlan::Make(dims, parallelism, rank);
  EXPECT_TRUE(plan.ok()) << plan.status();
  return WeightPartsOf(*plan);
}

TEST(WeightParts, OfTheSevenBillion) {
  const WeightParts parts = PartsOf(PublishedModels()[2].dims, {}, 0);
  EXPECT_EQ(parts.embedding, 152064 * 3584 * 2);
  EXPECT_EQ(parts.head, parts.embedding);
  EXPECT_EQ(parts.attention, 28 * ((2 * 3584 + 2 * 512) * 3584 + 3584 + 2 * 512) * 2);
  EXPECT_EQ(parts.dense_ffn, int64_t{28} * 3 * 18944 * 3584 * 2);
  EXPECT_EQ(parts.norms, (2 * 28 + 1) * 3584 * 2);
  EXPECT_EQ(parts.experts + parts.shared_expert + parts.router, 0);
  EXPECT_EQ(parts.total(), 15'231'233'024);
}

TEST(WeightParts, OfTheMixtureOfExperts) {
  const WeightParts parts = PartsOf(PublishedModels()[4].dims, {}, 0);
  EXPECT_EQ(parts.experts, int64_t{28} * 64 * 3 * 2560 * 3584 * 2);
  EXPECT_EQ(parts.shared_expert, int64_t{28} * 3 * 20480 * 3584 * 2);
  EXPECT_EQ(parts.router, 28 * (64 + 1) * 3584 * 2);
  EXPECT_EQ(parts.dense_ffn, 0);
  EXPECT_EQ(parts.total(), 114'817'317'888);
}

TEST(WeightParts, ATiedHeadIsTheEmbedding) {
  const WeightParts parts = PartsOf(PublishedModels()[0].dims, {}, 0);
  EXPECT_EQ(parts.embedding, 151936 * 896 * 2);
  EXPECT_EQ(parts.head, 0);
}

TEST(WeightParts, CutPartsOfAllRanksAreThoseOfOne) {
  for (const Model& model : AllModels()) {
    SCOPED_TRACE(model.name);
    const WeightParts whole = PartsOf(model.dims, {}, 0);
    for (int tp = 1; tp <= std::min<int64_t>(model.dims.query_heads, 5); ++tp) {
      WeightParts sum;
      for (int rank = 0; rank < tp; ++rank) {
        const WeightParts parts = PartsOf(model.dims, {.tp = tp}, rank);
        sum.embedding += parts.embedding;
        sum.dense_ffn += parts.dense_ffn;
        sum.experts += parts.experts;
        sum.shared_expert += parts.shared_expert;
        sum.head += parts.head;
        EXPECT_EQ(parts.norms, whole.norms);
        EXPECT_EQ(parts.router, whole.router);
      }
      EXPECT_EQ(sum.embedding, whole.embedding);
      EXPECT_EQ(sum.dense_ffn, whole.dense_ffn);
      EXPECT_EQ(sum.experts, whole.experts);
      EXPECT_EQ(sum.shared_expert, whole.shared_expert);
      EXPECT_EQ(sum.head, whole.head);
    }
  }
}

}  // namespace
}  // namespace cohort
