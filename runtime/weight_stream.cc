#include "runtime/weight_stream.h"

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <optional>
#include <thread>
#include <utility>
#include <vector>

namespace cohort {
namespace {

// Some rows of a piece: what one buffer holds.
struct Chunk {
  size_t piece = 0;
  WeightSlice slice;
  TensorView destination;
};

struct Buffer {
  Tensor memory;  // of the host, pinned
  std::unique_ptr<Mark> mark;
};

int64_t RowBytes(const WeightPiece& piece) {
  return piece.slice.columns.size() * SizeOf(piece.destination.dtype);
}

class WeightStream {
 public:
  WeightStream(absl::Span<const WeightPiece> pieces, const CheckpointReader& reader,
               const WeightStreamOptions& options, Device& device)
      : pieces_(pieces),
        reader_(reader),
        options_(options),
        device_(device),
        chunks_left_(pieces.size()) {}

  absl::Status Run(const LoadedBytes& report);

 private:
  void CutIntoChunks(int64_t buffer_bytes);
  absl::Status AllocateBuffers(int64_t bytes);
  absl::Status CopyAll(const LoadedBytes& report);
  absl::Status Reclaim(absl::Duration timeout, const LoadedBytes& report);

  // The readers' side.
  void ReadChunks();
  void ReadChunk(const Chunk& chunk, Buffer& buffer);
  Buffer* TakeFree();  // null when all is over

  struct Filled {
    Buffer* buffer = nullptr;
    size_t chunk = 0;
  };
  absl::StatusOr<std::optional<Filled>> TakeFilled(bool may_wait);
  void GiveBack(Buffer* buffer);

  const absl::Span<const WeightPiece> pieces_;
  const CheckpointReader& reader_;
  const WeightStreamOptions options_;
  Device& device_;
  std::vector<Chunk> chunks_;
  std::vector<std::atomic<int64_t>> chunks_left_;  // of each piece, to be read
  std::atomic<size_t> next_chunk_{0};
  std::vector<Buffer> buffers_;
  std::deque<Filled> under_way_;  // being copied, the oldest first
  size_t copied_ = 0;             // chunks

