#include "runtime/slot_tables.h"

#include <gmock/gmock.h>

#include <memory>
#include <utility>
#include <vector>

#include "kernels/ops.h"

namespace cohort {
namespace {

using ::testing::ElementsAre;

class SlotTablesTest : public ::testing::Test {
 protected:
  static constexpr int32_t kScratch = 77;

  SlotTablesTest() {
    auto device = Device::Create({});
    CHECK_OK(device.status());
    device_ = *std::move(device);
    auto tables = SlotTables::Create(2, 4, kScratch, *device_);
    CHECK_OK(tables.status());
    tables_ = *std::move(tables);
  }

  // The first `count` blocks of a row as the device has them.
  std::vector<int32_t> Row(int64_t row, int64_t count) {
    std::vector<int32_t> blocks(4);
    device_->CopyToHost(tables_.rows().Rows(row, 1), blocks.data());
    blocks.resize(static_cast<size_t>(count));
    return blocks;
  }

  // Brings the row and computes the step that stores the change.
  SlotTables::Change Bring(int64_t slot, uint64_t admission, const std::vector<int32_t>& blocks) {
    int32_t staging[4];
    SlotTables::Change change = tables_.Bring(slot, admission, blocks, staging);
    device_->ops().StoreTokens(TensorView(&change.block, DType::kI32, Shape{1}),
                               TensorView(&change.place, DType::kI32, Shape{1}), tables_.all());
    return change;
  }

  std::unique_ptr<Device> device_;
  SlotTables tables_;
};

TEST_F(SlotTablesTest, RowsComeWholeOnceAndThenByTheBlock) {
  EXPECT_EQ(Bring(1, 5, {10, 11}).place, -1);
  EXPECT_THAT(Row(1, 2), ElementsAre(10, 11));
  EXPECT_EQ(Bring(1, 5, {10, 11}).place, -1);
  const SlotTables::Change change = Bring(1, 5, {10, 11, 12});
  EXPECT_EQ(change.place, 4 + 2);
  EXPECT_EQ(change.block, 12);
  EXPECT_THAT(Row(1, 3), ElementsAre(10, 11, 12));
}

TEST_F(SlotTablesTest, SeveralBlocksMoreComeWithTheRow) {
  Bring(0, 1, {3});
  EXPECT_EQ(Bring(0, 1, {3, 4, 5}).place, -1);
  EXPECT_THAT(Row(0, 3), ElementsAre(3, 4, 5));
}

TEST_F(SlotTablesTest, AnotherSequenceOfTheSlotIsNotTakenForTheOneBefore) {
  Bring(0, 1, {3, 4});
  Bring(0, 2, {8, 9});
  EXPECT_THAT(Row(0, 2), ElementsAre(8, 9));
  Bring(0, 3, {1, 2, 5});
  EXPECT_THAT(Row(0, 3), ElementsAre(1, 2, 5));
}

TEST_F(SlotTablesTest, WhatWasForgottenComesAgain) {
  Bring(0, 1, {3});
  const std::vector<int32_t> nothing(12);
  device_->CopyFromHost(nothing.data(), tables_.rows());
  tables_.Forget();
  Bring(0, 1, {3, 4});
  EXPECT_THAT(Row(0, 2), ElementsAre(3, 4));
}

TEST_F(SlotTablesTest, ARowBeyondTheSlotsIsForRowsThatNobodyReads) {
  EXPECT_EQ(tables_.scratch_row(), 2);
  EXPECT_THAT(Row(2, 1), ElementsAre(kScratch));
  EXPECT_EQ(SlotTables::WorkspaceBytes(2, 4), 3 * 4 * 4);
}

}  // namespace
}  // namespace cohort
