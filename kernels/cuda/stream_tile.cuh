// Tiles of a weight-streaming product: what the kernels that stream weights are made of, whatever
// brings their tokens and decides which tile comes next (stream.cuh, persistent_step.cu).
//
// A tile is multiplied in chunks of 256 columns; a chunk comes in two stages of 32 rows, each into
// a place of a ring in shared memory that one warp fills by bulk copies and eight warps multiply
// from. Stages, and the chunks that they make up, are counted from the kernel's begin on.
//
// `Shared` says where things lie: kRing places, kTokenTiles tiles of 8 tokens; StageRow(stage,
// row), Full(stage) and Empty(stage), barriers of 1 and of kStreamMathWarps arrivals; Sums(unit,
// warp, token tile), the 32 lanes' mma results; IsLast(), a flag.
#ifndef COHORT_KERNELS_CUDA_STREAM_TILE_CUH_H_
#define COHORT_KERNELS_CUDA_STREAM_TILE_CUH_H_

#include <cstdint>

#include "kernels/cuda/device.h"
#include "kernels/cuda/ptx.cuh"
#include "kernels/cuda/rows.cuh"
#include "kernels/cuda/stream_plan.h"

namespace cohort::cuda {

inline constexpr int kStreamMaxTokens = 16;
inline constexpr int kStreamMathWarps = 8;
inline constexpr int kStreamMathThreads = kStreamMathWarps * 32;
inline constexpr int kStreamThreads = kStreamMathThreads + 32;
inline constexpr int kStreamStageRows = 32;
inline constexpr int kStreamStageUnits = kStreamStageRows / kStreamUnitRows;
inline constexpr int kStreamChunkStages = kStreamTileUnits / kStreamStageUnits;
inline constexpr int kStreamRowBytes = kStreamChunkColumns * 2 + 16;
inline constexpr int kStreamMathBarrier = 1;

// Row r of unit u of the weight: a unit's first and last eight rows are runs that lie `second`
// apart. An epilogue gets rows i and i + 8 of a unit in one thread.
struct UnitRows {
  int per_span;  // units
  int span;      // rows between the first rows of spans
  int second;    // rows

  __device__ int64_t Row(int unit, int r) const {
    const int first = unit / per_span * span + unit % per_span * 8;
    return int64_t{first} + (r < 8 ? r : r - 8 + second);
  }
};

// Unit u is rows 16u to 16u + 15.
inline constexpr UnitRows kPlainRows = {.per_span = 1, .span = kStreamUnitRows, .second = 8};
// Unit u is 8 gate rows and the up rows of the same `columns`, a multiple of 8, of the output.
inline UnitRows GateUpRows(int columns) {
  return {.per_span = columns / 8, .span = 0, .second = columns};
}
// A unit is 8 rows of the first half of a head and the 8 that they rotate with.
inline UnitRows HeadRows(int half) {
  return {.per_span = half / 8, .span = 2 * half, .second = half};
}

struct StreamOperands {
  Rows<const BFloat16> weight;
  Rows<const BFloat16> x;
  int rows;     // of the weight
  int columns;  // of both, a multiple of 8
  int tokens;
  int units;
  UnitRows unit_rows;
  StreamPlan plan;
  float2* partials;    // [item][round][thread]
  uint32_t* arrivals;  // [tile], zeros before and after

  __device__ int ColumnsOf(int chunk) const {
    return min(kStreamChunkColumns, columns - chunk * kStreamChunkColumns);
  }
};

// --- The copying warp ---

// By one warp: enqueues the rows of stage `stage`, the `half`-th of its chunk. `tokens` rows of x
// come on the same barrier.
template <class Shared>
__device__ void CopyStage(const StreamOperands& operands, const Shared& shared, int tile, int chunk,
                          int half, int stage, uint32_t tokens) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int unit = tile * kStreamTileUnits + half * kStreamStageUnits + lane / kStreamUnitRows;
  const int64_t row = operands.unit_rows.Row(unit, lane % kStreamUnitRows);
  const bool is_there = unit < operands.units && row < operands.rows;
  const uint32_t row_bytes = static_cast<uint32_t>(operands.ColumnsOf(chunk)) * 2;
  const uint32_t rows = static_cast<uint32_t>(__popc(__ballot_sync(0xffffffffu, is_there)));
  if (lane == 0) {
    BarrierArriveExpect(shared.Full(stage), (rows + tokens) * row_bytes);
  }
  __syncwarp();
  if (is_there) {
    BulkCopyStreaming(shared.StageRow(stage, lane),
                      operands.weight[row] + int64_t{chunk} * kStreamChunkColumns, row_bytes,
                      shared.Full(stage));
  }
}

// --- The multiplying warps ---

// A warp's sums over the chunks of an item: units of the tile, tiles of 8 tokens, mma's four.
template <int kTokenTiles>
struct StreamSums {
  float of[kStreamTileUnits][kTokenTiles][4];
};

