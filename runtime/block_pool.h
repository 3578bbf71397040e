// Ids of KV blocks with reference counts. Owned by the scheduler; no memory behind it.
#ifndef COHORT_RUNTIME_BLOCK_POOL_H_
#define COHORT_RUNTIME_BLOCK_POOL_H_

#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "kernels/status.h"

namespace cohort {

class BlockPool {
 public:
  explicit BlockPool(int64_t blocks);

  // `count` blocks with one reference each; RESOURCE_EXHAUSTED (and nothing taken) when fewer are
  // free.
  absl::StatusOr<std::vector<int32_t>> Allocate(int64_t count);
  void AddReference(int32_t block);
  // Drops one reference of each; a block without references is free at once.
  void Release(absl::Span<const int32_t> blocks);

  int64_t total() const { return static_cast<int64_t>(references_.size()); }
  int64_t free() const { return static_cast<int64_t>(free_.size()); }
  int64_t used() const { return total() - free(); }

 private:
  std::vector<int32_t> references_;  // per block
  std::vector<int32_t> free_;        // a stack
};

}  // namespace cohort

#endif  // COHORT_RUNTIME_BLOCK_POOL_H_
