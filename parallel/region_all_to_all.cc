// The two halves of RegionCommunicator::AllToAll: counts, then rows.
#include <algorithm>
#include <cstring>

#include "kernels/check.h"
#include "parallel/region_communicator.h"

namespace cohort {

bool RegionCommunicator::TradeCounts(const ExchangeView& send, int64_t row_bytes) {
  const auto* const counts = send.counts.As<int32_t>();
  for (int reader = 0; reader < size_; ++reader) {
    CHECK(counts[reader] >= 0 && counts[reader] <= send.capacity())
        << counts[reader] << " rows for group rank " << reader << ", of " << send.capacity();
  }
  const int64_t bytes = int64_t{sizeof(int32_t)} * size_;
  std::memcpy(own_buffer(), counts, static_cast<size_t>(bytes));
  const uint32_t step = step_;
  if (!PostAndWait([bytes](int, Range) { return Range{0, bytes}; })) {
    return false;
  }
  exchanged_bytes_.resize(static_cast<size_t>(size_) * static_cast<size_t>(size_));
  for (int source = 0; source < size_; ++source) {
    const auto* const theirs = reinterpret_cast<const int32_t*>(region_->buffer(source, step));
    for (int reader = 0; reader < size_; ++reader) {
      ExchangedBytes(source, reader) = theirs[reader] * row_bytes;
    }
  }
  return true;
}

// Every rank knows the bytes from each to each: what one sends to the others in a step lies in its
// buffer without gaps, in order of the readers.
void RegionCommunicator::TradeRows(const ExchangeView& send, const ExchangeView& receive) {
  const int64_t block_bytes = send.capacity() * send.rows.columns() * SizeOf(send.rows.dtype);
  const auto* const outgoing = static_cast<const std::byte*>(send.rows.data);
  auto* const incoming = static_cast<std::byte*>(receive.rows.data);
  const int64_t most = SharedRegion::kBufferBytes / size_;
  const int64_t longest = *std::max_element(exchanged_bytes_.begin(), exchanged_bytes_.end());
  for (int64_t begin = 0; begin < longest; begin += most) {
    const auto chunk = [&](int source, int reader) {
      return std::clamp<int64_t>(ExchangedBytes(source, reader) - begin, 0, most);
    };
    const auto offset = [&](int source, int64_t reader) {
      int64_t bytes = 0;
      for (int before = 0; before < reader; ++before) {
        bytes += chunk(source, before);
      }
      return bytes;
    };
    for (int reader = 0; reader < size_; ++reader) {
      std::memcpy(own_buffer() + offset(rank_, reader), outgoing + reader * block_bytes + begin,
                  static_cast<size_t>(chunk(rank_, reader)));
    }
    const uint32_t step = step_;
    if (!PostAndWait([&](int source, Range readers) {
          return Range{offset(source, readers.begin), offset(source, readers.end)};
        })) {
      return;
    }
    for (int source = 0; source < size_; ++source) {
      std::memcpy(incoming + source * block_bytes + begin,
                  region_->buffer(source, step) + offset(source, rank_),
                  static_cast<size_t>(chunk(source, rank_)));
    }
  }
}

}  // namespace cohort
