#include "runtime/feed_forward.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>

#include "tests/runtime/checkpoint_writer.h"

namespace cohort {
namespace {

constexpr int64_t kRows = 7;
constexpr FeedForwardOptions kOptions = {.act = DType::kF32, .max_tokens = kRows};

// Layers 0 and 2 dense, 1 and 3 sparse.
ModelConfig ExpertsConfig() {
  ModelConfig config = TinyConfig({.layers = 4});
  config.experts = 5;
  config.experts_per_token = 3;
  config.expert_columns = 12;
  config.shared_expert_columns = 20;
  config.normalize_expert_weights = true;
  config.sparse_step = 2;
  return config;
}

class FeedForwardTest : public testing::Test {
 protected:
  FeedForwardTest() {
    auto device = Device::Create(DeviceOptions{});
    CHECK_OK(device.status());
    device_ = *std::move(device);
    normed_ = Make({kRows, config_.hidden});
    std::mt19937 random(1);
    for (float& value : Values(normed_)) {
      value = std::uniform_real_distribution<float>(-kLargest, kLargest)(random);
    }
  }

  Tensor Make(Shape shape) {
    auto tensor = device_->Allocate(shape, DType::kF32);
    CHECK_OK(tensor.status());
    return *std::move(tensor);
  }
  static absl::Span<float> Values(const Tensor& tensor) {
    return {tensor.view().As<float>(), static_cast<size_t>(tensor.view().shape.elements())};
  }

  // This rank's part of the layer's sum over ranks, for the first `rows` rows.
  std::vector<float> Part(const Parallelism& parallelism, int rank, size_t layer, int64_t rows) {
    const auto plan = ShardPlan::Make(config_.Dims(DType::kF32), parallelism, rank);
    CHECK_OK(plan.status());
    const auto source = MakeDummySource();
    const auto weights = LoadWeights(config_, *plan, *source, DType::kF32, *device_, nullptr);
    CHECK_OK(weights.status());
    const auto ffn = FeedForward::Create(config_, *plan, kOptions, *device_);
    CHECK_OK(ffn.status());
    const Tensor partial = Make({rows, config_.hidden});
    ffn->Run(weights->layers[layer], normed_.view().Rows(0, rows), partial.view(),
             *MakeSelfCommunicator(), {});
    const absl::Span<float> values = Values(partial);
    return {values.begin(), values.end()};
  }

  static constexpr float kLargest = 3;
  const ModelConfig config_ = ExpertsConfig();
  std::unique_ptr<Device> device_;
  Tensor normed_;
};

// Activations are the same at every cut; the sums behind them are taken in another order. Dummy
// weights stay below 0.035, which bounds an activation, and with it the products of a sum.
TEST_F(FeedForwardTest, ThePartsOfAllRanksSumToTheWhole) {
  const double product = static_cast<double>(config_.hidden) * kLargest * 0.035;
  const double columns = 3 * 12 + 20;
  const double bound = (columns + 10) * 0x1p-24 * columns * product * product * 0.035;
  for (const size_t layer : {0, 1}) {
    const std::vector<float> whole = Part({}, 0, layer, kRows);
    for (const auto& [tp, ep] : {std::pair(2, 1), {2, 2}, {3, 3}, {3, 1}}) {
      SCOPED_TRACE(absl::StrCat("layer ", layer, ", tp ", tp, ", ep ", ep));
      std::vector<double> sum(whole.size());
      for (int rank = 0; rank < tp; ++rank) {
        const std::vector<float> part = Part({.tp = tp, .ep = ep}, rank, layer, kRows);
        std::transform(sum.begin(), sum.end(), part.begin(), sum.begin(), std::plus<>());
      }
      for (size_t i = 0; i < whole.size(); ++i) {
        ASSERT_NEAR(sum[i], whole[i], bound);
      }
      EXPECT_GT(std::abs(*std::max_element(whole.begin(), whole.end())), 20 * bound);
    }
  }
}

TEST_F(FeedForwardTest, RowsDoNotDependOnTheBatch) {
  for (const size_t layer : {2, 3}) {
    std::vector<float> whole = Part({}, 0, layer, kRows);
    whole.resize(static_cast<size_t>(2 * config_.hidden));
    EXPECT_EQ(Part({}, 0, layer, 2), whole);
  }
}

// More ranks than experts: some have none, and still their part of the shared one.
TEST_F(FeedForwardTest, ARankWithoutExpertsAddsItsShareOfTheSharedOneAndCountsAll) {
  ModelConfig config = config_;
  config.experts = 2;
  config.experts_per_token = 1;
  const auto plan = ShardPlan::Make(config.Dims(DType::kF32), {.tp = 3, .ep = 3}, 2);
  ASSERT_TRUE(plan.ok()) << plan.status();
  ASSERT_EQ(plan->experts().size(), 0);
  const auto source = MakeDummySource();
  const auto weights = LoadWeights(config, *plan, *source, DType::kF32, *device_, nullptr);
  ASSERT_TRUE(weights.ok()) << weights.status();
  const auto ffn = FeedForward::Create(config, *plan, kOptions, *device_);
  ASSERT_TRUE(ffn.ok()) << ffn.status();
  const Tensor partial = Make({kRows, config.hidden});
  ffn->Run(weights->layers[1], normed_.view(), partial.view(), *MakeSelfCommunicator(), {});
  EXPECT_GT(std::abs(Values(partial)[0]), 0);
  ASSERT_EQ(ffn->expert_hits().shape, (Shape{2, 2}));
  const int32_t* const hits = ffn->expert_hits().As<int32_t>();
  EXPECT_EQ(hits[0] + hits[1], kRows) << "of the layer that ran";
  EXPECT_EQ(hits[2] + hits[3], 0) << "of the other one";
}

TEST_F(FeedForwardTest, WorkspaceBytesAreThoseOfItsTensors) {
  // Per row: activations for 3 pairs of 12 columns, which is more than the shared expert's 20;
  // gate and up twice that; six logits, three ids with weights, one row of results. And the counts.
  const auto plan = ShardPlan::Make(config_.Dims(DType::kBF16), {}, 0);
  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_EQ(FeedForward::WorkspaceBytes(config_, *plan, {.max_tokens = 10}),
            10 * (2 * 3 * 36 + 2 * 6 + 8 * 3 + 4 * 24) + 4 * 2 * 5);
  ModelConfig dense = TinyConfig({});
  const auto dense_plan = ShardPlan::Make(dense.Dims(DType::kBF16), {}, 0);
  ASSERT_TRUE(dense_plan.ok()) << dense_plan.status();
  EXPECT_EQ(FeedForward::WorkspaceBytes(dense, *dense_plan, {.max_tokens = 10}), 10 * 2 * 3 * 10);
}

}  // namespace
}  // namespace cohort
