#include "kernels/philox.h"

#include <gtest/gtest.h>

namespace cohort {
namespace {

using Words = std::array<uint32_t, 4>;

// The known answers of the Random123 distribution for philox4x32-10.
TEST(Philox, GivesTheKnownAnswers) {
  EXPECT_EQ(Philox4x32({0, 0, 0, 0}, {0, 0}),
            (Words{0x6627e8d5u, 0xe169c58du, 0xbc57ac4cu, 0x9b00dbd8u}));
  constexpr uint32_t kOnes = 0xffffffffu;
  EXPECT_EQ(Philox4x32({kOnes, kOnes, kOnes, kOnes}, {kOnes, kOnes}),
            (Words{0x408f276du, 0x41c83b0eu, 0xa20bc7c6u, 0x6d5451fdu}));
  EXPECT_EQ(
      Philox4x32({0x243f6a88u, 0x85a308d3u, 0x13198a2eu, 0x03707344u}, {0xa4093822u, 0x299f31d0u}),
      (Words{0xd16cfe09u, 0x94fdccebu, 0x5001e420u, 0x24126ea1u}));
}

TEST(Philox, UniformIsBelowOneAndUsesEveryArgument) {
  const float value = PhiloxUniform(7, 1, 100);
  EXPECT_EQ(value, PhiloxUniform(7, 1, 100));
  EXPECT_NE(value, PhiloxUniform(8, 1, 100));
  EXPECT_NE(value, PhiloxUniform(7 + (uint64_t{1} << 32), 1, 100));
  EXPECT_NE(value, PhiloxUniform(7, 2, 100));
  EXPECT_NE(value, PhiloxUniform(7, 1, 101));
  EXPECT_NE(value, PhiloxUniform(7, 1, 100 + (uint64_t{1} << 32)));
  double sum = 0;
  constexpr int kDraws = 10000;
  for (uint64_t position = 0; position < kDraws; ++position) {
    const float uniform = PhiloxUniform(1, 0, position);
    ASSERT_GE(uniform, 0.0f);
    ASSERT_LT(uniform, 1.0f);
    sum += uniform;
  }
  // Six standard errors of the mean of uniform numbers.
  EXPECT_NEAR(sum / kDraws, 0.5, 6 * 0.2887 / 100);
}

}  // namespace
}  // namespace cohort
