// Flat little-endian messages: a writer, and a reader that checks every bound before it reads or
// reserves. No alignment, no types on the wire; the formats are in the files that use it.
#ifndef COHORT_RUNTIME_BYTE_CODEC_H_
#define COHORT_RUNTIME_BYTE_CODEC_H_

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <string>
#include <utility>

#include "kernels/check.h"
#include "kernels/status.h"

namespace cohort {

static_assert(std::endian::native == std::endian::little, "numbers are copied as they are");

class ByteWriter {
 public:
  void U8(uint8_t value) { Little(value); }
  void U32(uint32_t value) { Little(value); }
  void U64(uint64_t value) { Little(value); }
  void I32(int32_t value) { Little(static_cast<uint32_t>(value)); }
  void F32(float value) { Little(std::bit_cast<uint32_t>(value)); }
  void Count(size_t count) {
    CHECK(count <= std::numeric_limits<uint32_t>::max());
    U32(static_cast<uint32_t>(count));
  }
  void Reserve(size_t bytes) {
    if (bytes > bytes_.size()) {
      bytes_.resize(bytes);
    }
  }
  std::string Take() && {
    bytes_.resize(size_);
    return std::move(bytes_);
  }

 private:
  template <class T>
  void Little(T value) {
    if (sizeof(T) > bytes_.size() - size_) {
      Grow();
    }
    std::memcpy(bytes_.data() + size_, &value, sizeof(T));
    size_ += sizeof(T);
  }

  [[gnu::cold]] void Grow() { bytes_.resize(2 * bytes_.size() + 64); }

  std::string bytes_;  // larger than what was written: an append for every number takes its time
  size_t size_ = 0;
};

// The first fault sticks: from then on every read gives 0 and every count 0, so that a decoder
// reads straight through and asks Finish() once.
class ByteReader {
 public:
  explicit ByteReader(StringView bytes) : bytes_(bytes) {}

  uint8_t U8() { return Little<uint8_t>(); }
  uint32_t U32() { return Little<uint32_t>(); }
  uint64_t U64() { return Little<uint64_t>(); }
  int32_t I32() { return static_cast<int32_t>(Little<uint32_t>()); }
  float F32() { return std::bit_cast<float>(Little<uint32_t>()); }

  // A number of elements that follow, each of at least `element_bytes`; a fault when the rest of
  // the message cannot hold them.
  size_t Count(size_t element_bytes) {
    const size_t count = U32();
    if (count * element_bytes > remaining()) {  // 32 bits by a few
      FailCount(count, element_bytes);
      return 0;
    }
    return count;
  }

  [[gnu::cold]] void Fail(StringView fault) {
    if (ok()) {
      fault_ = absl::StrCat(fault, " (at byte ", offset_, " of ", bytes_.size(), ")");
      bytes_.remove_suffix(remaining());  // what is read from here on is nothing
    }
  }
  bool ok() const { return fault_.empty(); }
  size_t remaining() const { return bytes_.size() - offset_; }

  // INVALID_ARGUMENT naming `what` when a read failed or bytes are left.
  absl::Status Finish(StringView what) {
    if (remaining() > 0) {
      Fail(absl::StrCat(remaining(), " trailing bytes"));
    }
    return ok() ? absl::OkStatus() : absl::InvalidArgumentError(absl::StrCat(what, ": ", fault_));
  }

 private:
  template <class T>
  T Little() {
    if (remaining() < sizeof(T)) {
      Fail("truncated");
      return 0;
    }
    T value = 0;
    std::memcpy(&value, bytes_.data() + offset_, sizeof(T));
    offset_ += sizeof(T);
    return value;
  }

  [[gnu::cold]] void FailCount(size_t count, size_t element_bytes) {
    Fail(absl::StrCat("a count of ", count, " elements of at least ", element_bytes, " bytes, but ",
                      remaining(), " bytes are left"));
  }

  StringView bytes_;
  size_t offset_ = 0;
  std::string fault_;  // empty: none yet
};

}  // namespace cohort

#endif  // COHORT_RUNTIME_BYTE_CODEC_H_