// The mma operands of the tokens: 32 columns are two steps of 16.
template <int kTokenTiles>
struct StreamTokens {
  uint32_t of[kTokenTiles][4];  // [2 * step + half of 8 columns]
};

inline constexpr int kStreamSteps = kStreamChunkColumns / kStreamMathWarps / 16;

// The warp's columns of a chunk, of which row_of(token) is the token's row in shared memory.
// `groups`: how many of the warp's four runs of 8 columns there are; what lies behind them is old.
template <int kTokenTiles, class RowOf>
__device__ StreamTokens<kTokenTiles> LoadTokens(int count, int groups, const RowOf& row_of) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int warp = static_cast<int>(threadIdx.x) / 32;
  StreamTokens<kTokenTiles> tokens;
#pragma unroll
  for (int tile = 0; tile < kTokenTiles; ++tile) {
    // Columns of the product beyond the last token repeat it and go nowhere.
    const int token = min(tile * 8 + lane % 8, count - 1);
    LoadMatrix4(tokens.of[tile], row_of(token) + (warp * 4 + lane / 8) * 16);
#pragma unroll
    for (int group = 0; group < 4; ++group) {
      tokens.of[tile][group] = group < groups ? tokens.of[tile][group] : 0;
    }
  }
  return tokens;
}

// Adds the stage's columns of this warp to the sums of its units, `first_unit` and the next.
template <int kFirstUnit, class Shared>
__device__ void MultiplyStage(const Shared& shared, int stage, int groups,
                              const StreamTokens<Shared::kTokenTiles>& tokens,
                              StreamSums<Shared::kTokenTiles>* sums) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int warp = static_cast<int>(threadIdx.x) / 32;
  uint32_t weights[kStreamStageUnits][kStreamSteps][4];
#pragma unroll
  for (int unit = 0; unit < kStreamStageUnits; ++unit) {
#pragma unroll
    for (int step = 0; step < kStreamSteps; ++step) {
      LoadMatrix4(weights[unit][step], shared.StageRow(stage, unit * kStreamUnitRows + lane % 16) +
                                           (warp * 4 + step * 2 + lane / 16) * 16);
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        weights[unit][step][i] = step * 2 + i / 2 < groups ? weights[unit][step][i] : 0;
      }
    }
  }
  __syncwarp();
  if (lane == 0) {
    BarrierArrive(shared.Empty(stage));
  }
#pragma unroll
  for (int step = 0; step < kStreamSteps; ++step) {
#pragma unroll
    for (int unit = 0; unit < kStreamStageUnits; ++unit) {
#pragma unroll
      for (int tile = 0; tile < Shared::kTokenTiles; ++tile) {
        const uint32_t b[2] = {tokens.of[tile][2 * step], tokens.of[tile][2 * step + 1]};
        MmaBf16(sums->of[kFirstUnit + unit][tile], weights[unit][step], b);
      }
    }
  }
}

// The sums over the chunks of an item; `count` counts the block's chunks. load(item's chunk, count,
// groups) gives the tokens once the chunk's first stage is there.
template <class Shared, class Load>
__device__ StreamSums<Shared::kTokenTiles> MultiplyItem(const StreamOperands& operands,
                                                        const Shared& shared, int item, int* count,
                                                        const Load& load) {
  static_assert(kStreamChunkStages == 2);
  const StreamPlan& plan = operands.plan;
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const int slice = item % plan.slices;
  const int chunk_end = BeginOfPart(slice + 1, plan.slices, plan.chunks);
  StreamSums<Shared::kTokenTiles> sums{};
  for (int chunk = BeginOfPart(slice, plan.slices, plan.chunks); chunk < chunk_end;
       ++chunk, ++*count) {
    const int groups = operands.ColumnsOf(chunk) / 8 - warp * 4;
    const int stage = *count * kStreamChunkStages;
    BarrierWait(shared.Full(stage), static_cast<uint32_t>(stage / Shared::kRing) & 1);
    const auto tokens = load(chunk, *count, groups);
    MultiplyStage<0>(shared, stage, groups, tokens, &sums);
    BarrierWait(shared.Full(stage + 1), static_cast<uint32_t>((stage + 1) / Shared::kRing) & 1);
    MultiplyStage<kStreamStageUnits>(shared, stage + 1, groups, tokens, &sums);
  }
  return sums;
}

// Which element of a round's units a thread finishes: `token`, rows `pair` and `pair` + 8 of unit
// `unit` of the round.
template <int kTokenTiles>
struct StreamElement {
  int unit;
  int token;
  int pair;

  __device__ StreamElement()
      : unit(static_cast<int>(threadIdx.x) / (64 * kTokenTiles)),
        token(static_cast<int>(threadIdx.x) % (64 * kTokenTiles) / 8),
        pair(static_cast<int>(threadIdx.x) % 8) {}
};

