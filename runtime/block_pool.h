// Ids of KV blocks with reference counts. A block is used (it has references), cached (it has none,
// but its contents may be wanted again) or free. Owned by the scheduler; no memory behind it.
#ifndef COHORT_RUNTIME_BLOCK_POOL_H_
#define COHORT_RUNTIME_BLOCK_POOL_H_

#include <cstdint>
#include <functional>
#include <vector>

#include "absl/types/span.h"
#include "kernels/status.h"

namespace cohort {

class BlockPool {
 public:
  // `evicted` is told of each cached block that Allocate takes: its contents are lost.
  explicit BlockPool(int64_t blocks, std::function<void(int32_t)> evicted = nullptr);

  // `count` blocks with one reference each: free ones, then the cached ones that lost their last
  // reference longest ago. RESOURCE_EXHAUSTED (and nothing taken) when fewer are available.
  absl::StatusOr<std::vector<int32_t>> Allocate(int64_t count);
  // Of a used or a cached block.
  void AddReference(int32_t block);
  // Drops one reference of each, the last block first: of a sequence's blocks the end is evicted
  // before the beginning, which more others may want.
  void Release(absl::Span<const int32_t> blocks);

  // Whether a used block becomes cached, rather than free, with its last reference. Dropping a
  // cached block frees it at once.
  void Keep(int32_t block);
  void Drop(int32_t block);

  int64_t total() const { return static_cast<int64_t>(blocks_.size()) - 1; }
  int64_t used() const { return total() - available(); }
  int64_t cached() const { return cached_; }
  int64_t available() const { return static_cast<int64_t>(free_.size()) + cached_; }
  int32_t references(int32_t block) const { return blocks_[Index(block)].references; }

 private:
  struct Block {
    int32_t references = 0;
    bool kept = false;
    // Neighbours in the ring of cached blocks, from the one to evict next.
    int32_t previous = 0;
    int32_t next = 0;
  };

  size_t Index(int32_t block) const;
  void Link(int32_t block);
  void Unlink(int32_t block);

  std::vector<Block> blocks_;  // the last one is the ring's head, no block
  std::vector<int32_t> free_;  // a stack
  int64_t cached_ = 0;
  std::function<void(int32_t)> evicted_;
};

}  // namespace cohort

#endif  // COHORT_RUNTIME_BLOCK_POOL_H_
