#include "launcher/byte_ring.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstring>
#include <limits>
#include <utility>

#include "absl/time/clock.h"
#include "kernels/check.h"
#include "parallel/shared_region.h"

namespace cohort {
namespace {

constexpr int64_t kCountersBytes = 4096;
constexpr int64_t kMinCapacity = 64;
constexpr size_t kHeaderBytes = 8;

bool IsCapacity(int64_t bytes) {
  return bytes >= kMinCapacity && std::has_single_bit(static_cast<uint64_t>(bytes));
}

absl::Status MemoryError(StringView what, int error) {
  return absl::ResourceExhaustedError(
      absl::StrCat("ring memory: ", what, " failed: ", std::strerror(error)));
}

// The deadline on the clock that futexes know.
int64_t DeadlineNanos(absl::Time deadline) {
  if (deadline == absl::InfiniteFuture()) return std::numeric_limits<int64_t>::max();
  return MonotonicNanos() + std::max<int64_t>(0, absl::ToInt64Nanoseconds(deadline - absl::Now()));
}

std::string EncodeHeader(uint32_t length) {
  std::string header(kHeaderBytes, '\0');
  for (size_t i = 0; i < 4; ++i) {
    header[i] = static_cast<char>((length >> (8 * i)) & 0xff);
    header[4 + i] = static_cast<char>((~length >> (8 * i)) & 0xff);
  }
  return header;
}

uint32_t LittleEndian(const char* bytes) {
  uint32_t value = 0;
  for (size_t i = 0; i < 4; ++i) {
    value |= uint32_t{static_cast<unsigned char>(bytes[i])} << (8 * i);
  }
  return value;
}

absl::StatusOr<uint32_t> DecodeHeader(const std::string& header) {
  const uint32_t length = LittleEndian(header.data());
  const uint32_t inverted = LittleEndian(header.data() + 4);
  if (length != ~inverted || length > kMaxRingMessageBytes) {
    return absl::DataLossError(absl::StrCat("ring memory is corrupted: a message's length reads ",
                                            length, " and ", ~inverted, "; at most ",
                                            kMaxRingMessageBytes, " bytes are legal"));
  }
  return length;
}

}  // namespace

// Zero bytes are a valid initial state: that is how a new memfd comes. The reader sleeps on
// `data_bell`, the writer on `space_bell`.
struct ByteRingEnd::Counters {
  alignas(64) std::atomic<uint64_t> written{0};
  alignas(64) std::atomic<uint64_t> read{0};
  alignas(64) std::atomic<uint32_t> data_bell{0};
  std::atomic<uint32_t> reader_waits{0};
  alignas(64) std::atomic<uint32_t> space_bell{0};
  std::atomic<uint32_t> writer_waits{0};
};

absl::StatusOr<FileDescriptor> CreateByteRing(int64_t capacity) {
  CHECK(IsCapacity(capacity)) << capacity;
  FileDescriptor memory(memfd_create("cohort-ring", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (!memory.valid()) return MemoryError("memfd_create", errno);
  if (ftruncate(memory.get(), kCountersBytes + capacity) != 0) {
    return MemoryError("ftruncate", errno);
  }
  // A peer that shrank the file would end us with SIGBUS.
  if (fcntl(memory.get(), F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0) {
    return MemoryError("sealing", errno);
  }
  return memory;
}

absl::StatusOr<void*> ByteRingEnd::MapMemory(int fd, int64_t& bytes) {
  static_assert(sizeof(Counters) <= kCountersBytes);
  struct stat file;
  if (fstat(fd, &file) != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("ring memory: descriptor ", fd, " cannot be used: ", std::strerror(errno)));
  }
  bytes = file.st_size;
  if (!IsCapacity(bytes - kCountersBytes)) {
    return absl::InvalidArgumentError(
        absl::StrCat("ring memory has ", bytes, " bytes, which is no ring"));
  }
  void* memory =
      mmap(nullptr, static_cast<size_t>(bytes), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (memory == MAP_FAILED) return MemoryError("mmap", errno);
  return memory;
}

ByteRingEnd::ByteRingEnd(void* memory, int64_t bytes, int spin_iterations)
    : counters_(static_cast<Counters*>(memory)),
      capacity_(static_cast<uint64_t>(bytes - kCountersBytes)),
      data_(static_cast<char*>(memory) + kCountersBytes),
      mapped_bytes_(bytes),
      spin_iterations_(spin_iterations) {}

ByteRingEnd::~ByteRingEnd() { munmap(counters_, static_cast<size_t>(mapped_bytes_)); }

void ByteRingEnd::Abort(const absl::Status& reason) {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (!aborted_.load()) reason_ = std::string(reason.message());
    aborted_.store(true);
  }
  // Whichever bell this end sleeps on; to the other end it is a spurious wake.
  for (std::atomic<uint32_t>* bell : {&counters_->data_bell, &counters_->space_bell}) {
    bell->fetch_add(1);
    FutexWakeAll(*bell);
  }
}

absl::Status ByteRingEnd::AbortReason() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return absl::UnavailableError(reason_);
}

template <class Ready>
bool ByteRingEnd::Wait(std::atomic<uint32_t>& bell, std::atomic<uint32_t>& waits,
                       absl::Time deadline, Ready ready) {
  const auto done = [&] { return ready() || aborted(); };
  for (int i = 0; i <= spin_iterations_; ++i) {
    if (done()) return true;
  }
  const int64_t deadline_nanos = DeadlineNanos(deadline);
  bool in_time = true;
  for (;;) {
    const uint32_t seen = bell.load();
    // Said before the last look: the other end publishes before it asks whether anyone waits.
    waits.store(1);
    if (done() || !in_time) break;
    in_time = FutexWait(bell, seen, deadline_nanos);
  }
  waits.store(0);
  return done();
}

void ByteRingEnd::Ring(std::atomic<uint32_t>& bell, std::atomic<uint32_t>& waits) {
  if (waits.load() == 0) return;
  bell.fetch_add(1);
  FutexWakeAll(bell);
}

void ByteRingEnd::CopyIn(uint64_t position, const char* source, size_t bytes) {
  const uint64_t offset = position & (capacity_ - 1);
  const size_t first = std::min<size_t>(bytes, capacity_ - offset);
  std::memcpy(data_ + offset, source, first);
  std::memcpy(data_, source + first, bytes - first);
}

void ByteRingEnd::CopyOut(uint64_t position, char* destination, size_t bytes) const {
  const uint64_t offset = position & (capacity_ - 1);
  const size_t first = std::min<size_t>(bytes, capacity_ - offset);
  std::memcpy(destination, data_ + offset, first);
  std::memcpy(destination + first, data_, bytes - first);
}

absl::StatusOr<std::unique_ptr<ByteRingWriter>> ByteRingWriter::Map(int fd, int spin_iterations) {
  int64_t bytes = 0;
  ASSIGN_OR_RETURN(void* memory, MapMemory(fd, bytes));
  return std::unique_ptr<ByteRingWriter>(new ByteRingWriter(memory, bytes, spin_iterations));
}

absl::Status ByteRingWriter::Send(StringView message, absl::Time deadline) {
  if (static_cast<int64_t>(message.size()) > kMaxRingMessageBytes) {
    return absl::InvalidArgumentError(absl::StrCat(
        "a message of ", message.size(), " bytes; at most ", kMaxRingMessageBytes, " fit a ring"));
  }
  if (aborted()) return AbortReason();
  RETURN_IF_ERROR(failure_);
  const uint64_t start = written_;
  const std::string header = EncodeHeader(static_cast<uint32_t>(message.size()));
  absl::Status status = Write(header.data(), header.size(), deadline);
  if (status.ok()) status = Write(message.data(), message.size(), deadline);
  if (!status.ok() && written_ != start) failure_ = status;
  return status;
}

absl::Status ByteRingWriter::Write(const char* source, size_t bytes, absl::Time deadline) {
  while (bytes > 0) {
    ASSIGN_OR_RETURN(const uint64_t space, WaitForSpace(deadline));
    const size_t piece = std::min<uint64_t>(space, bytes);
    CopyIn(written_, source, piece);
    written_ += piece;
    counters_->written.store(written_);
    Ring(counters_->data_bell, counters_->reader_waits);
    source += piece;
    bytes -= piece;
  }
  return absl::OkStatus();
}

absl::StatusOr<uint64_t> ByteRingWriter::WaitForSpace(absl::Time deadline) {
  uint64_t used = 0;
  const bool in_time = Wait(counters_->space_bell, counters_->writer_waits, deadline, [&] {
    used = written_ - counters_->read.load();
    return used != capacity_;
  });
  if (aborted()) return AbortReason();
  if (!in_time) {
    return absl::DeadlineExceededError(
        absl::StrCat("the ring stays full: ", capacity_, " bytes await their reader"));
  }
  if (used > capacity_) {
    return absl::DataLossError(absl::StrCat("ring memory is corrupted: ", written_,
                                            " bytes are written, ", written_ - used, " read"));
  }
  return capacity_ - used;
}

absl::StatusOr<std::unique_ptr<ByteRingReader>> ByteRingReader::Map(int fd, int spin_iterations) {
  int64_t bytes = 0;
  ASSIGN_OR_RETURN(void* memory, MapMemory(fd, bytes));
  return std::unique_ptr<ByteRingReader>(new ByteRingReader(memory, bytes, spin_iterations));
}

absl::StatusOr<std::string> ByteRingReader::Receive(absl::Time deadline) {
  if (aborted()) return AbortReason();
  RETURN_IF_ERROR(failure_);
  absl::Status status = Fill(header_, kHeaderBytes, deadline);
  if (status.ok()) {
    const absl::StatusOr<uint32_t> length = DecodeHeader(header_);
    status = length.ok() ? Fill(message_, *length, deadline) : length.status();
  }
  if (absl::IsDataLoss(status)) failure_ = status;
  RETURN_IF_ERROR(status);
  header_.clear();
  return std::exchange(message_, {});
}

// Grows only with what has come, whatever the header promises.
absl::Status ByteRingReader::Fill(std::string& into, size_t bytes, absl::Time deadline) {
  while (into.size() < bytes) {
    ASSIGN_OR_RETURN(const uint64_t available, WaitForData(deadline));
    const size_t begin = into.size();
    const size_t piece = std::min<uint64_t>(available, bytes - begin);
    into.resize(begin + piece);
    CopyOut(read_, into.data() + begin, piece);
    read_ += piece;
    counters_->read.store(read_);
    Ring(counters_->space_bell, counters_->writer_waits);
  }
  return absl::OkStatus();
}

absl::StatusOr<uint64_t> ByteRingReader::WaitForData(absl::Time deadline) {
  uint64_t available = 0;
  const bool in_time = Wait(counters_->data_bell, counters_->reader_waits, deadline, [&] {
    available = counters_->written.load() - read_;
    return available != 0;
  });
  if (aborted()) return AbortReason();
  if (!in_time) return absl::DeadlineExceededError("no message in time");
  if (available > capacity_) {
    return absl::DataLossError(absl::StrCat("ring memory is corrupted: ", read_,
                                            " bytes are read, ", read_ + available, " written"));
  }
  return available;
}

}  // namespace cohort
