// What the roles of attention_wgmma.cu share: shared memory, its rings and barriers, pieces of
// work.
#ifndef COHORT_KERNELS_CUDA_ATTENTION_WGMMA_CUH_H_
#define COHORT_KERNELS_CUDA_ATTENTION_WGMMA_CUH_H_

#include <cstdint>

#include "kernels/cuda/attention.cuh"
#include "kernels/cuda/attention.h"
#include "kernels/cuda/attention_tokens.cuh"
#include "kernels/cuda/wgmma.cuh"

namespace cohort::cuda::wgmma_attention {

constexpr int kConsumers = 2;  // warpgroups
constexpr int kThreads = (1 + kConsumers) * kWarpgroupThreads;
constexpr int kGroupRows = 64;  // of a consumer
constexpr int kRows = kConsumers * kGroupRows;
constexpr int kKeys = 128;  // of a tile
constexpr int kStages = 3;  // tiles of keys, and as many of values
constexpr int kSlabsOfTile = kKeys / kSlabKeys;
constexpr int kConsumerWarps = kConsumers * kWarpgroupThreads / 32;
constexpr int kProducerWarps = kWarpgroupThreads / 32;

// Work is cut into pairs (tile of tokens, group), some perhaps without tokens. The first `whole` of
// them are an item each; the keys of the others are cut into up to `splits` ranges, an item each.
struct Arguments {
  TensorCoreAttention attention;
  int32_t groups;
  int32_t whole;
  int32_t splits;
  int32_t items;
  uint32_t* arrived;  // [pairs behind `whole`, kConsumers], zero between launches
  float* ranges;      // [items behind `whole`, kRows, head size + 2]
};

// A piece of work: some consecutive tokens, with the heads of a group, over a range of their keys.
struct Work {
  int32_t index;
  TokenRange tokens;
  int32_t first_tile;
  int32_t tiles;   // of keys; 0: no more work
  int32_t ranges;  // of the tokens' keys; 1: this item has all
};
struct Item : Work {
  HeadGroup group;
  int32_t last_position;

  __device__ int32_t rows() const { return tokens.count * group.count; }
  // Rows behind the last stand for its token.
  __device__ int32_t Token(int row) const {
    return tokens.first + min(row / group.count, tokens.count - 1);
  }
  __device__ int Head(int row) const { return group.first + row % group.count; }
};

// Tiles of 128 rows: halves of 64 columns, each of which is an operand in shared memory
// (wgmma.cuh). The rows of a query tile are K-major operands, of a key tile too, of a value tile
// MN-major ones.
template <int kHeadDimension>
struct Shape {
  static constexpr int kHeadDim = kHeadDimension;
  static constexpr int kChunks = kHeadDim / 8;  // of 16 bytes of a row
  static constexpr int kHalfBytes = 128 * 128;
  static constexpr int kTileBytes = kHeadDim / 64 * kHalfBytes;
  static constexpr int kBarriersOffset = (1 + 2 * kStages) * kTileBytes;
  static constexpr int kBarriers = 2 + 4 * kStages;
  static constexpr int kWorkOffset =
      kBarriersOffset + kBarriers * static_cast<int>(sizeof(uint64_t));
  static constexpr int kVisibleOffset = kWorkOffset + static_cast<int>(sizeof(Work));
  static constexpr int kBytes =
      kVisibleOffset + kRows * static_cast<int>(sizeof(int32_t)) + kMatrixSlack;
  static_assert(kRows == 128 && kKeys == 128);
};

// Counts through a ring of kStages slots.
struct RingPlace {
  int slot = 0;
  uint32_t parity = 0;  // of the round

  __device__ void Advance() {
    if (++slot == kStages) {
      slot = 0;
      parity ^= 1;
    }
  }
};

// The block's shared memory. A slot is filled when its full barrier's phase ends, free again when
// its empty barrier's does.
template <class S>
struct SharedMemory {
  unsigned char* base = DynamicSharedMatrices();

