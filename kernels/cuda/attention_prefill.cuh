// What a block of prefill attention (attention_prefill.cu) keeps in shared memory, and its work.
#ifndef COHORT_KERNELS_CUDA_ATTENTION_PREFILL_CUH_H_
#define COHORT_KERNELS_CUDA_ATTENTION_PREFILL_CUH_H_

#include "kernels/cuda/attention.cuh"
#include "kernels/cuda/attention_tokens.cuh"
#include "kernels/cuda/ptx.cuh"

namespace cohort::cuda::prefill {

inline constexpr int kWarps = 4;
inline constexpr int kThreads = kWarps * 32;
inline constexpr int kKeys = 64;
// What every row has of its own, in shared memory because registers are scarce.
struct RowInfo {
  int32_t visible;  // keys of positions below
  float scale;      // of the logits, to base 2
};

// What a block's rows have in common, in shared memory for the same reason.
struct BlockTokens {
  HeadGroup group;
  TokenRange tokens;
  int32_t last_position;
};

inline constexpr int kSlabsOfTile = kKeys / kSlabKeys;

// kFragments: of 16 rows of a warp, each a first operand of the products.
template <int kHeadDimension, int kFragmentCount, bool kIsChunked>
struct Shape {
  static constexpr int kHeadDim = kHeadDimension;
  static constexpr int kFragments = kFragmentCount;
  static constexpr bool kHasChunks = kIsChunked;
  static constexpr int kChunks = kHeadDim / 8;  // of 16 bytes of a row
  static constexpr int kWarpRows = 16 * kFragments;
  static constexpr int kRows = kWarps * kWarpRows;
  static constexpr int kThreadRows = 2 * kFragments;
  using Tile = SwizzledTile<kHeadDim>;
  using Logits = float[kFragments][kKeys / 8][4];

  // Shared memory.
  static constexpr int kQueryBytes = kRows * kHeadDim * 2;
  static constexpr int kTileBytes = kKeys * kHeadDim * 2;
  static constexpr int kRowInfoOffset = kQueryBytes + 4 * kTileBytes;
  static constexpr int kTokensOffset = kRowInfoOffset + kRows * static_cast<int>(sizeof(RowInfo));
  static constexpr int kBytes = kTokensOffset + static_cast<int>(sizeof(BlockTokens));

  __device__ static Tile Queries() { return {DynamicShared()}; }
  __device__ static Tile Keys(int stage) {
    return {DynamicShared() + kQueryBytes + stage * 2 * kTileBytes};
  }
  __device__ static Tile Values(int stage) {
    return {DynamicShared() + kQueryBytes + (stage * 2 + 1) * kTileBytes};
  }
  __device__ static RowInfo* Rows() {
    return reinterpret_cast<RowInfo*>(DynamicShared() + kRowInfoOffset);
  }
  __device__ static BlockTokens* Tokens() {
    return reinterpret_cast<BlockTokens*>(DynamicShared() + kTokensOffset);
  }
  // The first row of this thread; the others follow 8 apart.
  __device__ static int FirstRow() {
    return static_cast<int>(threadIdx.x) / 32 * kWarpRows + static_cast<int>(threadIdx.x) % 32 / 4;
  }
};

// What stays the same for a block's tokens.
template <class S>
struct BlockWork {
  const TensorCoreAttention& a;

  __device__ static const HeadGroup& group() { return S::Tokens()->group; }
  __device__ static const TokenRange& tokens() { return S::Tokens()->tokens; }
  __device__ static int32_t last_position() { return S::Tokens()->last_position; }
  __device__ static int32_t rows() { return tokens().count * group().count; }
  // Rows behind the last stand for its token.
  __device__ static int32_t Token(int row) {
    return tokens().first + min(row / group().count, tokens().count - 1);
  }
  __device__ static int Head(int row) { return group().first + row % group().count; }
};

}  // namespace cohort::cuda::prefill

#endif  // COHORT_KERNELS_CUDA_ATTENTION_PREFILL_CUH_H_
