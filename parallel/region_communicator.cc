#include "parallel/region_communicator.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/strings/str_join.h"
#include "kernels/check.h"
#include "parallel/exchange_shape.h"
#include "parallel/gather_shape.h"
#include "parallel/rank_order_sum.h"
#include "parallel/row_stream.h"

namespace cohort {
namespace {

enum Operation : uint32_t { kBarrier = 0, kAllReduce = 1, kAllGather = 2, kAllToAll = 3 };

// Up to here every rank sums everything: reading that much of each rank costs less than a second
// step.
constexpr int64_t kDirectBytes = 32 * 1024;
// Parts of a large all-reduce start on cache lines, so that ranks do not write into each other's.
constexpr int64_t kPartAlignment = 64;
constexpr int64_t kForeverNanos = int64_t{1} << 60;

constexpr uint32_t Kind(Operation operation, DType dtype) {
  return static_cast<uint32_t>(operation) << 8 | static_cast<uint32_t>(dtype);
}

StringView OperationName(uint32_t kind) {
  switch (kind >> 8) {
    case kBarrier:
      return "barrier";
    case kAllReduce:
      return "all-reduce";
    case kAllGather:
      return "all-gather";
    case kAllToAll:
      return "all-to-all";
  }
  return "unknown operation";
}

StringView DTypeName(uint32_t kind) {
  switch (kind & 0xffu) {
    case static_cast<uint32_t>(DType::kF32):
      return "fp32";
    case static_cast<uint32_t>(DType::kBF16):
      return "bf16";
    case static_cast<uint32_t>(DType::kI32):
      return "int32";
  }
  return "unknown type";
}

// The elements of a chunk of `count` that group rank `rank` sums.
Range PartOf(int rank, int size, int64_t count, int64_t element_bytes) {
  const int64_t line = kPartAlignment / element_bytes;
  const int64_t share = ((count + size - 1) / size + line - 1) / line * line;
  return {std::min(count, rank * share), std::min(count, (rank + 1) * share)};
}

}  // namespace

RegionCommunicator::RegionCommunicator(std::shared_ptr<const SharedRegion> region,
                                       const RegionCommunicatorOptions& options,
                                       std::unique_ptr<RegionBridge> bridge)
    : region_(std::move(region)),
      rank_(options.rank),
      size_(options.size),
      timeout_(options.timeout),
      spin_iterations_(options.spin_iterations),
      bridge_(std::move(bridge)),
      sources_(options.size) {
  CHECK_GE(rank_, 0);
  CHECK_LT(rank_, size_);
  CHECK(timeout_ > absl::ZeroDuration()) << absl::FormatDuration(timeout_);
}

void RegionCommunicator::AllReduceSum(TensorView inout) {
  const int64_t count = inout.shape.elements();
  CHECK(inout.dtype == DType::kF32 || inout.dtype == DType::kBF16) << NameOf(inout.dtype);
  const int64_t element_bytes = SizeOf(inout.dtype);
  if (!Begin(Kind(kAllReduce, inout.dtype), count * element_bytes) || count == 0) {
    return;
  }
  CHECK(inout.is_dense()) << inout.shape.ToString() << " with rows " << inout.row_stride
                          << " apart";
  auto* const data = static_cast<std::byte*>(inout.data);
  if (count * element_bytes <= kDirectBytes) {
    ReduceDirect(data, inout.dtype, count);
    return;
  }
  const int64_t chunk = SharedRegion::kBufferBytes / element_bytes;
  for (int64_t begin = 0; begin < count; begin += chunk) {
    if (!ReduceByParts(data + begin * element_bytes, inout.dtype, std::min(chunk, count - begin))) {
      return;
    }
  }
}

bool RegionCommunicator::ReduceDirect(std::byte* data, DType dtype, int64_t count) {
  const int64_t bytes = count * SizeOf(dtype);
  std::memcpy(own_buffer(), data, static_cast<size_t>(bytes));
  const uint32_t step = step_;
  if (!PostAndWait([bytes](int, Range) { return Range{0, bytes}; })) {
    return false;
  }
  for (int source = 0; source < size_; ++source) {
    sources_[source] = region_->buffer(source, step);
  }
  SumInRankOrder(sources_, dtype, count, data);
  return true;
}

bool RegionCommunicator::ReduceByParts(std::byte* data, DType dtype, int64_t count) {
  const int64_t element_bytes = SizeOf(dtype);
  const auto bytes_of = [element_bytes](int64_t elements) {
    return static_cast<size_t>(elements * element_bytes);
  };
  const auto part_of = [&](int64_t rank) {
    return PartOf(static_cast<int>(rank), size_, count, element_bytes);
  };
  const Range own = part_of(rank_);
  // Nobody else reads what this rank sums itself.
  std::memcpy(own_buffer(), data, bytes_of(own.begin));
  std::memcpy(own_buffer() + bytes_of(own.end), data + bytes_of(own.end),
              bytes_of(count - own.end));
  const uint32_t inputs = step_;
  if (!PostAndWait([&](int, Range readers) {
        return Range{part_of(readers.begin).begin * element_bytes,
                     part_of(readers.end - 1).end * element_bytes};
      })) {
    return false;
  }
  for (int source = 0; source < size_; ++source) {
    const std::byte* values = source == rank_ ? data : region_->buffer(source, inputs);
    sources_[source] = values + bytes_of(own.begin);
  }
  SumInRankOrder(sources_, dtype, own.size(), data + bytes_of(own.begin));
  std::memcpy(own_buffer(), data + bytes_of(own.begin), bytes_of(own.size()));
  const uint32_t sums = step_;
  if (!PostAndWait([&](int source, Range) {
        return Range{0, part_of(source).size() * element_bytes};
      })) {
    return false;
  }
  for (int source = 0; source < size_; ++source) {
    if (source != rank_) {
      const Range part = part_of(source);
      std::memcpy(data + bytes_of(part.begin), region_->buffer(source, sums),
                  bytes_of(part.size()));
    }
  }
  return true;
}

void RegionCommunicator::AllGather(TensorView shard, absl::Span<const Range> parts,
                                   TensorView out) {
  CheckGatherShapes(rank_, size_, shard, parts, out);
  const int64_t rows = out.rows();
  const int64_t element_bytes = SizeOf(out.dtype);
  const int64_t bytes = rows * out.columns() * element_bytes;
  if (!Begin(Kind(kAllGather, out.dtype), bytes) || bytes == 0) {
    return;
  }
  int64_t longest = 0;
  for (const Range part : parts) {
    longest = std::max(longest, rows * part.size());
  }
  const int64_t chunk = SharedRegion::kBufferBytes / element_bytes;
  // Every rank's shard is a stream of its own; chunk k of all of them moves in one step.
  const auto chunk_of = [&](int source, int64_t begin) {
    return std::clamp<int64_t>(rows * parts[source].size() - begin, 0, chunk);
  };
  for (int64_t begin = 0; begin < longest; begin += chunk) {
    PackRows(shard, begin, chunk_of(rank_, begin), own_buffer());
    const uint32_t step = step_;
    if (!PostAndWait([&](int source, Range) {
          return Range{0, chunk_of(source, begin) * element_bytes};
        })) {
      return;
    }
    for (int source = 0; source < size_; ++source) {
      if (source != rank_ && chunk_of(source, begin) > 0) {
        UnpackRows(region_->buffer(source, step),
                   out.Columns(parts[source].begin, parts[source].size()), begin,
                   chunk_of(source, begin));
      }
    }
  }
  if (parts[rank_].size() > 0) {
    CopyRows(shard, out.Columns(parts[rank_].begin, parts[rank_].size()));
  }
}

void RegionCommunicator::AllToAll(const ExchangeView& send, const ExchangeView& receive) {
  CheckExchangeShapes(size_, send, receive);
  const int64_t row_bytes = send.rows.columns() * SizeOf(send.rows.dtype);
  const int64_t block_bytes = send.capacity() * row_bytes;
  if (!Begin(Kind(kAllToAll, send.rows.dtype), block_bytes)) {
    return;
  }
  if (block_bytes == 0) {
    std::fill_n(receive.counts.As<int32_t>(), size_, 0);
    return;
  }
  if (!TradeCounts(send, row_bytes)) {
    return;
  }
  for (int source = 0; source < size_; ++source) {
    receive.counts.As<int32_t>()[source] =
        static_cast<int32_t>(ExchangedBytes(source, rank_) / row_bytes);
  }
  for (int rank = 0; rank < size_; ++rank) {
    ExchangedBytes(rank, rank) = 0;  // stays where it is
  }
  const int64_t own = rank_ * send.capacity();
  const int64_t own_rows = receive.counts.As<int32_t>()[rank_];
  CopyRows(send.rows.Rows(own, own_rows), receive.rows.Rows(own, own_rows));
  TradeRows(send, receive);
}

void RegionCommunicator::Barrier() {
  if (Begin(Kind(kBarrier, DType::kF32), 0)) {
    PostAndWait([](int, Range) { return Range{}; });
  }
}

void RegionCommunicator::Abort() {
  Fail(absl::AbortedError(
      absl::StrCat("communicator of group rank ", rank_, " of ", size_, " was aborted")));
  // The worker reads the bell before it reads failed_, so a sleep that begins after this line sees
  // another value and returns.
  RankPosts& own = region_->control(rank_);
  own.bell.fetch_add(1);
  FutexWakeAll(own.bell);
  if (bridge_ != nullptr) {
    bridge_->Abort();
  }
}

absl::Status RegionCommunicator::status() const {
  const std::lock_guard lock(mutex_);
  return status_;
}

bool RegionCommunicator::Begin(uint32_t kind, int64_t bytes) {
  ++current_.sequence;
  current_.kind = kind;
  current_.bytes = static_cast<uint64_t>(bytes);
  current_.group = static_cast<uint32_t>(size_);
  deadline_nanos_ = 0;
  return !failed_.load();
}

bool RegionCommunicator::PostAndWait(StepBytes bytes) {
  region_->control(rank_).announcements[step_ & 1u] = current_;
  Post(rank_);
  if (bridge_ != nullptr && !CrossHosts(bytes)) {
    return false;
  }
  for (int peer = 0; peer < size_; ++peer) {
    if (peer != rank_ && !WaitFor(peer)) {
      return false;
    }
  }
  if (!AnnouncementsAgree()) {
    return false;
  }
  ++step_;
  return true;
}

void RegionCommunicator::Post(int rank) {
  region_->control(rank).posted.store(step_);
  // Sequentially consistent on both sides: either we see that a peer waits, or it sees the post.
  for (int peer = 0; peer < size_; ++peer) {
    RankPosts& other = region_->control(peer);
    if (peer != rank_ && other.waiting_for.load() == static_cast<uint32_t>(rank) + 1) {
      other.bell.fetch_add(1);
      FutexWakeAll(other.bell);
    }
  }
}

// The leader's part between its own post and the others'.
bool RegionCommunicator::CrossHosts(StepBytes bytes) {
  const Range own = bridge_->own_ranks();
  for (int64_t peer = own.begin; peer < own.end; ++peer) {
    if (peer != rank_ && !WaitFor(static_cast<int>(peer))) {
      return false;
    }
  }
  StartClock();
  const absl::Duration left = absl::Nanoseconds(deadline_nanos_ - MonotonicNanos());
  const absl::Status carried = bridge_->Carry(step_, bytes, left);
  if (!carried.ok()) {
    Fail(Annotate(carried, absl::StrCat(Describe(current_), " on group rank ", rank_)));
    return false;
  }
  for (int peer = 0; peer < size_; ++peer) {
    if (peer < own.begin || peer >= own.end) {
      Post(peer);
    }
  }
  return true;
}

bool RegionCommunicator::WaitFor(int peer) {
  const std::atomic<uint32_t>& posted = region_->control(peer).posted;
  for (int i = 0; i <= spin_iterations_; ++i) {
    if (failed_.load(std::memory_order_relaxed)) {
      return false;
    }
    if (HasReached(posted.load(std::memory_order_acquire), step_)) {
      return true;
    }
    __builtin_ia32_pause();  // some 20 ns: the ranks of a layer differ by microseconds
  }
  return SleepUntilPosted(peer);
}

// The collective's deadline counts from its first wait that is not short.
void RegionCommunicator::StartClock() {
  if (deadline_nanos_ == 0) {
    deadline_nanos_ =
        MonotonicNanos() + std::min(kForeverNanos, absl::ToInt64Nanoseconds(timeout_));
  }
}

bool RegionCommunicator::SleepUntilPosted(int peer) {
  const std::atomic<uint32_t>& posted = region_->control(peer).posted;
  RankPosts& own = region_->control(rank_);
  StartClock();
  bool in_time = true;
  while (true) {
    const uint32_t bell = own.bell.load();
    own.waiting_for.store(static_cast<uint32_t>(peer) + 1);
    if (failed_.load()) {
      break;
    }
    if (HasReached(posted.load(), step_)) {
      own.waiting_for.store(0);
      return true;
    }
    if (!in_time) {
      Fail(DeadlineError(peer));
      break;
    }
    in_time = FutexWait(own.bell, bell, deadline_nanos_);
  }
  own.waiting_for.store(0);
  return false;
}

bool RegionCommunicator::AnnouncementsAgree() {
  for (int peer = 0; peer < size_; ++peer) {
    const Announcement& theirs = region_->control(peer).announcements[step_ & 1u];
    if (theirs != current_) {
      Fail(absl::InternalError(absl::StrCat("ranks of a group disagree: group rank ", rank_,
                                            " is in ", Describe(current_), ", group rank ", peer,
                                            " in ", Describe(theirs))));
      return false;
    }
  }
  return true;
}

void RegionCommunicator::Fail(absl::Status status) {
  const std::lock_guard lock(mutex_);
  if (status_.ok()) {
    status_ = std::move(status);
  }
  failed_.store(true);
}

absl::Status RegionCommunicator::DeadlineError(int first_missing) const {
  std::vector<int> missing;
  for (int peer = first_missing; peer < size_; ++peer) {
    if (!HasReached(region_->control(peer).posted.load(), step_)) {
      missing.push_back(peer);
    }
  }
  return absl::DeadlineExceededError(
      absl::StrCat(Describe(current_), " on group rank ", rank_, " of ", size_, ": group ",
                   missing.size() == 1 ? "rank " : "ranks ", absl::StrJoin(missing, ", "),
                   " had not arrived after ", absl::FormatDuration(timeout_)));
}

std::string RegionCommunicator::Describe(const Announcement& announcement) const {
  const std::string name =
      absl::StrCat(OperationName(announcement.kind), " #", announcement.sequence);
  if (announcement.kind >> 8 == kBarrier) {
    return name;
  }
  return absl::StrCat(name, " (", announcement.bytes, " bytes, ", DTypeName(announcement.kind),
                      ")");
}

}  // namespace cohort
