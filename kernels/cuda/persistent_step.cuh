// The persistent step's arguments and the shared memory of its blocks (persistent_step.cu).
#ifndef COHORT_KERNELS_CUDA_PERSISTENT_STEP_CUH_H_
#define COHORT_KERNELS_CUDA_PERSISTENT_STEP_CUH_H_

#include <cstdint>

#include "kernels/cuda/attention_decode.cuh"
#include "kernels/cuda/device.h"
#include "kernels/cuda/persistent_step.h"
#include "kernels/cuda/stream_epilogues.cuh"
#include "kernels/cuda/stream_tile.cuh"

namespace cohort::cuda {

inline constexpr int kStepTokens = 8;

// What differs between layers; a kernel's parameters hold them all.
struct StepLayer {
  const BFloat16* attention_norm;
  const BFloat16* qkv;
  const BFloat16* qkv_bias;  // may be null
  const BFloat16* attention_out;
  const BFloat16* ffn_norm;
  const BFloat16* gate_up;
  const BFloat16* down;
  BFloat16* keys;
  BFloat16* values;
};

// A product of every layer: `operands` without the addresses of its weight and of x. Its blocks are
// those of the plan, counted from `first_block` on, so that the small products of a layer, which
// have no work for all blocks, fall to different ones.
struct StepProduct {
  StreamOperands operands;
  int first_block;
};

struct StepArguments {
  StepLayer layers[kStepLayers];
  int layer_count;
  int tokens;
  int hidden;
  float eps;
  StepProduct qkv;
  StepProduct attention_out;
  StepProduct gate_up;
  StepProduct down;
  RopeEpilogue rope;          // without a layer's bias and KV memory
  DecodeArguments attention;  // without a layer's KV memory
  int attention_groups;
  int attention_splits;
  const BFloat16* final_norm;
  Rows<const BFloat16> residual;
  Rows<float> partial;
  Rows<BFloat16> attended;
  Rows<BFloat16> activated;
  Rows<BFloat16> normed;
  uint32_t* counters;  // StepCounters
};

// How many blocks have finished each part of each layer, then how many have left the kernel: zeros
// before and after.
enum StepPart { kQkvPart, kAttentionPart, kOutPart, kGateUpPart, kDownPart, kStepParts };
struct StepCounters {
  uint32_t* begin;

  __device__ uint32_t* Of(int layer, StepPart part) const {
    return begin + layer * kStepParts + part;
  }
  __device__ uint32_t* Left() const { return begin + kStepLayers * kStepParts; }
};
static_assert(kStepLayers * kStepParts + 1 == kStepCounters);

// Dynamic shared memory of a block. What products and attention work in is one area, because a
// block does one after the other.
template <int kHeadDim>
struct StepShared {
  static constexpr int kTokenTiles = 1;
  static constexpr int kRing = 7;  // stages
  static constexpr int kStageBytes = kStreamStageRows * kStreamRowBytes;
  // The residual, and the normed input of a product: rows of the hidden size and 16 bytes.
  static constexpr int kRowsBytes = kStepTokens * (2048 * 2 + 16);
  static constexpr int kResidualOffset = kRing * kStageBytes;
  static constexpr int kAreaOffset = kResidualOffset + kRowsBytes;
  static constexpr int kAreaBytes = 64 << 10;
  // Of the area: x, either normed rows or a ring of chunks; the sums of the warps.
  static constexpr int kXBytes = kStepTokens * kStreamRowBytes;
  static constexpr int kXRing = 7;
  static constexpr int kSumsOffset = kAreaOffset + kRowsBytes;
  static constexpr int kSumsBytes = kStreamTileUnits * kStreamMathWarps * 32 * 16;
  static_assert(kXRing * kXBytes <= kRowsBytes && kRowsBytes + kSumsBytes <= kAreaBytes);
  using Decode = DecodeShared<kHeadDim, 2 * 128 / kHeadDim, 2>;
  static_assert(Decode::kBytes <= kAreaBytes);
  static constexpr int kBarriersOffset = kAreaOffset + kAreaBytes;
  static constexpr int kSquaresOffset = kBarriersOffset + 2 * kRing * 8;
  static constexpr int kPlacesOffset = kSquaresOffset + kStepTokens * kStreamMathWarps * 4;
  static constexpr int kFlagOffset = kPlacesOffset + kStepTokens * sizeof(RopeEpilogue::Place);
  static constexpr int kBytes = kFlagOffset + 16;
  static_assert(kBytes <= 227 << 10);

  unsigned char* begin;

  __device__ unsigned char* StageRow(int stage, int row) const {
    return begin + stage % kRing * kStageBytes + row * kStreamRowBytes;
  }
  __device__ BFloat16* ResidualRow(int hidden, int token) const {
    return reinterpret_cast<BFloat16*>(begin + kResidualOffset + token * (hidden * 2 + 16));
  }
  __device__ unsigned char* NormedRow(int hidden, int token) const {
    return begin + kAreaOffset + token * (hidden * 2 + 16);
  }
  __device__ unsigned char* XRow(int chunk, int token) const {
    return begin + kAreaOffset + chunk % kXRing * kXBytes + token * kStreamRowBytes;
  }
  __device__ float4* Sums(int unit, int warp, int) const {
    return reinterpret_cast<float4*>(begin + kSumsOffset) + (unit * kStreamMathWarps + warp) * 32;
  }
  __device__ Decode Attention() const { return {begin + kAreaOffset}; }
  __device__ uint64_t* Full(int stage) const { return Barriers() + stage % kRing; }
  __device__ uint64_t* Empty(int stage) const { return Barriers() + kRing + stage % kRing; }
  // Of a token: the sums of squares of each warp.
  __device__ float* Squares(int token) const {
    return reinterpret_cast<float*>(begin + kSquaresOffset) + token * kStreamMathWarps;
  }
  // The same for all layers.
  __device__ RopeEpilogue::Place* RopePlace(int token) const {
    return reinterpret_cast<RopeEpilogue::Place*>(begin + kPlacesOffset) + token;
  }
  __device__ uint32_t* IsLast() const { return reinterpret_cast<uint32_t*>(begin + kFlagOffset); }

 private:
  __device__ uint64_t* Barriers() const {
    return reinterpret_cast<uint64_t*>(begin + kBarriersOffset);
  }
};

}  // namespace cohort::cuda

#endif  // COHORT_KERNELS_CUDA_PERSISTENT_STEP_CUH_H_
