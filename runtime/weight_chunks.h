// Pieces of weights cut into what travels at once: rows that go through a buffer, or a window of a
// mapped file that is copied from where it lies.
#ifndef COHORT_RUNTIME_WEIGHT_CHUNKS_H_
#define COHORT_RUNTIME_WEIGHT_CHUNKS_H_

#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "runtime/checkpoint_source.h"
#include "runtime/weight_source.h"

namespace cohort {

// Bytes that lie in a file as they are wanted.
struct StoredRun {
  const unsigned char* source = nullptr;
  TensorView destination;
};

struct WeightChunk {
  bool is_window() const { return !runs.empty(); }
  int64_t bytes() const;  // of the weights

  // Some rows of a piece.
  size_t piece = 0;
  WeightSlice slice;
  TensorView destination;

  // Or a window: whole pages, shared with no other window, and what is wanted of them.
  std::vector<StoredRun> runs;
  const unsigned char* window = nullptr;
  int64_t window_bytes = 0;
};

// Rows for buffers of `buffer_bytes`, which hold one row at least. With `window_bytes`, a multiple
// of a page, slices that lie ready in the file come in windows instead, of so many bytes at most.
std::vector<WeightChunk> CutIntoChunks(absl::Span<const WeightPiece> pieces,
                                       const CheckpointReader& reader, int64_t buffer_bytes,
                                       int64_t window_bytes);

}  // namespace cohort

#endif  // COHORT_RUNTIME_WEIGHT_CHUNKS_H_
