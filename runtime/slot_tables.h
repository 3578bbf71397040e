// The block tables of all slots, kept in device memory from step to step, so that a step brings
// only what changed. Owned by the recorded steps.
#ifndef COHORT_RUNTIME_SLOT_TABLES_H_
#define COHORT_RUNTIME_SLOT_TABLES_H_

#include <cstdint>
#include <vector>

#include "kernels/device.h"

namespace cohort {

class SlotTables {
 public:
  // A block that the step itself stores, by Ops::StoreTokens().
  struct Change {
    int32_t place = -1;  // among all(); below 0: none
    int32_t block = 0;
  };

  SlotTables() = default;  // to be assigned

  // Rows of `columns` blocks for `slots` slots, and one that begins with `scratch_block`. `device`
  // must outlive the tables.
  static absl::StatusOr<SlotTables> Create(int64_t slots, int64_t columns, int32_t scratch_block,
                                           Device& device);
  static int64_t WorkspaceBytes(int64_t slots, int64_t columns);

  TensorView rows() const { return tables_.view(); }  // [slots + 1, columns] int32
  TensorView all() const;                             // the same as one line
  int32_t scratch_row() const { return static_cast<int32_t>(known_.size()); }

  // The slot's sequence, the `admission`-th, has these blocks from now on. Up to one block more
  // than before is a change for the step to store; another row is copied whole by way of `staging`,
  // host memory of the device with room for it.
  Change Bring(int64_t slot, uint64_t admission, const std::vector<int32_t>& blocks,
               int32_t* staging);
  // No row is known any more.
  void Forget();

 private:
  struct Known {
    uint64_t admission = 0;  // 0: nothing
    size_t blocks = 0;
  };

  // Whether the device's row is another sequence's, or lacks more than the last block.
  static bool IsStrange(const Known& known, uint64_t admission, const std::vector<int32_t>& blocks);

  Device* device_ = nullptr;
  int64_t columns_ = 0;
  Tensor tables_;
  std::vector<Known> known_;  // by slot: what the device has, or will once the stream is there
};

}  // namespace cohort

#endif  // COHORT_RUNTIME_SLOT_TABLES_H_
