#include "runtime/rope.h"

#include <gtest/gtest.h>

#include <cmath>

#include "runtime/yarn.h"

namespace cohort {
namespace {

std::unique_ptr<Device> Cpu() {
  auto device = Device::Create(DeviceOptions{});
  CHECK_OK(device.status());
  return *std::move(device);
}

std::vector<RopeRows> Plain(int64_t positions) {
  return {{InverseFrequencies(1e4, 8), 1, positions}};
}

TEST(RopeTensors, HoldCosineAndSineOfPositionTimesFrequency) {
  const auto device = Cpu();
  const int64_t positions = 3000;  // more than one block of the construction
  const auto rope = MakeRopeTensors(Plain(positions), DType::kF32, *device);
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
  const auto exact = MakeRopeTensors(Plain(20), DType::kF32, *device);
  const auto rounded = MakeRopeTensors(Plain(20), DType::kBF16, *device);
  ASSERT_TRUE(exact.ok() && rounded.ok());
  for (int64_t i = 0; i < 20 * 4; ++i) {
    EXPECT_EQ(rounded->cosine.view().As<float>()[i],
              Rounded<BFloat16>(exact->cosine.view().As<float>()[i]));
    EXPECT_EQ(rounded->sine.view().As<float>()[i],
              Rounded<BFloat16>(exact->sine.view().As<float>()[i]));
  }
}

TEST(RopeTensors, LieOneAfterTheOtherEachWithItsFactor) {
  const auto device = Cpu();
  YarnScaling yarn;
  yarn.factor = 4;
  yarn.original_positions = 16;
  const std::vector<float> slowed = InverseFrequencies(1e4, 8, yarn);
  const std::vector<RopeRows> parts = {{slowed, 1.25, 1030}, {InverseFrequencies(1e4, 8), 1, 16}};
  const auto rope = MakeRopeTensors(parts, DType::kF32, *device);
  const auto plain = MakeRopeTensors(Plain(16), DType::kF32, *device);
  ASSERT_TRUE(rope.ok() && plain.ok());
  ASSERT_EQ(rope->table().cosine.rows(), 1046);
  for (int64_t i = 0; i < 4; ++i) {
    const float angle = 1029.0f * slowed[static_cast<size_t>(i)];
    EXPECT_EQ(rope->table().cosine.Row<float>(1029)[i],
              static_cast<float>(std::cos(static_cast<double>(angle))) * 1.25f);
    EXPECT_EQ(rope->table().sine.Row<float>(1029)[i],
              static_cast<float>(std::sin(static_cast<double>(angle))) * 1.25f);
    EXPECT_EQ(rope->table().sine.Row<float>(1030 + 15)[i], plain->table().sine.Row<float>(15)[i]);
  }
}

}  // namespace
}  // namespace cohort
