#include "kernels/cpu/lanes.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "tests/kernels/host_tensor.h"

namespace cohort {
namespace {

constexpr int64_t kRows = 4;

template <class T>
struct DotKernel {
  COHORT_CPU_INLINE static void Run(const std::vector<T>& row, const std::vector<float>& x,
                                    int64_t stride, float (&four)[kRows], float (&one)[1]) {
    const int64_t columns = static_cast<int64_t>(row.size());
    lanes::Dot<kRows>(row.data(), columns, x.data(), stride, four);
    lanes::Dot<1>(row.data(), columns, x.data() + stride, stride, one);
  }
};

template <class T>
struct AddScaledKernel {
  COHORT_CPU_INLINE static void Run(const std::vector<T>& row, float factor,
                                    std::vector<float>& sums) {
    lanes::AddScaled(row.data(), static_cast<int64_t>(row.size()), factor, sums.data());
  }
};

// Both instruction sets, where the machine has both.
std::vector<bool> InstructionSets() {
  return lanes::HasAvx2() ? std::vector<bool>{false, true} : std::vector<bool>{false};
}

template <class T>
std::vector<T> RandomRow(std::mt19937_64& random, int64_t columns) {
  std::vector<T> row;
  for (const double value : RandomNormal(random, DTypeOf<T>(), Shape{columns}).values) {
    row.push_back(FromFloat<T>(static_cast<float>(value)));
  }
  return row;
}

// Rows of fp32, each followed by zeros up to the stride.
std::vector<float> PaddedRows(std::mt19937_64& random, int64_t columns, int64_t stride) {
  std::vector<float> rows;
  for (int64_t j = 0; j < kRows; ++j) {
    const std::vector<float> row = RandomRow<float>(random, columns);
    rows.insert(rows.end(), row.begin(), row.end());
    rows.resize(static_cast<size_t>((j + 1) * stride), 0.0f);
  }
  return rows;
}

template <class T>
void ExpectDotsMatch(bool has_avx2, int64_t columns) {
  std::mt19937_64 random(static_cast<uint64_t>(columns));
  const std::vector<T> row = RandomRow<T>(random, columns);
  const int64_t stride = lanes::PaddedToLanes(columns);
  const std::vector<float> x = PaddedRows(random, columns, stride);
  float four[kRows];
  float one[1];
  lanes::Run<DotKernel<T>>(has_avx2, row, x, stride, four, one);
  EXPECT_EQ(four[1], one[0]) << columns << " columns";
  for (int64_t j = 0; j < kRows; ++j) {
    double sum = 0;
    double magnitude = 0;
    for (int64_t k = 0; k < columns; ++k) {
      const double product = double{ToFloat(row[static_cast<size_t>(k)])} *
                             double{x[static_cast<size_t>(j * stride + k)]};
      sum += product;
      magnitude += std::abs(product);
    }
    EXPECT_NEAR(four[j], sum, static_cast<double>(columns + 1) * kFloatUnit * magnitude);
  }
}

TEST(Lanes, DotsMatchOnEveryInstructionSet) {
  for (const bool has_avx2 : InstructionSets()) {
    SCOPED_TRACE(has_avx2);
    for (const int64_t columns : {0, 1, 7, 8, 15, 16, 17, 48, 100}) {
      ExpectDotsMatch<float>(has_avx2, columns);
      ExpectDotsMatch<BFloat16>(has_avx2, columns);
    }
  }
}

TEST(Lanes, AddScaledTouchesEveryColumnOnce) {
  for (const bool has_avx2 : InstructionSets()) {
    for (const int64_t columns : {0, 1, 8, 13, 64}) {
      std::mt19937_64 random(static_cast<uint64_t>(columns));
      const std::vector<BFloat16> row = RandomRow<BFloat16>(random, columns);
      std::vector<float> sums(row.size() + 1, 2.0f);
      lanes::Run<AddScaledKernel<BFloat16>>(has_avx2, row, 0.5f, sums);
      for (size_t k = 0; k < row.size(); ++k) {
        // Halving is exact, so the sum is rounded once with and without a fused multiply-add.
        EXPECT_EQ(sums[k], 2.0f + 0.5f * row[k].ToFloat());
      }
      EXPECT_EQ(sums.back(), 2.0f);
    }
  }
}

}  // namespace
}  // namespace cohort
