#include "runtime/metered_device.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <vector>

namespace cohort {
namespace {

TEST(MeteredDevice, CountsWhatWasAllocatedSinceTheLastLook) {
  auto cpu = Device::Create({});
  ASSERT_TRUE(cpu.ok()) << cpu.status();
  MeteredDevice device(*std::move(cpu));
  EXPECT_EQ(device.TakeBytes(), 0);
  const auto matrix = device.Allocate({3, 5}, DType::kF32);
  const auto row = device.Allocate({7}, DType::kBF16);
  ASSERT_TRUE(matrix.ok() && row.ok());
  EXPECT_EQ(device.TakeBytes(), 3 * 5 * 4 + 7 * 2);
  EXPECT_EQ(device.TakeBytes(), 0);
}

TEST(MeteredDevice, IsTheOtherDeviceInEverythingElse) {
  auto cpu = Device::Create({});
  ASSERT_TRUE(cpu.ok()) << cpu.status();
  Device& inner = **cpu;
  MeteredDevice device(*std::move(cpu));
  EXPECT_EQ(device.kind(), inner.kind());
  EXPECT_EQ(device.description(), inner.description());
  EXPECT_EQ(&device.ops(), &inner.ops());
  const auto tensor = device.Allocate({2}, DType::kI32);
  ASSERT_TRUE(tensor.ok()) << tensor.status();
  const std::vector<int32_t> sent = {4, 9};
  std::vector<int32_t> received(2);
  device.CopyFromHost(sent.data(), tensor->view());
  device.CopyToHost(tensor->view(), received.data());
  EXPECT_TRUE(device.Synchronize().ok());
  EXPECT_EQ(received, sent);
}

}  // namespace
}  // namespace cohort
