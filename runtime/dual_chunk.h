// Dual chunk attention (arXiv 2402.17463): a model reads further than it was trained to without any
// other weights. Positions are cut into chunks; the rotations of keys begin again in every chunk,
// and queries are rotated so that no distance appears longer than chunk_size.
#ifndef COHORT_RUNTIME_DUAL_CHUNK_H_
#define COHORT_RUNTIME_DUAL_CHUNK_H_

#include <algorithm>
#include <cstdint>

namespace cohort {

struct DualChunkConfig {
  int64_t chunk_size = 0;          // the longest distance that appears
  int64_t local_size = 0;          // 1..chunk_size - 1; so far the chunk before is seen exactly
  int64_t original_positions = 0;  // beyond so many, longer sequences attend more sharply; 0: never

  int64_t chunk_length() const { return chunk_size - local_size; }
  // Of the rope table: one for each distance that appears.
  int64_t rope_rows() const { return std::min(chunk_size, 2 * chunk_length() - 1) + 1; }
};

}  // namespace cohort

#endif  // COHORT_RUNTIME_DUAL_CHUNK_H_
