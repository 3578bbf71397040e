#include "runtime/slot_tables.h"

#include <algorithm>

#include "kernels/check.h"

namespace cohort {

absl::StatusOr<SlotTables> SlotTables::Create(int64_t slots, int64_t columns, int32_t scratch_block,
                                              Device& device) {
  SlotTables tables;
  tables.device_ = &device;
  tables.columns_ = columns;
  tables.known_.resize(static_cast<size_t>(slots));
  ASSIGN_OR_RETURN(tables.tables_, device.Allocate({slots + 1, columns}, DType::kI32));
  // Nothing reads beyond a sequence's blocks, but rows are moved whole.
  std::vector<int32_t> blocks(static_cast<size_t>((slots + 1) * columns));
  blocks[static_cast<size_t>(slots * columns)] = scratch_block;
  device.CopyFromHost(blocks.data(), tables.tables_.view());
  RETURN_IF_ERROR(device.Synchronize());  // before the numbers are gone
  return tables;
}

int64_t SlotTables::WorkspaceBytes(int64_t slots, int64_t columns) {
  return (slots + 1) * columns * SizeOf(DType::kI32);
}

TensorView SlotTables::all() const {
  const TensorView rows = tables_.view();
  return TensorView(rows.data, DType::kI32, Shape{rows.shape.elements()});
}

bool SlotTables::IsStrange(const Known& known, uint64_t admission,
                           const std::vector<int32_t>& blocks) {
  return known.admission != admission || blocks.size() > known.blocks + 1;
}

SlotTables::Change SlotTables::Bring(int64_t slot, uint64_t admission,
                                     const std::vector<int32_t>& blocks, int32_t* staging) {
  const int64_t count = static_cast<int64_t>(blocks.size());
  CHECK_LE(count, columns_);
  Change change;
  Known& known = known_[static_cast<size_t>(slot)];
  if (IsStrange(known, admission, blocks)) {
    std::copy(blocks.begin(), blocks.end(), staging);
    device_->EnqueueCopyFromHost(
        staging, TensorView(tables_.view().Rows(slot, 1).data, DType::kI32, Shape{count}));
  } else if (blocks.size() == known.blocks + 1) {
    change = {static_cast<int32_t>(slot * columns_ + count - 1), blocks.back()};
  }
  known = {admission, blocks.size()};
  return change;
}

void SlotTables::Forget() { std::fill(known_.begin(), known_.end(), Known()); }

}  // namespace cohort
