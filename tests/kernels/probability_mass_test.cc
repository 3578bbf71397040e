#include "kernels/probability_mass.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <numeric>
#include <random>
#include <vector>

namespace cohort {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

std::vector<uint64_t> Masses(const MassScale& scale, const std::vector<float>& logits) {
  std::vector<uint64_t> masses(logits.size());
  scale.Masses(logits, masses.data());
  return masses;
}

TEST(ProbabilityMass, IsTheExponentialWithinItsError) {
  std::mt19937_64 random(3);
  std::normal_distribution<float> normal(0, 8);
  std::vector<float> logits(4097);
  for (float& logit : logits) {
    logit = std::min(normal(random), 30.0f);
  }
  for (const float temperature : {0.01f, 0.7f, 1.0f, 40.0f}) {
    const std::vector<uint64_t> masses = Masses(MassScale(30, temperature, -kInfinity), logits);
    for (size_t i = 0; i < logits.size(); ++i) {
      const double mass = std::exp((double{logits[i]} - 30) / double{temperature}) *
                          static_cast<double>(kMassOfLargest);
      ASSERT_NEAR(static_cast<double>(masses[i]), mass, 0.5 + 2 * kMassError * mass) << logits[i];
    }
  }
}

TEST(ProbabilityMass, OfTheLargestIsOneWhateverTheTemperature) {
  for (const float temperature : {1e-45f, 1.0f, 3e38f}) {
    for (const float largest : {-2.0f, 0.0f, kInfinity}) {
      const MassScale scale(largest, temperature, -kInfinity);
      EXPECT_EQ(Masses(scale, {largest, -kInfinity}), (std::vector<uint64_t>{kMassOfLargest, 0}));
    }
  }
  EXPECT_EQ(Masses(MassScale(kInfinity, 1, -kInfinity), {1e38f}), std::vector<uint64_t>{0});
}

TEST(ProbabilityMass, BelowTheLowestIsNone) {
  EXPECT_EQ(Masses(MassScale(1, 5, 0.5f), {0.49f, 0.5f, 1, -9})[0], 0u);
  EXPECT_GT(Masses(MassScale(1, 5, 0.5f), {0.49f, 0.5f, 1, -9})[1], 0u);
}

TEST(ProbabilityMass, SumsAndPicksAgreeWithTheMasses) {
  std::mt19937_64 random(5);
  for (const size_t count : {1u, 3u, 8u, 1023u, 1024u, 2500u}) {
    std::vector<float> logits(count);
    for (float& logit : logits) {
      logit = -static_cast<float>(random() % 20);
    }
    const MassScale scale(0, 1, -15);
    const std::vector<uint64_t> masses = Masses(scale, logits);
    const uint64_t total = std::accumulate(masses.begin(), masses.end(), uint64_t{0});
    EXPECT_EQ(scale.Sum(logits), total);
    uint64_t before = 0;
    for (size_t i = 0; i < count; ++i) {
      if (masses[i] > 0 && (i % 97 == 0 || i + 1 == count)) {
        EXPECT_EQ(scale.Pick(logits, before), static_cast<int64_t>(i));
        EXPECT_EQ(scale.Pick(logits, before + masses[i] - 1), static_cast<int64_t>(i));
      }
      before += masses[i];
    }
  }
}

// One number for every machine, with AVX2 or without: tokens must not depend on it.
TEST(ProbabilityMass, HasTheSameBitsEverywhere) {
  std::mt19937 random(1);
  std::vector<float> logits(20000);
  for (float& logit : logits) {
    logit = -static_cast<float>(random()) * 0x1p-27f;
  }
  uint64_t hash = 0xcbf29ce484222325u;
  for (const uint64_t mass : Masses(MassScale(0, 0.9f, -kInfinity), logits)) {
    hash = (hash ^ mass) * 0x100000001b3u;
  }
  EXPECT_EQ(hash, 0xb02875de2efcb6dau);
}

// What a kernel computes for one logit is what the vectors compute for many.
TEST(ProbabilityMass, OneLogitHasTheMassThatItHasAmongOthers) {
  std::mt19937_64 random(8);
  std::vector<float> logits(5003);
  for (float& logit : logits) {
    logit = std::bit_cast<float>(static_cast<uint32_t>(random()));  // of any size
    logit = std::isnan(logit) ? kInfinity : logit;
  }
  for (const float temperature : {1e-45f, 0.7f, 3e38f}) {
    for (const float lowest : {-kInfinity, -1.0f}) {
      for (const float largest : {*std::max_element(logits.begin(), logits.end()), 1e37f}) {
        const std::vector<uint64_t> masses =
            Masses(MassScale(largest, temperature, lowest), logits);
        for (size_t i = 0; i < logits.size(); ++i) {
          if (logits[i] <= largest) {
            ASSERT_EQ(MassOfLogit(MassRule(largest, temperature, lowest), logits[i]), masses[i])
                << logits[i] << " at " << temperature;
          }
        }
      }
    }
  }
}

TEST(ProbabilityMass, LogarithmsAreExactToSomeUnits) {
  std::mt19937_64 random(9);
  EXPECT_EQ(Logarithm(1), 0);
  for (int i = 0; i < 20000; ++i) {
    const double x = std::ldexp(1 + 0x1p-52 * static_cast<double>(random() >> 12),
                                static_cast<int>(random() % 300) - 150);
    ASSERT_NEAR(Logarithm(x), std::log(x), 4 * 0x1p-53 * std::abs(std::log(x)) + 1e-18) << x;
  }
}

TEST(ProbabilityMass, AWantedPartIsRoundedUp) {
  EXPECT_EQ(RoundedUp(0), 0u);
  EXPECT_EQ(RoundedUp(3), 3u);
  EXPECT_EQ(RoundedUp(3.25), 4u);
  EXPECT_EQ(RoundedUp(0x1p62), uint64_t{1} << 62);
}

TEST(ProbabilityMass, APartIsRoundedDown) {
  EXPECT_EQ(PartOfMass(uint64_t{1} << 63, 0xffffff), 0xffffffu * (uint64_t{1} << 39));
  EXPECT_EQ(PartOfMass(3, 0xffffff), 2u);
  EXPECT_EQ(PartOfMass(12345, 0), 0u);
}

}  // namespace
}  // namespace cohort
