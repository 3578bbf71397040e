// How the blocks of prefill attention find their tokens.
#ifndef COHORT_KERNELS_CUDA_ATTENTION_TOKENS_CUH_H_
#define COHORT_KERNELS_CUDA_ATTENTION_TOKENS_CUH_H_

#include <cstdint>

#include "kernels/cuda/attention.cuh"

namespace cohort::cuda {

// Consecutive tokens of one sequence.
struct TokenRange {
  int32_t first;
  int32_t count;  // 0: nothing to do
  int32_t sequence;
};

// The tokens of tile `index`, the same in all lanes: sequences behind the decodes are cut into
// tiles of `tile_tokens`, each from its last tile to its first.
__device__ inline TokenRange FindTokens(const Batch& batch, int32_t index, int32_t tile_tokens) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  for (int32_t base = batch.leading_decodes; base < batch.sequences; base += 32) {
    const int32_t sequence = base + lane;
    const bool is_there = sequence < batch.sequences;
    const int32_t first = is_there ? batch.first_rows[sequence][0] : 0;
    const int32_t rows = is_there ? batch.first_rows[sequence + 1][0] - first : 0;
    const int32_t tiles = (rows + tile_tokens - 1) / tile_tokens;
    int32_t end = tiles;  // of this lane's tiles and those before
    for (int offset = 1; offset < 32; offset *= 2) {
      const int32_t before = __shfl_up_sync(0xffffffffu, end, offset);
      end += lane >= offset ? before : 0;
    }
    const unsigned beyond = __ballot_sync(0xffffffffu, end > index);
    if (beyond != 0) {
      const int owner = __ffs(static_cast<int>(beyond)) - 1;
      const int32_t tile = __shfl_sync(0xffffffffu, end - 1 - index, owner);
      const int32_t owner_first = __shfl_sync(0xffffffffu, first, owner);
      const int32_t owner_rows = __shfl_sync(0xffffffffu, rows, owner);
      const int32_t begin = tile * tile_tokens;
      return {owner_first + begin, min(owner_rows - begin, tile_tokens), base + owner};
    }
    index -= __shfl_sync(0xffffffffu, end, 31);
  }
  return {0, 0, 0};
}

// How many of the first tokens lie before position `end`, the same in all lanes.
__device__ inline int32_t CountBefore(const Batch& batch, const TokenRange& tokens, int32_t end) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  int32_t count = 0;
  for (int32_t base = 0; base < tokens.count; base += 32) {
    const bool is_before =
        base + lane < tokens.count && batch.Position(tokens.first + base + lane) < end;
    count += __popc(__ballot_sync(0xffffffffu, is_before));
  }
  return count;
}

}  // namespace cohort::cuda

#endif  // COHORT_KERNELS_CUDA_ATTENTION_TOKENS_CUH_H_
