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

#include "runtime/host_cpus.h"
#include "runtime/weight_chunks.h"

namespace cohort {
namespace {

// Where a chunk is on its way: pinned memory of the host with a copy of it, or its window, pinned.
struct Buffer {
  Tensor memory;
  std::unique_ptr<PinnedHost> window;
  CopyQueue* queue = nullptr;
  std::unique_ptr<Mark> mark;  // in the queue
};

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
  absl::Status AllocateBuffers(int64_t bytes);
  absl::Status CopyAll(const LoadedBytes& report);
  void EnqueueChunk(const WeightChunk& chunk, Buffer& buffer);
  absl::Status Reclaim(absl::Duration timeout, const LoadedBytes& report);

  // The readers' side.
  void ReadChunks();
  absl::Status Prepare(const WeightChunk& chunk, Buffer& buffer);
  void ReadRows(const WeightChunk& chunk, Buffer& buffer);
  Buffer* TakeFree();  // null when all is over

  struct Filled {
    Buffer* buffer = nullptr;
    size_t chunk = 0;
    absl::Status status;  // of the reader
  };
  absl::StatusOr<std::optional<Filled>> TakeFilled(bool may_wait);
  void GiveBack(Buffer* buffer);

  const absl::Span<const WeightPiece> pieces_;
  const CheckpointReader& reader_;
  const WeightStreamOptions options_;
  Device& device_;
  std::optional<cpu_set_t> cpus_;  // near the device
  std::vector<WeightChunk> chunks_;
  std::vector<std::atomic<int64_t>> chunks_left_;  // of each piece that is read in rows
  std::atomic<size_t> next_chunk_{0};
  std::vector<Buffer> buffers_;
  std::vector<std::unique_ptr<CopyQueue>>
      queues_;                    // they end, with their copies, before the buffers
  std::deque<Filled> under_way_;  // being copied, the oldest first
  size_t copied_ = 0;             // chunks

  std::mutex mutex_;  // guards what follows
  std::condition_variable changed_;
  std::deque<Buffer*> free_;
  std::deque<Filled> filled_;
  bool is_over_ = false;
};

absl::Status WeightStream::AllocateBuffers(int64_t bytes) {
  const ScopedCpus near_device(cpus_);
  const bool has_rows = std::any_of(chunks_.begin(), chunks_.end(),
                                    [](const WeightChunk& chunk) { return !chunk.is_window(); });
  const size_t count = std::min(chunks_.size(), static_cast<size_t>(options_.buffers));
  for (int i = 0; i < options_.queues; ++i) {
    ASSIGN_OR_RETURN(queues_.emplace_back(), device_.CreateCopyQueue());
  }
  buffers_.resize(count);
  for (size_t i = 0; i < count; ++i) {
    Buffer& buffer = buffers_[i];
    if (has_rows) {
      // Elements of 4 bytes: a dtype says nothing about a buffer.
      ASSIGN_OR_RETURN(buffer.memory, device_.AllocateHost({(bytes + 3) / 4}, DType::kI32));
    }
    buffer.queue = queues_[i % queues_.size()].get();
    ASSIGN_OR_RETURN(buffer.mark, buffer.queue->CreateMark());
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

void WeightStream::ReadRows(const WeightChunk& chunk, Buffer& buffer) {
  const WeightSlice& whole = pieces_[chunk.piece].slice;
  if (chunk.slice.rows.begin == whole.rows.begin) {
    reader_.Begin(whole);
  }
  reader_.Read(chunk.slice, chunk.destination.dtype, buffer.memory.view().data);
  if (--chunks_left_[chunk.piece] == 0) {
    reader_.End(whole);
  }
}

absl::Status WeightStream::Prepare(const WeightChunk& chunk, Buffer& buffer) {
  buffer.window.reset();
  if (!chunk.is_window()) {
    ReadRows(chunk, buffer);
    return absl::OkStatus();
  }
  ASSIGN_OR_RETURN(buffer.window, device_.PinHost(chunk.window, chunk.window_bytes));
  return absl::OkStatus();
}

void WeightStream::ReadChunks() {
  const ScopedCpus near_device(cpus_);
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
    absl::Status status = Prepare(chunks_[index], *buffer);
    const std::lock_guard<std::mutex> lock(mutex_);
    filled_.push_back({buffer, index, std::move(status)});
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
  Filled filled = std::move(filled_.front());
  filled_.pop_front();
  RETURN_IF_ERROR(filled.status);
  return filled;
}

// Gives the oldest buffer under way back once it is copied. DEADLINE_EXCEEDED when it is not.
absl::Status WeightStream::Reclaim(absl::Duration timeout, const LoadedBytes& report) {
  const Filled oldest = under_way_.front();
  RETURN_IF_ERROR(oldest.buffer->mark->Wait(timeout));
  under_way_.pop_front();
  ++copied_;
  report(chunks_[oldest.chunk].bytes());
  GiveBack(oldest.buffer);
  return absl::OkStatus();
}

void WeightStream::EnqueueChunk(const WeightChunk& chunk, Buffer& buffer) {
  if (!chunk.is_window()) {
    buffer.queue->EnqueueCopyFromHost(buffer.memory.view().data, chunk.destination);
  }
  for (const StoredRun& run : chunk.runs) {
    buffer.queue->EnqueueCopyFromHost(run.source, run.destination);
  }
  buffer.mark->Set();
}

absl::Status WeightStream::CopyAll(const LoadedBytes& report) {
  while (copied_ < chunks_.size()) {
    ASSIGN_OR_RETURN(const std::optional<Filled> filled, TakeFilled(under_way_.empty()));
    if (filled.has_value()) {
      EnqueueChunk(chunks_[filled->chunk], *filled->buffer);
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
    buffer_bytes =
        std::max(buffer_bytes, piece.slice.columns.size() * SizeOf(piece.destination.dtype));
  }
  chunks_ = CutIntoChunks(pieces_, reader_, buffer_bytes, options_.window_bytes);
  for (const WeightChunk& chunk : chunks_) {
    chunks_left_[chunk.piece] += chunk.is_window() ? 0 : 1;
  }
  if (const std::optional<int> node = device_.host_node(); node.has_value()) {
    cpus_ = CpusOfNode(*node);
  }
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
  queues_.clear();
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
