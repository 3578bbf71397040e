#include "runtime/rope.h"

#include <gtest/gtest.h>

#include <cmath>

namespace cohort {
namespace {

constexpr double kEpsilon = 0x1p-23;  // of fp32

std::unique_ptr<Device> Cpu() {
  auto device = Device::Create(DeviceOptions{});
  CHECK_OK(device.status());
  return *std::move(device);
}

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

TEST(RopeTensors, HoldCosineAndSineOfPositionTimesFrequency) {
  const auto device = Cpu();
  const int64_t positions = 3000;  // more than one block of the construction
  const auto rope = MakeRopeTensors(1e4, 8, positions, DType::kF32, *device);
  ASSERT_TRUE(rope.ok()) << rope.status();
  const std::vector<float> frequencies = InverseFrequencies(1e4, 8);
  for (const int64_t position :
       {int64_t{0}, int64_t{1}, int64_t{1023}, int64_t{1024}, int64_t{2999}}) {
    for (int64_t i = 0; i < 4; ++i) {
      const float angle = static_cast<float>(position) * frequencies[static_cast<size_t>(i)];
      EXPECT_EQ(rope->table().cosine.Row<float>(position)[i],
                static_cast<float>(std::cos(static_cast<double>(angle))));
      EXPECT_EQ(rope->table().sine.Row<float>(position)[i],
                static_cast<float>(std::sin(static_cast<double>(angle))));
    }
  }
}

TEST(RopeTensors, AreRoundedToTheActivationDType) {
  const auto device = Cpu();
  const auto exact = MakeRopeTensors(1e4, 8, 20, DType::kF32, *device);
  const auto rounded = MakeRopeTensors(1e4, 8, 20, DType::kBF16, *device);
  ASSERT_TRUE(exact.ok() && rounded.ok());
  for (int64_t i = 0; i < 20 * 4; ++i) {
    EXPECT_EQ(rounded->cosine.view().As<float>()[i],
              Rounded<BFloat16>(exact->cosine.view().As<float>()[i]));
    EXPECT_EQ(rounded->sine.view().As<float>()[i],
              Rounded<BFloat16>(exact->sine.view().As<float>()[i]));
  }
}

}  // namespace
}  // namespace cohort
