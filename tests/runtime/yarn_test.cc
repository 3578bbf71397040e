#include "runtime/yarn.h"

#include <gtest/gtest.h>

#include <cmath>

#include "runtime/json.h"
#include "runtime/model_config.h"
#include "runtime/safetensors.h"

namespace cohort {
namespace {

constexpr double kEpsilon = 0x1p-23;  // of fp32

TEST(InverseFrequencies, FallFromOneByPowersOfTheta) {
  const std::vector<float> frequencies = InverseFrequencies(1e6, 128);
  ASSERT_EQ(frequencies.size(), 64u);
  EXPECT_EQ(frequencies[0], 1.0f);
  for (size_t i = 0; i < frequencies.size(); ++i) {
    const double exact = std::pow(1e6, -2.0 * static_cast<double>(i) / 128);
    // Three roundings; that of the exponent counts ln(theta) times.
    EXPECT_NEAR(frequencies[i], exact, exact * kEpsilon * (2 + std::log(1e6))) << i;
  }
}

YarnScaling By4() {
  YarnScaling yarn;
  yarn.factor = 4;
  yarn.original_positions = 32768;
  yarn.attention_factor = YarnTemperature(4);
  return yarn;
}

struct CheckValue {
  size_t pair;
  double inverse_frequency;
};

// Of Qwen2 with the factor of its model cards, ten digits each.
void ExpectCheckValues(int64_t head_dim, const std::vector<CheckValue>& values) {
  const std::vector<float> frequencies = InverseFrequencies(1e6, head_dim, By4());
  ASSERT_EQ(static_cast<int64_t>(frequencies.size()), head_dim / 2);
  for (const CheckValue& value : values) {
    // As above, and two products and a sum for the mixture.
    const double bound = value.inverse_frequency * kEpsilon * (5 + std::log(1e6));
    EXPECT_NEAR(frequencies[value.pair], value.inverse_frequency, bound) << value.pair;
  }
}

TEST(YarnInverseFrequencies, AreThoseOfQwen2By4) {
  ExpectCheckValues(128, {{0, 1},
                          {1, 0.8058421878},
                          {23, 6.978305849e-3},
                          {24, 5.375321491e-3},
                          {31, 8.029597275e-4},
                          {39, 6.490394321e-5},
                          {40, 4.445698525e-5},
                          {63, 3.102344402e-7}});
  ExpectCheckValues(64, {{11, 8.659643234e-3},
                         {12, 5.154795481e-3},
                         {15, 1.026617684e-3},
                         {19, 9.128065448e-5},
                         {20, 4.445698525e-5},
                         {31, 3.849816315e-7}});
}

TEST(YarnTemperature, GrowsWithTheLogarithmOfTheFactor) {
  EXPECT_NEAR(YarnTemperature(4), 1.138629436, 1e-9);
  EXPECT_NEAR(YarnTemperature(4) * YarnTemperature(4), 1.296476993, 1e-9);
  EXPECT_NEAR(YarnTemperature(2), 1.069314718, 1e-9);
  EXPECT_EQ(YarnTemperature(1), 1);
  EXPECT_EQ(YarnTemperature(0.5), 1);
}

TEST(YarnScaling, MultipliesTheOriginalLength) { EXPECT_EQ(By4().positions(), 131072); }

// tests/golden/make_rope_golden.py wrote configs and what transformers computes from them.
TEST(YarnInverseFrequencies, AreThoseOfTheReferenceForEveryConfig) {
  const std::string path = absl::StrCat(COHORT_SOURCE_DIR, "/tests/golden/rope/golden.json");
  const auto text = ReadFile(path, 1 << 20);
  ASSERT_TRUE(text.ok()) << text.status();
  const auto cases = ParseJson(*text, path);
  ASSERT_TRUE(cases.ok()) << cases.status();
  EXPECT_GE(cases->members().size(), 10u);
  for (const auto& [name, golden] : cases->members()) {
    SCOPED_TRACE(name);
    const auto config = ParseModelConfig(golden.Find("config")->Dump(), name);
    ASSERT_TRUE(config.ok()) << config.status();
    EXPECT_EQ(config->yarn.has_value(), name != "plain");
    const std::vector<float> frequencies =
        config->yarn.has_value()
            ? InverseFrequencies(config->rope_theta, config->head_dim, *config->yarn)
            : InverseFrequencies(config->rope_theta, config->head_dim);
    const std::vector<Json>& expected = golden.Find("inverse_frequencies")->elements();
    ASSERT_EQ(frequencies.size(), expected.size());
    for (size_t i = 0; i < expected.size(); ++i) {
      // Only the powers of theta may differ, by one unit; what follows rounds alike, and cannot
      // make more than two of it.
      EXPECT_NEAR(frequencies[i], *expected[i].AsReal(), 2 * kEpsilon * frequencies[i]) << i;
    }
    EXPECT_DOUBLE_EQ(config->yarn.has_value() ? config->yarn->attention_factor : 1,
                     *golden.Find("attention_factor")->AsReal());
  }
}

}  // namespace
}  // namespace cohort