// Adds the sums of the eight warps; what this thread's element of each round comes to.
template <class Shared, int kTokenTiles>
__device__ void AddWarps(const Shared& shared, const StreamSums<kTokenTiles>& sums,
                         float2 (&totals)[kTokenTiles]) {
  constexpr int kUnitsPerRound = kStreamTileUnits / kTokenTiles;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const StreamElement<kTokenTiles> element;
  const int from_lane = element.pair * 4 + element.token % 8 / 2;
#pragma unroll
  for (int round = 0; round < kTokenTiles; ++round) {
    NamedBarrier(kStreamMathBarrier, kStreamMathThreads);  // the round before has been read
#pragma unroll
    for (int unit = 0; unit < kUnitsPerRound; ++unit) {
#pragma unroll
      for (int tile = 0; tile < kTokenTiles; ++tile) {
        const float(&d)[4] = sums.of[round * kUnitsPerRound + unit][tile];
        shared.Sums(unit, warp, tile)[lane] = make_float4(d[0], d[1], d[2], d[3]);
      }
    }
    NamedBarrier(kStreamMathBarrier, kStreamMathThreads);
    float2 total = {0, 0};
#pragma unroll
    for (int from = 0; from < kStreamMathWarps; ++from) {
      const float4 d = shared.Sums(element.unit, from, element.token / 8)[from_lane];
      total.x += element.token % 2 == 0 ? d.x : d.y;
      total.y += element.token % 2 == 0 ? d.z : d.w;
    }
    totals[round] = total;
  }
}

// Whether this block is the last of the tile's; then `totals` are the sums over its slices.
template <class Shared, int kTokenTiles>
__device__ bool AddSlices(const StreamOperands& operands, const Shared& shared, int item,
                          float2 (&totals)[kTokenTiles]) {
  const int slices = operands.plan.slices;
  const int tile = item / slices;
  const auto partial = [&](int of_item, int round) {
    return operands.partials + (int64_t{of_item} * kTokenTiles + round) * kStreamMathThreads +
           threadIdx.x;
  };
#pragma unroll
  for (int round = 0; round < kTokenTiles; ++round) {
    *partial(item, round) = totals[round];
  }
  NamedBarrier(kStreamMathBarrier, kStreamMathThreads);
  if (threadIdx.x == 0) {
    const uint32_t before = FetchAddAcquireRelease(&operands.arrivals[tile], 1);
    *shared.IsLast() = before + 1 == static_cast<uint32_t>(slices) ? 1 : 0;
    if (*shared.IsLast() != 0) {
      operands.arrivals[tile] = 0;
    }
  }
  NamedBarrier(kStreamMathBarrier, kStreamMathThreads);
  if (*shared.IsLast() == 0) {
    return false;
  }
#pragma unroll
  for (int round = 0; round < kTokenTiles; ++round) {
    totals[round] = {0, 0};
    for (int slice = 0; slice < slices; ++slice) {
      const float2 addend = __ldcg(partial(tile * slices + slice, round));
      totals[round].x += addend.x;
      totals[round].y += addend.y;
    }
  }
  return true;
}

// The items [begin, end): sums, and the epilogue of those tiles whose last item this block
// finishes. `place` is epilogue.PlaceOf this thread's token (StreamElement).
template <class Shared, class Epilogue, class Place, class Load>
__device__ void MultiplyItems(const StreamOperands& operands, const Shared& shared, int begin,
                              int end, const Epilogue& epilogue, const Place& place, int* count,
                              const Load& load) {
  constexpr int kTokenTiles = Shared::kTokenTiles;
  const StreamElement<kTokenTiles> element;
  const int slices = operands.plan.slices;
  for (int item = begin; item < end; ++item) {
    float2 totals[kTokenTiles];
    AddWarps(shared, MultiplyItem(operands, shared, item, count, load), totals);
    if (slices > 1 && !AddSlices(operands, shared, item, totals)) {
      continue;
    }
#pragma unroll
    for (int round = 0; round < kTokenTiles; ++round) {
      const int unit = item / slices * kStreamTileUnits + round * (kStreamTileUnits / kTokenTiles) +
                       element.unit;
      if (unit < operands.units && element.token < operands.tokens) {
        epilogue.Store(unit, element.pair, place, totals[round]);
      }
    }
  }
}

// Whether the kernel can multiply `x` [tokens, columns] by `weight` on this device.
bool CanStream(const CohortCudaDevice& device, const CohortCudaTensor& x,
               const CohortCudaTensor& weight);

// What CanStream took, for `units` units of the weight that lie as `unit_rows` says.
StreamOperands MakeStreamOperands(CohortCudaDevice* device, const CohortCudaTensor& x,
                                  const CohortCudaTensor& weight, int64_t units,
                                  const UnitRows& unit_rows);

}  // namespace cohort::cuda

#endif  // COHORT_KERNELS_CUDA_STREAM_TILE_CUH_H_
