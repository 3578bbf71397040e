#include "kernels/bfloat16.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

namespace cohort {
namespace {

constexpr uint32_t kPatterns = 1u << 16;

TEST(BFloat16, EveryPatternSurvivesTheWayThroughFloat) {
  for (uint32_t bits = 0; bits < kPatterns; ++bits) {
    const BFloat16 value{static_cast<uint16_t>(bits)};
    const BFloat16 back = BFloat16::FromFloat(value.ToFloat());
    if (std::isnan(value.ToFloat())) {
      ASSERT_TRUE(std::isnan(back.ToFloat())) << bits;
      ASSERT_EQ(back.bits, bits | 0x40u);
    } else {
      ASSERT_EQ(back.bits, bits);
    }
  }
}

TEST(BFloat16, RoundsToNearestAndTiesToEven) {
  // 0x7f7f is the largest finite value; half a step beyond it rounds to infinity.
  for (uint32_t bits = 0; bits < 0x7f80u; ++bits) {
    for (const uint32_t sign : {0u, 0x8000u}) {
      const uint32_t low = bits | sign;
      const uint32_t even = low + (low & 1u);
      const auto rounded = [low](uint32_t fraction) {
        return uint32_t{BFloat16::FromFloat(std::bit_cast<float>((low << 16) + fraction)).bits};
      };
      ASSERT_EQ(rounded(0x7fff), low);
      ASSERT_EQ(rounded(0x8000), even);
      ASSERT_EQ(rounded(0x8001), low + 1);
    }
  }
}

TEST(BFloat16, NaNWithItsPayloadInTheLowBitsStaysNaN) {
  for (const uint32_t word : {0x7f800001u, 0xff800001u, 0x7fffffffu, 0xffffffffu}) {
    EXPECT_TRUE(std::isnan(Rounded<BFloat16>(std::bit_cast<float>(word)))) << word;
  }
}

TEST(Half, EveryPatternReadsExactly) {
  for (uint32_t bits = 0; bits < kPatterns; ++bits) {
    const int exponent = static_cast<int>((bits >> 10) & 31);
    const double mantissa = bits & 1023;
    double magnitude =
        exponent == 0 ? std::ldexp(mantissa, -24) : std::ldexp(1024 + mantissa, exponent - 25);
    if (exponent == 31) {
      magnitude = mantissa == 0 ? std::numeric_limits<double>::infinity()
                                : std::numeric_limits<double>::quiet_NaN();
    }
    const float actual = HalfToFloat(static_cast<uint16_t>(bits));
    ASSERT_EQ(std::signbit(actual), bits >= 0x8000u) << bits;
    if (std::isnan(magnitude)) {
      ASSERT_TRUE(std::isnan(actual)) << bits;
    } else {
      ASSERT_EQ(std::abs(actual), magnitude) << bits;
    }
  }
}

}  // namespace
}  // namespace cohort
