#include "runtime/block_pool.h"

#include <utility>

#include "kernels/check.h"

namespace cohort {

BlockPool::BlockPool(int64_t blocks, std::function<void(int32_t)> evicted)
    : blocks_(static_cast<size_t>(blocks) + 1), evicted_(std::move(evicted)) {
  free_.reserve(static_cast<size_t>(blocks));
  for (int64_t block = blocks - 1; block >= 0; --block) {
    free_.push_back(static_cast<int32_t>(block));  // the lowest ids are handed out first
  }
  blocks_.back().previous = blocks_.back().next = static_cast<int32_t>(blocks);
}

size_t BlockPool::Index(int32_t block) const {
  CHECK(block >= 0 && block < total()) << "block " << block << " of " << total();
  return static_cast<size_t>(block);
}

void BlockPool::Link(int32_t block) {
  const int32_t head = static_cast<int32_t>(total());
  Block& own = blocks_[Index(block)];
  own.next = head;
  own.previous = blocks_.back().previous;
  blocks_[static_cast<size_t>(own.previous)].next = block;
  blocks_.back().previous = block;
  ++cached_;
}

void BlockPool::Unlink(int32_t block) {
  const Block& own = blocks_[Index(block)];
  blocks_[static_cast<size_t>(own.previous)].next = own.next;
  blocks_[static_cast<size_t>(own.next)].previous = own.previous;
  --cached_;
}

absl::StatusOr<std::vector<int32_t>> BlockPool::Allocate(int64_t count) {
  CHECK_GE(count, 0);
  if (count > available()) {
    return absl::ResourceExhaustedError(absl::StrCat(
        count, " KV blocks wanted, ", available(), " of ", total(), " are available; retry later"));
  }
  std::vector<int32_t> blocks;
  blocks.reserve(static_cast<size_t>(count));
  for (; count > 0; --count) {
    if (free_.empty()) {
      const int32_t oldest = blocks_.back().next;
      Drop(oldest);
      if (evicted_) {
        evicted_(oldest);
      }
    }
    blocks.push_back(free_.back());
    free_.pop_back();
    Block& block = blocks_[Index(blocks.back())];
    CHECK(block.references == 0 && !block.kept) << "block " << blocks.back();
    block.references = 1;
  }
  return blocks;
}

void BlockPool::AddReference(int32_t block) {
  Block& own = blocks_[Index(block)];
  CHECK(own.references > 0 || own.kept) << "block " << block << " is free";
  if (own.references++ == 0) {
    Unlink(block);
  }
}

void BlockPool::Release(absl::Span<const int32_t> blocks) {
  for (auto block = blocks.rbegin(); block != blocks.rend(); ++block) {
    Block& own = blocks_[Index(*block)];
    CHECK_GT(own.references, 0) << "block " << *block << " has no reference";
    if (--own.references > 0) {
      continue;
    }
    if (own.kept) {
      Link(*block);
    } else {
      free_.push_back(*block);
    }
  }
}

void BlockPool::Keep(int32_t block) {
  Block& own = blocks_[Index(block)];
  CHECK_GT(own.references, 0) << "block " << block << " has no reference";
  own.kept = true;
}

void BlockPool::Drop(int32_t block) {
  Block& own = blocks_[Index(block)];
  if (std::exchange(own.kept, false) && own.references == 0) {
    Unlink(block);
    free_.push_back(block);
  }
}

}  // namespace cohort
