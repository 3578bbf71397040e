#include "runtime/tuned_products.h"

#include <gmock/gmock.h>

#include <algorithm>
#include <set>

#include "runtime/model_config.h"
#include "runtime/published_configs.h"

namespace cohort {
namespace {

using ::testing::ElementsAre;

std::vector<ShardPlan> Plans(const char* model, const Parallelism& parallelism) {
  const auto config = ParseModelConfig(PublishedConfig(model), model);
  CHECK_OK(config.status());
  auto plans = ShardPlan::MakeAll(config->Dims(DType::kBF16), parallelism);
  CHECK_OK(plans.status());
  return *std::move(plans);
}

std::vector<ProductShape> Of(const std::vector<ProductShape>& products, int64_t in, int64_t out) {
  std::vector<ProductShape> found;
  std::copy_if(products.begin(), products.end(), std::back_inserter(found),
               [&](const ProductShape& product) { return product.in == in && product.out == out; });
  return found;
}

std::vector<int64_t> TokensOf(const std::vector<ProductShape>& products) {
  std::vector<int64_t> tokens;
  for (const ProductShape& product : products) {
    tokens.push_back(product.tokens);
  }
  return tokens;
}

TEST(TunedProducts, AreThoseOfALayerAndTheHead) {
  const auto products = TunedProductsOf(Plans("Qwen2-7B", {}).front(), DType::kBF16, 512);
  const auto qkv = Of(products, 3584, 4608);
  EXPECT_THAT(TokensOf(qkv), ElementsAre(32, 64, 128, 256, 512));
  EXPECT_TRUE(qkv.front().has_bias);
  EXPECT_EQ(qkv.front().out_dtype, DType::kBF16);
  const auto out = Of(products, 3584, 3584);
  EXPECT_FALSE(out.front().has_bias);
  EXPECT_EQ(out.front().out_dtype, DType::kF32);
  EXPECT_EQ(Of(products, 3584, 37888).size(), 5u);
  EXPECT_EQ(Of(products, 18944, 3584).size(), 5u);
  EXPECT_THAT(TokensOf(Of(products, 3584, 152064)), ElementsAre(32, 64));
  EXPECT_EQ(products.size(), 4 * 5u + 2);
}

TEST(TunedProducts, GoUpToTheLargestStep) {
  const ShardPlan plan = Plans("Qwen2-7B", {}).front();
  EXPECT_THAT(TokensOf(Of(TunedProductsOf(plan, DType::kBF16, 20), 3584, 4608)), ElementsAre(20));
  EXPECT_THAT(TokensOf(Of(TunedProductsOf(plan, DType::kBF16, 100), 3584, 4608)),
              ElementsAre(32, 64, 100));
  EXPECT_EQ(TokensOf(Of(TunedProductsOf(plan, DType::kBF16, 1 << 20), 3584, 4608)).back(), 8192);
}

// Ranks that computed the router by algorithms of their own could choose other experts.
TEST(TunedProducts, LeaveOutTheRouter) {
  for (const ShardPlan& plan : Plans("Qwen2-57B-A14B", {.tp = 4, .dp = 1, .ep = 2})) {
    const auto products = TunedProductsOf(plan, DType::kBF16, 512);
    EXPECT_TRUE(Of(products, 3584, 65).empty());
    EXPECT_TRUE(Of(products, 3584, 64).empty());
    const int64_t shared = plan.shared_expert_columns().size();
    EXPECT_FALSE(Of(products, 3584, 2 * shared).empty());
    EXPECT_FALSE(Of(products, shared, 3584).empty());
  }
}

// Whatever a cut leaves a rank.
TEST(TunedProducts, AreRowsThatALibraryTakesInPiecesOf16Bytes) {
  for (const int tp : {1, 3, 5, 14}) {
    for (const ShardPlan& plan : Plans("Qwen2-0.5B", {.tp = tp})) {
      for (const ProductShape& product : TunedProductsOf(plan, DType::kBF16, 64)) {
        EXPECT_GT(product.out, 0);
        EXPECT_GT(product.in, 0);
        EXPECT_EQ(product.in % 8, 0);
      }
    }
  }
}

}  // namespace
}  // namespace cohort
