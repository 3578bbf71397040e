#include "parallel/silent_communicator.h"

#include <gtest/gtest.h>

#include <vector>

namespace cohort {
namespace {

TEST(SilentCommunicator, ARanksOwnShardStandsForAll) {
  const auto device = Device::Create({});
  ASSERT_TRUE(device.ok()) << device.status();
  const auto silent = MakeSilentCommunicator(**device, 1, 3, 2);
  ASSERT_TRUE(silent.ok()) << silent.status();
  EXPECT_EQ((*silent)->rank(), 1);
  EXPECT_EQ((*silent)->size(), 3);
  std::vector<int32_t> shard = {1, 2, 3, 4};
  std::vector<int32_t> out(12, -1);
  (*silent)->AllGather(TensorView(shard.data(), DType::kI32, {2, 2}), {{0, 1}, {1, 3}, {3, 6}},
                       TensorView(out.data(), DType::kI32, {2, 6}));
  EXPECT_EQ(out, (std::vector<int32_t>{1, 1, 2, 1, 2, -1, 3, 3, 4, 3, 4, -1}));
}

TEST(SilentCommunicator, ASumIsTheRanksOwnPart) {
  const auto device = Device::Create({});
  ASSERT_TRUE(device.ok()) << device.status();
  const auto silent = MakeSilentCommunicator(**device, 0, 8, 1);
  ASSERT_TRUE(silent.ok()) << silent.status();
  std::vector<float> sum = {1, -2};
  (*silent)->AllReduceSum(TensorView(sum.data(), DType::kF32, {1, 2}));
  (*silent)->Barrier();
  EXPECT_EQ(sum, (std::vector<float>{1, -2}));
  EXPECT_TRUE((*silent)->status().ok());
  (*silent)->Abort();
  EXPECT_TRUE(absl::IsAborted((*silent)->status()));
}

TEST(SilentCommunicator, HasNobodyToExchangeRowsWith) {
  const auto device = Device::Create({});
  ASSERT_TRUE(device.ok()) << device.status();
  const auto silent = MakeSilentCommunicator(**device, 0, 2, 1);
  ASSERT_TRUE(silent.ok()) << silent.status();
  (*silent)->AllToAll({}, {});
  EXPECT_TRUE(absl::IsUnimplemented((*silent)->status()));
}

}  // namespace
}  // namespace cohort
