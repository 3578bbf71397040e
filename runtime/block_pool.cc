#include "runtime/block_pool.h"

#include "kernels/check.h"

namespace cohort {

BlockPool::BlockPool(int64_t blocks) : references_(static_cast<size_t>(blocks), 0) {
  free_.reserve(references_.size());
  for (int64_t block = blocks - 1; block >= 0; --block) {
    free_.push_back(static_cast<int32_t>(block));  // the lowest ids are handed out first
  }
}

absl::StatusOr<std::vector<int32_t>> BlockPool::Allocate(int64_t count) {
  CHECK_GE(count, 0);
  if (count > free()) {
    return absl::ResourceExhaustedError(absl::StrCat(count, " KV blocks wanted, ", free(), " of ",
                                                     total(), " are free; retry later"));
  }
  std::vector<int32_t> blocks;
  blocks.reserve(static_cast<size_t>(count));
  for (; count > 0; --count) {
    blocks.push_back(free_.back());
    free_.pop_back();
    CHECK_EQ(references_[static_cast<size_t>(blocks.back())], 0) << "block " << blocks.back();
    references_[static_cast<size_t>(blocks.back())] = 1;
  }
  return blocks;
}

void BlockPool::AddReference(int32_t block) {
  CHECK(block >= 0 && block < total()) << "block " << block << " of " << total();
  int32_t& references = references_[static_cast<size_t>(block)];
  CHECK_GT(references, 0) << "block " << block << " is free";
  ++references;
}

void BlockPool::Release(absl::Span<const int32_t> blocks) {
  for (const int32_t block : blocks) {
    CHECK(block >= 0 && block < total()) << "block " << block << " of " << total();
    int32_t& references = references_[static_cast<size_t>(block)];
    CHECK_GT(references, 0) << "block " << block << " is free already";
    if (--references == 0) {
      free_.push_back(block);
    }
  }
}

}  // namespace cohort
