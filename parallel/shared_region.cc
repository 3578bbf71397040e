#include "parallel/shared_region.h"

#include <linux/futex.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <ctime>
#include <new>

#include "kernels/check.h"

namespace cohort {
namespace {

constexpr int64_t kPageBytes = 4096;
constexpr int64_t kNanosPerSecond = 1'000'000'000;

int64_t ControlBytes(int size) {
  const int64_t bytes = static_cast<int64_t>(sizeof(RankPosts)) * size;
  return (bytes + kPageBytes - 1) / kPageBytes * kPageBytes;
}

// The word's address for the kernel, which does not know std::atomic.
uint32_t* FutexAddress(std::atomic<uint32_t>& word) { return reinterpret_cast<uint32_t*>(&word); }

}  // namespace

int64_t SharedRegion::Bytes(int size) {
  CHECK_GE(size, 1);
  CHECK_LE(size, kMaxRanks);
  return ControlBytes(size) + 2 * kBufferBytes * size;
}

std::unique_ptr<SharedRegion> SharedRegion::OnHeap(int size) {
  auto* memory = static_cast<std::byte*>(
      ::operator new (static_cast<size_t>(Bytes(size)), std::align_val_t{kPageBytes}));
  for (int rank = 0; rank < size; ++rank) {
    new (memory + rank * static_cast<int64_t>(sizeof(RankPosts))) RankPosts();
  }
  return std::unique_ptr<SharedRegion>(new SharedRegion(memory, size, /*mapped=*/false));
}

absl::StatusOr<std::unique_ptr<SharedRegion>> SharedRegion::Map(int fd, int size) {
  struct stat file;
  if (fstat(fd, &file) != 0) {
    return absl::InvalidArgumentError(absl::StrCat("communicator region: descriptor ", fd,
                                                   " cannot be used: ", std::strerror(errno)));
  }
  if (file.st_size != Bytes(size)) {
    return absl::InvalidArgumentError(absl::StrCat("communicator region has ", file.st_size,
                                                   " bytes; a group of ", size, " ranks needs ",
                                                   Bytes(size)));
  }
  void* memory = mmap(nullptr, static_cast<size_t>(Bytes(size)), PROT_READ | PROT_WRITE, MAP_SHARED,
                      fd, /*offset=*/0);
  if (memory == MAP_FAILED) {
    return absl::ResourceExhaustedError(absl::StrCat(
        "communicator region of ", Bytes(size), " bytes: mmap failed: ", std::strerror(errno)));
  }
  return std::unique_ptr<SharedRegion>(
      new SharedRegion(static_cast<std::byte*>(memory), size, /*mapped=*/true));
}

SharedRegion::~SharedRegion() {
  if (mapped_) {
    munmap(memory_, static_cast<size_t>(Bytes(size_)));
  } else {
    ::operator delete (memory_, std::align_val_t{kPageBytes});
  }
}

RankPosts& SharedRegion::control(int rank) const {
  return reinterpret_cast<RankPosts*>(memory_)[rank];
}

std::byte* SharedRegion::buffer(int rank, uint32_t step) const {
  return memory_ + ControlBytes(size_) +
         (2 * static_cast<int64_t>(rank) + (step & 1u)) * kBufferBytes;
}

int64_t MonotonicNanos() {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec * kNanosPerSecond + now.tv_nsec;
}

bool FutexWait(std::atomic<uint32_t>& word, uint32_t expected, int64_t deadline_nanos) {
  timespec deadline;
  deadline.tv_sec = deadline_nanos / kNanosPerSecond;
  deadline.tv_nsec = deadline_nanos % kNanosPerSecond;
  // FUTEX_WAIT_BITSET takes an absolute deadline of the monotonic clock.
  const int64_t result = syscall(SYS_futex, FutexAddress(word), FUTEX_WAIT_BITSET, expected,
                                 &deadline, nullptr, FUTEX_BITSET_MATCH_ANY);
  return result == 0 || errno != ETIMEDOUT;
}

void FutexWakeAll(std::atomic<uint32_t>& word) {
  syscall(SYS_futex, FutexAddress(word), FUTEX_WAKE, INT32_MAX, nullptr, nullptr, 0);
}

}  // namespace cohort