  __device__ unsigned char* Queries() const { return base; }
  __device__ unsigned char* Keys(int slot) const { return base + (1 + slot) * S::kTileBytes; }
  __device__ unsigned char* Values(int slot) const {
    return base + (1 + kStages + slot) * S::kTileBytes;
  }
  // What the queries are of, and for each row how many keys it sees. Guarded like the queries.
  __device__ Work* CurrentWork() const { return reinterpret_cast<Work*>(base + S::kWorkOffset); }
  __device__ int32_t* Visible() const {
    return reinterpret_cast<int32_t*>(base + S::kVisibleOffset);
  }
  __device__ uint64_t* QueriesFull() const { return Barrier(0); }
  __device__ uint64_t* QueriesEmpty() const { return Barrier(1); }
  __device__ uint64_t* KeysFull(int slot) const { return Barrier(2 + slot); }
  __device__ uint64_t* KeysEmpty(int slot) const { return Barrier(2 + kStages + slot); }
  __device__ uint64_t* ValuesFull(int slot) const { return Barrier(2 + 2 * kStages + slot); }
  __device__ uint64_t* ValuesEmpty(int slot) const { return Barrier(2 + 3 * kStages + slot); }

  __device__ uint64_t* Barrier(int i) const {
    return reinterpret_cast<uint64_t*>(base + S::kBarriersOffset) + i;
  }
  // By one thread.
  __device__ void InitBarriers() const {
    for (int i = 0; i < S::kBarriers; ++i) {
      const bool is_full = i == 0 || (i >= 2 && (i - 2) / kStages % 2 == 0);
      BarrierInit(Barrier(i), is_full ? kProducerWarps : kConsumerWarps);
    }
    BarrierInitFence();
  }
};

// A range is no shorter than this many tiles: below, merging costs more than it brings.
constexpr int kLeastTiles = 8;

// Of an item.
__device__ inline int32_t PairOf(const Arguments& a, int32_t index) {
  return index < a.whole ? index : a.whole + (index - a.whole) / a.splits;
}
__device__ inline HeadGroup GroupOf(const Arguments& a, int32_t index) {
  return a.attention.groups.item[PairOf(a, index) % a.groups];
}

// The same in all lanes of a warp. Groups of tokens lie side by side, and ranges of both: what
// takes longest comes first.
__device__ inline Item FindItem(const Arguments& a, int32_t index) {
  const Batch& batch = a.attention.batch;
  const int32_t pair = PairOf(a, index);
  Item item;
  item.index = index;
  item.group = GroupOf(a, index);
  item.tokens = FindTokens(batch, pair / a.groups, kRows / item.group.count);
  item.tiles = 0;
  if (item.tokens.count == 0) {
    return item;
  }
  item.last_position = batch.Position(item.tokens.first + item.tokens.count - 1);
  const int32_t tiles = item.last_position / kKeys + 1;
  const bool is_whole = index < a.whole;
  const int32_t of_range = is_whole ? tiles : max((tiles + a.splits - 1) / a.splits, kLeastTiles);
  item.ranges = (tiles + of_range - 1) / of_range;
  item.first_tile = is_whole ? 0 : (index - a.whole) % a.splits * of_range;
  item.tiles = min(of_range, tiles - item.first_tile);
  return item;
}

// Calls take(item) for the items of this block. Every other round goes backwards, so that blocks
// get equal shares of items that become smaller and smaller.
template <class Take>
__device__ void ForEachItem(const Arguments& a, Take take) {
  const auto blocks = static_cast<int32_t>(gridDim.x);
  const auto block = static_cast<int32_t>(blockIdx.x);
  for (int32_t begin = 0, round = 0; begin < a.items; begin += blocks, ++round) {
    const int32_t index = begin + (round % 2 == 0 ? block : blocks - 1 - block);
    if (index >= a.items) {
      continue;
    }
    const Item item = FindItem(a, index);
    if (item.tiles > 0) {
      take(item);
    }
  }
}

}  // namespace cohort::cuda::wgmma_attention

#endif  // COHORT_KERNELS_CUDA_ATTENTION_WGMMA_CUH_H_
