#include "runtime/expert_load.h"

#include <gtest/gtest.h>

namespace cohort {
namespace {

TEST(ExpertLoad, IsWhatAllLayersGainedSinceTheLastLook) {
  const auto device = Device::Create(DeviceOptions{});
  ASSERT_TRUE(device.ok()) << device.status();
  std::vector<uint32_t> counts = {1, 2, 0xffffffffu, 10, 20, 0};
  const TensorView view(counts.data(), DType::kI32, Shape{2, 3});
  ExpertLoad load;
  EXPECT_EQ(load.Take(view, **device), (std::vector<int32_t>{11, 22, -1}));
  EXPECT_EQ(load.Take(view, **device), (std::vector<int32_t>{0, 0, 0}));
  counts = {1, 5, 4, 12, 20, 1};  // the third wrapped around
  EXPECT_EQ(load.Take(view, **device), (std::vector<int32_t>{2, 3, 6}));
}

TEST(ExpertLoad, IsEmptyWithoutSparseLayers) {
  const auto device = Device::Create(DeviceOptions{});
  ASSERT_TRUE(device.ok()) << device.status();
  ExpertLoad load;
  EXPECT_TRUE(load.Take(TensorView(nullptr, DType::kI32, Shape{0, 0}), **device).empty());
}

}  // namespace
}  // namespace cohort
