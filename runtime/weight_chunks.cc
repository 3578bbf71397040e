#include "runtime/weight_chunks.h"

#include <unistd.h>

#include <algorithm>
#include <map>

namespace cohort {
namespace {

void AddRows(const WeightPiece& piece, size_t index, int64_t buffer_bytes,
             std::vector<WeightChunk>& chunks) {
  const int64_t row_bytes = piece.slice.columns.size() * SizeOf(piece.destination.dtype);
  const int64_t rows_at_once = buffer_bytes / row_bytes;
  for (int64_t row = 0; row < piece.slice.rows.size(); row += rows_at_once) {
    const int64_t rows = std::min(rows_at_once, piece.slice.rows.size() - row);
    WeightChunk& chunk = chunks.emplace_back();
    chunk.piece = index;
    chunk.slice = piece.slice;
    chunk.slice.rows = {piece.slice.rows.begin + row, piece.slice.rows.begin + row + rows};
    chunk.destination = piece.destination.Rows(row, rows);
  }
}

using Windows = std::map<uintptr_t, std::vector<StoredRun>>;  // by their number

// False where the slice cannot be copied from where it lies.
bool AddRuns(const WeightPiece& piece, const CheckpointReader& reader, int64_t window_bytes,
             Windows& windows) {
  const DType dtype = piece.destination.dtype;
  const auto* source = static_cast<const unsigned char*>(reader.View(piece.slice, dtype));
  const int64_t element = SizeOf(dtype);
  const auto window_size = static_cast<uintptr_t>(window_bytes);
  if (source == nullptr ||
      reinterpret_cast<uintptr_t>(source) % static_cast<uintptr_t>(element) != 0) {
    return false;
  }
  auto* destination = static_cast<unsigned char*>(piece.destination.data);
  for (int64_t left = piece.slice.elements() * element; left > 0;) {
    const uintptr_t address = reinterpret_cast<uintptr_t>(source);
    const int64_t bytes = std::min(left, static_cast<int64_t>(window_size - address % window_size));
    windows[address / window_size].push_back(
        {source, TensorView(destination, dtype, {bytes / element})});
    source += bytes;
    destination += bytes;
    left -= bytes;
  }
  return true;
}

int64_t BytesOf(const StoredRun& run) {
  return run.destination.shape.elements() * SizeOf(run.destination.dtype);
}

WeightChunk WindowOf(std::vector<StoredRun> runs) {
  const int64_t page = sysconf(_SC_PAGESIZE);
  WeightChunk chunk;
  const unsigned char* begin = runs.front().source;
  const unsigned char* end = begin;
  for (const StoredRun& run : runs) {
    begin = std::min(begin, run.source);
    end = std::max(end, run.source + BytesOf(run));
  }
  const int64_t before = static_cast<int64_t>(reinterpret_cast<uintptr_t>(begin)) % page;
  chunk.window = begin - before;
  chunk.window_bytes = (end - chunk.window + page - 1) / page * page;
  chunk.runs = std::move(runs);
  return chunk;
}

}  // namespace

int64_t WeightChunk::bytes() const {
  if (!is_window()) {
    return slice.elements() * SizeOf(destination.dtype);
  }
  int64_t sum = 0;
  for (const StoredRun& run : runs) {
    sum += BytesOf(run);
  }
  return sum;
}

std::vector<WeightChunk> CutIntoChunks(absl::Span<const WeightPiece> pieces,
                                       const CheckpointReader& reader, int64_t buffer_bytes,
                                       int64_t window_bytes) {
  std::vector<WeightChunk> chunks;
  Windows windows;
  for (size_t i = 0; i < pieces.size(); ++i) {
    if (pieces[i].slice.elements() > 0 &&
        (window_bytes == 0 || !AddRuns(pieces[i], reader, window_bytes, windows))) {
      AddRows(pieces[i], i, buffer_bytes, chunks);
    }
  }
  for (auto& [number, runs] : windows) {
    chunks.push_back(WindowOf(std::move(runs)));
  }
  return chunks;
}

}  // namespace cohort