  std::mutex mutex_;  // guards what follows
  std::condition_variable changed_;
  std::deque<Buffer*> free_;
  std::deque<Filled> filled_;
  bool is_over_ = false;
};

void WeightStream::CutIntoChunks(int64_t buffer_bytes) {
  for (size_t i = 0; i < pieces_.size(); ++i) {
    const WeightPiece& piece = pieces_[i];
    if (piece.slice.elements() == 0) {
      continue;
    }
    const int64_t rows_at_once = buffer_bytes / RowBytes(piece);
    for (int64_t row = 0; row < piece.slice.rows.size(); row += rows_at_once) {
      const int64_t rows = std::min(rows_at_once, piece.slice.rows.size() - row);
      Chunk& chunk = chunks_.emplace_back();
      chunk.piece = i;
      chunk.slice = piece.slice;
      chunk.slice.rows = {piece.slice.rows.begin + row, piece.slice.rows.begin + row + rows};
      chunk.destination = piece.destination.Rows(row, rows);
      ++chunks_left_[i];
    }
  }
}

absl::Status WeightStream::AllocateBuffers(int64_t bytes) {
  const size_t count = std::min(chunks_.size(), static_cast<size_t>(options_.buffers));
  buffers_.resize(count);
  for (Buffer& buffer : buffers_) {
    // Elements of 4 bytes: a dtype says nothing about a buffer.
    ASSIGN_OR_RETURN(buffer.memory, device_.AllocateHost({(bytes + 3) / 4}, DType::kI32));
    ASSIGN_OR_RETURN(buffer.mark, device_.CreateMark());
    free_.push_back(&buffer);
  }
  return absl::OkStatus();
}

Buffer* WeightStream::TakeFree() {
  std::unique_lock<std::mutex> lock(mutex_);
  changed_.wait(lock, [this] { return is_over_ || !free_.empty(); });
  if (is_over_) {
    return nullptr;
  }
  Buffer* buffer = free_.front();
  free_.pop_front();
  return buffer;
}

void WeightStream::GiveBack(Buffer* buffer) {
  const std::lock_guard<std::mutex> lock(mutex_);
  free_.push_back(buffer);
  changed_.notify_all();
}

void WeightStream::ReadChunk(const Chunk& chunk, Buffer& buffer) {
  const WeightSlice& whole = pieces_[chunk.piece].slice;
  if (chunk.slice.rows.begin == whole.rows.begin) {
    reader_.Begin(whole);
  }
  reader_.Read(chunk.slice, chunk.destination.dtype, buffer.memory.view().data);
  if (--chunks_left_[chunk.piece] == 0) {
    reader_.End(whole);
  }
}

void WeightStream::ReadChunks() {
  for (;;) {
    // The buffer comes first: whoever has a chunk can read it.
    Buffer* buffer = TakeFree();
    if (buffer == nullptr) {
      return;
    }
    const size_t index = next_chunk_++;
    if (index >= chunks_.size()) {
      GiveBack(buffer);
      return;
    }
    ReadChunk(chunks_[index], *buffer);
    const std::lock_guard<std::mutex> lock(mutex_);
    filled_.push_back({buffer, index});
    changed_.notify_all();
  }
}

absl::StatusOr<std::optional<WeightStream::Filled>> WeightStream::TakeFilled(bool may_wait) {
  std::unique_lock<std::mutex> lock(mutex_);
  if (may_wait && !changed_.wait_for(lock, absl::ToChronoNanoseconds(options_.timeout),
                                     [this] { return !filled_.empty(); })) {
    return absl::DeadlineExceededError(
        absl::StrCat("no part of the weights was read from the checkpoint within ",
                     absl::FormatDuration(options_.timeout), "; ", copied_, " of ", chunks_.size(),
                     " parts were loaded"));
  }
  if (filled_.empty()) {
    return std::nullopt;
  }
  const Filled filled = filled_.front();
  filled_.pop_front();
  return filled;
}

// Gives the oldest buffer under way back once it is copied. DEADLINE_EXCEEDED when it is not.
absl::Status WeightStream::Reclaim(absl::Duration timeout, const LoadedBytes& report) {
  const Filled oldest = under_way_.front();
  RETURN_IF_ERROR(oldest.buffer->mark->Wait(timeout));
  under_way_.pop_front();
  ++copied_;
  report(chunks_[oldest.chunk].slice.elements() * SizeOf(chunks_[oldest.chunk].destination.dtype));
  GiveBack(oldest.buffer);
  return absl::OkStatus();
}

absl::Status WeightStream::CopyAll(const LoadedBytes& report) {
  while (copied_ < chunks_.size()) {
    ASSIGN_OR_RETURN(const std::optional<Filled> filled, TakeFilled(under_way_.empty()));
    if (filled.has_value()) {
      device_.EnqueueCopyFromHost(filled->buffer->memory.view().data,
                                  chunks_[filled->chunk].destination);
      filled->buffer->mark->Set();
      under_way_.push_back(*filled);
    }
    // Waits where there is nothing else to do: the readers may want the buffer.
    absl::Status status =
        Reclaim(filled.has_value() ? absl::ZeroDuration() : options_.timeout, report);
    if (filled.has_value() && absl::IsDeadlineExceeded(status)) {
      status = absl::OkStatus();
    }
    RETURN_IF_ERROR(Annotate(status, "copying weights to the device"));
  }
  return absl::OkStatus();
}

absl::Status WeightStream::Run(const LoadedBytes& report) {
  int64_t buffer_bytes = options_.buffer_bytes;
  for (const WeightPiece& piece : pieces_) {
    buffer_bytes = std::max(buffer_bytes, RowBytes(piece));
  }
  CutIntoChunks(buffer_bytes);
  RETURN_IF_ERROR(AllocateBuffers(buffer_bytes));
  std::vector<std::thread> readers;
  for (int i = 0; i < options_.readers; ++i) {
    readers.emplace_back([this] { ReadChunks(); });
  }
  const absl::Status status = CopyAll(report);
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    is_over_ = true;
    changed_.notify_all();
  }
  for (std::thread& reader : readers) {
    reader.join();
  }
  // Before the buffers go; after a failure some are still under way.
  const absl::Status last = device_.Synchronize();
  return status.ok() ? last : status;
}

}  // namespace

absl::Status StreamWeights(absl::Span<const WeightPiece> pieces, const CheckpointReader& reader,
                           const WeightStreamOptions& options, Device& device,
                           const LoadedBytes& report) {
  return WeightStream(pieces, reader, options, device).Run(report);
}

}  // namespace cohort
