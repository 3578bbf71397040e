#include "parallel/rank_order_sum.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "kernels/bfloat16.h"

namespace cohort {
namespace {

TEST(RankOrderSum, AddsInTheOrderOfTheSources) {
  const float large = 1e8f, small = 3.0f, negative = -1e8f;
  const std::vector<const void*> lossy = {&large, &small, &negative};
  const std::vector<const void*> exact = {&large, &negative, &small};
  float sum = 0;
  SumInRankOrder(lossy, DType::kF32, 1, &sum);
  EXPECT_EQ(sum, (large + small) + negative);
  SumInRankOrder(exact, DType::kF32, 1, &sum);
  EXPECT_EQ(sum, 3.0f);
}

TEST(RankOrderSum, BFloat16IsRoundedOnce) {
  // 1 + 2^-8 alone rounds back to 1 (ties to even), so rounding after each addition would lose all.
  const BFloat16 one = BFloat16::FromFloat(1), tiny = BFloat16::FromFloat(0x1p-8f);
  const std::vector<const void*> sources = {&one, &tiny, &tiny};
  BFloat16 sum;
  SumInRankOrder(sources, DType::kBF16, 1, &sum);
  EXPECT_EQ(sum.ToFloat(), 1 + 0x1p-7f);
}

TEST(RankOrderSum, KeepsTheSignOfZeroOfASingleSource) {
  float value = -0.0f;
  const std::vector<const void*> sources = {&value};
  SumInRankOrder(sources, DType::kF32, 1, &value);
  EXPECT_TRUE(std::signbit(value));
}

TEST(RankOrderSum, MayWriteIntoAnySource) {
  for (const size_t target : {0, 1, 2}) {
    std::vector<std::vector<float>> values(3, std::vector<float>(1500));
    for (int i = 0; i < 1500; ++i) {
      values[0][i] = static_cast<float>(i);
      values[1][i] = static_cast<float>(2 * i);
      values[2][i] = 1;
    }
    const std::vector<const void*> sources = {values[0].data(), values[1].data(), values[2].data()};
    SumInRankOrder(sources, DType::kF32, 1500, values[target].data());
    for (int i = 0; i < 1500; ++i) {
      ASSERT_EQ(values[target][i], static_cast<float>(3 * i + 1)) << i;
    }
  }
}

}  // namespace
}  // namespace cohort
