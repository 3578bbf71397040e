// The memory that the ranks of one group meet in, and how they wait in it. Heap memory serves
// threads of one process, a mapped memfd serves processes; std::atomic words order the accesses and
// futexes on them put waiters to sleep, which works in both.
//
// Layout: one RankPosts per rank, then for every rank two buffers of kBufferBytes. Only rank r
// writes control(r).posted, its announcements and its buffers; everyone reads them.
#ifndef COHORT_PARALLEL_SHARED_REGION_H_
#define COHORT_PARALLEL_SHARED_REGION_H_

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>

#include "kernels/status.h"

namespace cohort {

// What a rank believes a step to be part of; compared by all ranks.
struct Announcement {
  uint64_t sequence = 0;  // of the collective, counted from 1
  uint64_t bytes = 0;     // of its payload
  uint32_t kind = 0;      // which operation on which dtype
  uint32_t group = 0;     // ranks of the group
  bool operator==(const Announcement&) const = default;
};

// Zero bytes are a valid initial state: that is how a new memfd comes.
struct RankPosts {
  // The last step this rank has published its data of. Wraps; see HasReached.
  alignas(64) std::atomic<uint32_t> posted{0};
  Announcement announcements[2];  // of the steps of even and odd number
  // A rank sleeps on its own bell. It says first which rank it waits for (plus one; 0 is nobody),
  // so that only that rank rings.
  alignas(64) std::atomic<uint32_t> bell{0};
  std::atomic<uint32_t> waiting_for{0};
};
static_assert(std::atomic<uint32_t>::is_always_lock_free && sizeof(std::atomic<uint32_t>) == 4,
              "a futex is a plain 32-bit word");

// Whether a wrapping counter of steps has come to `step`; the two are never 2^31 apart.
constexpr bool HasReached(uint32_t posted, uint32_t step) {
  return static_cast<int32_t>(posted - step) >= 0;
}

class SharedRegion {
 public:
  static constexpr int64_t kBufferBytes = 256 * 1024;
  static constexpr int kMaxRanks = 4096;

  // Bytes of the region of a group of `size` ranks, 1..kMaxRanks.
  static int64_t Bytes(int size);

  // For threads of this process.
  static std::unique_ptr<SharedRegion> OnHeap(int size);
  // Maps a file whose length is Bytes(size); the descriptor stays the caller's.
  static absl::StatusOr<std::unique_ptr<SharedRegion>> Map(int fd, int size);

  ~SharedRegion();
  SharedRegion(const SharedRegion&) = delete;
  SharedRegion& operator=(const SharedRegion&) = delete;

  RankPosts& control(int rank) const;
  // The buffer of `rank` for steps of the parity of `step`.
  std::byte* buffer(int rank, uint32_t step) const;

 private:
  SharedRegion(std::byte* memory, int size, bool mapped)
      : memory_(memory), size_(size), mapped_(mapped) {}

  std::byte* const memory_;
  const int size_;
  const bool mapped_;
};

// Nanoseconds of the monotonic clock.
int64_t MonotonicNanos();

// Sleeps while `word` holds `expected`, until a wake or the deadline (monotonic). False exactly
// when the deadline has passed; true may be spurious.
bool FutexWait(std::atomic<uint32_t>& word, uint32_t expected, int64_t deadline_nanos);
void FutexWakeAll(std::atomic<uint32_t>& word);

}  // namespace cohort

#endif  // COHORT_PARALLEL_SHARED_REGION_H_
