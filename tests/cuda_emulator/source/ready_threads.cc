// The threads of a block that can go on, in the order in which they are taken.
#include <utility>

#include "block.h"

namespace cuda_emulator {

void ReadyThreads::Reset(Order order, std::size_t capacity) {
  std::size_t size = 32;
  while (size < capacity) {
    size *= 2;
  }
  slots_.resize(size);
  order_ = order;
  first_ = 0;
  count_ = 0;
}

void ReadyThreads::PushLast(uint32_t thread) {
  if (order_ == Order::kLast) {
    first_ = (first_ + slots_.size() - 1) & (slots_.size() - 1);
    ++count_;
    Slot(0) = thread;
  } else {
    Push(thread);
  }
}

uint32_t ReadyThreads::Pop(Random* random) {
  if (order_ == Order::kFirst) {
    const uint32_t thread = Slot(0);
    first_ = (first_ + 1) & (slots_.size() - 1);
    --count_;
    return thread;
  }
  if (order_ == Order::kAny) {
    std::swap(Slot(random->Below(static_cast<uint32_t>(count_))), Slot(count_ - 1));
  }
  return Slot(--count_);
}

}  // namespace cuda_emulator
