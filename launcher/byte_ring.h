// Messages of any length from one process to another on the same host, through a ring of bytes in
// anonymous shared memory (a memfd: nothing to unlink, nothing left behind). One writer, one
// reader; each maps the memory for itself.
//
// Memory: a page of counters, then `capacity` bytes (a power of two). `written` and `read` count
// bytes for ever; byte n lives at n mod capacity. A message is a header (its length twice, the
// second time inverted) and its bytes, and travels in pieces when it is longer than what is free.
// Either end keeps its own counter to itself and believes the other's only within bounds, so that a
// peer that scribbles on the memory gives an error here and never a crash.
#ifndef COHORT_LAUNCHER_BYTE_RING_H_
#define COHORT_LAUNCHER_BYTE_RING_H_

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>

#include "absl/time/time.h"
#include "kernels/status.h"
#include "launcher/file_descriptor.h"

namespace cohort {

inline constexpr int64_t kMaxRingMessageBytes = int64_t{1} << 30;

// Zeroed memory for a ring; `capacity` is a power of two from 64 up. RESOURCE_EXHAUSTED.
absl::StatusOr<FileDescriptor> CreateByteRing(int64_t capacity);

// What the ends have in common: the mapping, the counters and how to wait for the other end.
class ByteRingEnd {
 public:
  ~ByteRingEnd();
  ByteRingEnd(const ByteRingEnd&) = delete;
  ByteRingEnd& operator=(const ByteRingEnd&) = delete;

  // Every call of this end, present or future, returns UNAVAILABLE with `reason`'s words. Any
  // thread; the first reason stays. The other end hears nothing of it.
  void Abort(const absl::Status& reason);

 protected:
  struct Counters;

  static absl::StatusOr<void*> MapMemory(int fd, int64_t& bytes);
  ByteRingEnd(void* memory, int64_t bytes, int spin_iterations);

  bool aborted() const { return aborted_.load(); }
  absl::Status AbortReason() const;

  // Sleeps until `ready()`, an abort or the deadline. `bell` is this end's; false: the deadline.
  template <class Ready>
  bool Wait(std::atomic<uint32_t>& bell, std::atomic<uint32_t>& waits, absl::Time deadline,
            Ready ready);
  // Wakes the other end if it sleeps on `bell`.
  static void Ring(std::atomic<uint32_t>& bell, std::atomic<uint32_t>& waits);

  void CopyIn(uint64_t position, const char* source, size_t bytes);
  void CopyOut(uint64_t position, char* destination, size_t bytes) const;

  Counters* const counters_;
  const uint64_t capacity_;

 private:
  char* const data_;
  const int64_t mapped_bytes_;
  const int spin_iterations_;
  std::atomic<bool> aborted_{false};
  mutable std::mutex mutex_;
  std::string reason_;  // guarded by mutex_
};

// Used from one thread, but for Abort.
class ByteRingWriter : public ByteRingEnd {
 public:
  // Maps `fd`, which may be closed afterwards. `spin_iterations` before sleeping: 0 when ranks
  // outnumber cores. INVALID_ARGUMENT for memory that is no ring.
  static absl::StatusOr<std::unique_ptr<ByteRingWriter>> Map(int fd, int spin_iterations);

  // Returns once the ring has taken the whole message. DEADLINE_EXCEEDED when it stays full; then,
  // if a part was taken already, the ring cannot be used any more.
  absl::Status Send(StringView message, absl::Time deadline);

 private:
  using ByteRingEnd::ByteRingEnd;
  absl::Status Write(const char* source, size_t bytes, absl::Time deadline);
  absl::StatusOr<uint64_t> WaitForSpace(absl::Time deadline);

  uint64_t written_ = 0;
  absl::Status failure_;  // sticks
};

// Used from one thread, but for Abort.
class ByteRingReader : public ByteRingEnd {
 public:
  static absl::StatusOr<std::unique_ptr<ByteRingReader>> Map(int fd, int spin_iterations);

  // The next message. After DEADLINE_EXCEEDED the next call goes on where this one stopped.
  // DATA_LOSS, from then on, when the memory holds what no writer writes.
  absl::StatusOr<std::string> Receive(absl::Time deadline);

 private:
  using ByteRingEnd::ByteRingEnd;
  absl::Status Fill(std::string& into, size_t bytes, absl::Time deadline);
  absl::StatusOr<uint64_t> WaitForData(absl::Time deadline);

  uint64_t read_ = 0;
  std::string header_;   // of the message under way, as far as it has come
  std::string message_;  // its bytes so far
  absl::Status failure_;
};

}  // namespace cohort

#endif  // COHORT_LAUNCHER_BYTE_RING_H_
