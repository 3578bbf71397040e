// Copies that are under way for a while. By the seed each happens at once or only when somebody
// waits for it, so that a wait that is missing, or a buffer that is filled again too early, shows.
#include <algorithm>
#include <bit>
#include <cstring>

#include "block.h"

namespace cuda_emulator {
namespace {

// An mbarrier in its 64 bits, within the limits of the hardware.
struct BarrierState {
  uint64_t expected : 20;
  uint64_t pending : 20;
  int64_t bytes : 22;
  uint64_t phase : 1;
  uint64_t unused : 1;
};
constexpr uint32_t kMaxArrivals = (1u << 20) - 2;  // one below the hardware's: that is the poison

BarrierState Read(const uint64_t* barrier) {
  const auto state = std::bit_cast<BarrierState>(*barrier);
  if (state.expected > kMaxArrivals) {
    Fail("an mbarrier is used before BarrierInit");
  }
  return state;
}

void Write(uint64_t* barrier, BarrierState state) {
  if (state.pending == 0 && state.bytes == 0) {
    state.pending = state.expected;
    state.phase ^= 1;
  }
  *barrier = std::bit_cast<uint64_t>(state);
}

void RequireAligned(const void* p, std::size_t alignment, const char* what) {
  if (reinterpret_cast<uintptr_t>(p) % alignment != 0) {
    Fail("%s at %p, which is not %zu-byte aligned", what, p, alignment);
  }
}

void PerformCopy(const PendingCopy& copy) {
  if (copy.valid) {
    std::memcpy(copy.shared, copy.global, 16);
  } else {
    std::memset(copy.shared, 0, 16);
  }
}

void PerformBulkCopy(const PendingBulkCopy& copy) {
  std::memcpy(copy.shared, copy.global, copy.bytes);
  BarrierState state = Read(copy.barrier);
  state.bytes -= copy.bytes;
  Write(copy.barrier, state);
}

BlockThread& Self() { return current->block->self(); }

}  // namespace

void CopyAsync16(void* shared, const void* global, bool valid) {
  RequireAligned(shared, 16, "CopyAsync16 to shared memory");
  RequireAligned(global, 16, "CopyAsync16 from global memory");
  const PendingCopy copy = {shared, global, valid, Self().copy_groups};
  const auto offset =
      static_cast<uint64_t>(static_cast<unsigned char*>(shared) - current->dynamic_shared);
  if (offset < current->block->grid().shared_bytes) {
    current->block->unfenced_writes().Write(static_cast<uint32_t>(offset), current->number,
                                            copy.group);
  }
  if (HappensEarly()) {
    PerformCopy(copy);
  } else {
    Self().copies.push_back(copy);
  }
}

void CopyAsyncCommit() { ++Self().copy_groups; }

void CopyAsyncWait(int pending) {
  BlockThread& thread = Self();
  const auto end = std::find_if(thread.copies.begin(), thread.copies.end(), [&](const auto& copy) {
    return copy.group + static_cast<uint32_t>(pending) >= thread.copy_groups;
  });
  std::for_each(thread.copies.begin(), end, PerformCopy);
  thread.copies.erase(thread.copies.begin(), end);
  const auto left = static_cast<uint32_t>(pending);
  if (thread.copy_groups > left + thread.waited_groups) {
    thread.waited_groups = thread.copy_groups - left;
  }
}

void FenceProxyAsync() {
  current->block->unfenced_writes().Fence(current->number, Self().waited_groups);
}

void BarrierInit(uint64_t* barrier, uint32_t arrivals) {
  RequireAligned(barrier, 8, "BarrierInit");
  if (arrivals == 0 || arrivals > kMaxArrivals) {
    Fail("BarrierInit for %u arrivals", arrivals);
  }
  *barrier = std::bit_cast<uint64_t>(BarrierState{arrivals, arrivals, 0, 0, 0});
}

void BarrierArrive(uint64_t* barrier, uint32_t expected_bytes) {
  BarrierState state = Read(barrier);
  if (state.pending == 0) {
    Fail("more threads arrive at an mbarrier than it was initialised for");
  }
  state.bytes += expected_bytes;
  --state.pending;
  Write(barrier, state);
}

bool BarrierTest(uint64_t* barrier, uint32_t parity) {
  // Some of what is under way for this barrier comes in, in any order.
  Block& block = *current->block;
  std::vector<PendingBulkCopy>& copies = block.bulk_copies();
  for (std::size_t i = 0; i < copies.size();) {
    if (copies[i].barrier == barrier && (block.random().Next() & 3) != 0) {
      const PendingBulkCopy copy = copies[i];
      copies[i] = copies.back();
      copies.pop_back();
      PerformBulkCopy(copy);
    } else {
      ++i;
    }
  }
  const bool is_over = Read(barrier).phase != (parity & 1);
  if (!is_over) {
    block.Yield();
  }
  return is_over;
}

void BulkCopy(void* shared, const void* global, uint32_t bytes, uint64_t* barrier) {
  RequireAligned(shared, 16, "BulkCopy to shared memory");
  RequireAligned(global, 16, "BulkCopy from global memory");
  if (bytes % 16 != 0 || bytes == 0) {
    Fail("BulkCopy of %u bytes, not a multiple of 16", bytes);
  }
  Read(barrier);
  const PendingBulkCopy copy = {shared, global, bytes, barrier};
  if (HappensEarly()) {
    PerformBulkCopy(copy);
  } else {
    current->block->bulk_copies().push_back(copy);
  }
}

}  // namespace cuda_emulator
