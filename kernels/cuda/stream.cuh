// out = x weight^T for 1 to 16 tokens in bf16, at the speed at which the weight comes from memory.
//
// The operands are swapped: 16 rows of the weight (a unit) are the rows of the tensor cores'
// m16n8k16 product, 8 tokens its columns. A tile is four units. One block per multiprocessor goes
// through its items (a slice of the columns of one tile, stream_plan.h) in chunks of 256 columns.
//
// A block is one warp that copies and eight that multiply. A chunk of a tile comes in two stages of
// 32 rows; the copying warp's lane r brings row r by one bulk copy, and the tokens' columns of the
// chunk come with the first stage. Four stages are under way, 64 KB: enough to keep the memory busy
// at its latency. A multiplying warp takes 32 columns of each chunk; the eight sums meet in shared
// memory at the end of an item, in the order of the warps.
//
// Tiles that are cut into several items: every block writes its sums to the workspace and counts
// itself at the tile; the last one adds them in the order of the slices. So a sum's order never
// depends on timing, on the number of tokens or on the other rows.
//
// Dynamic shared memory: 4 stages [32 rows, 528 bytes], 2 chunks of x [8 or 16 tokens, 528 bytes],
// 16 KB for the sums of the warps, 8 barriers, a flag. Rows are 16 bytes longer than their columns,
// which keeps the eight rows that ldmatrix reads at once in different banks. At most 110 KB and 112
// registers, so that the next kernel of the stream has room on the same multiprocessor: launched
// early, it has its first stages in shared memory before this one ends. Therefore weights are read
// before WaitForPredecessor(): no kernel directly ahead in the stream may write them.
#ifndef COHORT_KERNELS_CUDA_STREAM_CUH_H_
#define COHORT_KERNELS_CUDA_STREAM_CUH_H_

#include <cstdint>

#include "kernels/cuda/device.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/ptx.cuh"
#include "kernels/cuda/rows.cuh"
#include "kernels/cuda/stream_plan.h"

namespace cohort::cuda {

inline constexpr int kStreamMaxTokens = 16;
inline constexpr int kStreamMathWarps = 8;
inline constexpr int kStreamMathThreads = kStreamMathWarps * 32;
inline constexpr int kStreamThreads = kStreamMathThreads + 32;
inline constexpr int kStreamRing = 4;  // stages
inline constexpr int kStreamStageRows = 32;
inline constexpr int kStreamStageUnits = kStreamStageRows / kStreamUnitRows;
inline constexpr int kStreamChunkStages = kStreamTileUnits / kStreamStageUnits;
// Chunks whose stages fill the ring.
inline constexpr int kStreamRingChunks = kStreamRing / kStreamChunkStages;
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

// The parts of the block's shared memory.
template <int kTokenTiles>
struct StreamShared {
  static constexpr int kTokens = 8 * kTokenTiles;
  static constexpr int kStageBytes = kStreamStageRows * kStreamRowBytes;
  static constexpr int kXOffset = kStreamRing * kStageBytes;
  static constexpr int kXBytes = kTokens * kStreamRowBytes;
  static constexpr int kSumsOffset = kXOffset + kStreamRingChunks * kXBytes;
  static constexpr int kUnitsPerRound = kStreamTileUnits / kTokenTiles;
  static constexpr int kSumsBytes = kUnitsPerRound * kStreamMathWarps * kTokenTiles * 32 * 16;
  static constexpr int kBarriersOffset = kSumsOffset + kSumsBytes;
  static constexpr int kFlagOffset = kBarriersOffset + 2 * kStreamRing * 8;
  static constexpr int kBytes = kFlagOffset + 16;
  static_assert(kBytes <= 110 << 10);

  unsigned char* begin;

  __device__ unsigned char* StageRow(int stage, int row) const {
    return begin + stage % kStreamRing * kStageBytes + row * kStreamRowBytes;
  }
  __device__ unsigned char* XRow(int count, int token) const {
    return begin + kXOffset + count % kStreamRingChunks * kXBytes + token * kStreamRowBytes;
  }
  // The mma results of a warp for one unit of the round, lane by lane.
  __device__ float4* Sums(int unit, int warp, int token_tile) const {
    return reinterpret_cast<float4*>(begin + kSumsOffset) +
           ((unit * kStreamMathWarps + warp) * kTokenTiles + token_tile) * 32;
  }
  __device__ uint64_t* Full(int stage) const { return Barriers() + stage % kStreamRing; }
  __device__ uint64_t* Empty(int stage) const {
    return Barriers() + kStreamRing + stage % kStreamRing;
  }
  __device__ uint32_t* IsLast() const { return reinterpret_cast<uint32_t*>(begin + kFlagOffset); }

 private:
  __device__ uint64_t* Barriers() const {
    return reinterpret_cast<uint64_t*>(begin + kBarriersOffset);
  }
};

// --- The copying warp ---

// Enqueues the rows of stage `stage` (the `half`-th of its chunk); announces x with the first.
template <int kTokenTiles>
__device__ void CopyStage(const StreamOperands& operands, const StreamShared<kTokenTiles>& shared,
                          int tile, int chunk, int half, int stage) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int unit = tile * kStreamTileUnits + half * kStreamStageUnits + lane / kStreamUnitRows;
  const int64_t row = operands.unit_rows.Row(unit, lane % kStreamUnitRows);
  const bool is_there = unit < operands.units && row < operands.rows;
  const uint32_t row_bytes = static_cast<uint32_t>(operands.ColumnsOf(chunk)) * 2;
  const uint32_t rows = static_cast<uint32_t>(__popc(__ballot_sync(0xffffffffu, is_there)));
  if (lane == 0) {
    const uint32_t tokens = half == 0 ? static_cast<uint32_t>(operands.tokens) : 0;
    BarrierArriveExpect(shared.Full(stage), (rows + tokens) * row_bytes);
  }
  __syncwarp();
  if (is_there) {
    BulkCopyStreaming(shared.StageRow(stage, lane),
                      operands.weight[row] + int64_t{chunk} * kStreamChunkColumns, row_bytes,
                      shared.Full(stage));
  }
}

// The tokens' columns of the block's chunk number `count`, announced by CopyStage.
template <int kTokenTiles>
__device__ void CopyX(const StreamOperands& operands, const StreamShared<kTokenTiles>& shared,
                      int chunk, int count) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  if (lane < operands.tokens) {
    BulkCopy(shared.XRow(count, lane), operands.x[lane] + int64_t{chunk} * kStreamChunkColumns,
             static_cast<uint32_t>(operands.ColumnsOf(chunk)) * 2,
             shared.Full(count * kStreamChunkStages));
  }
}

template <int kTokenTiles>
__device__ void CopyItems(const StreamOperands& operands, const StreamShared<kTokenTiles>& shared) {
  const StreamPlan& plan = operands.plan;
  const int begin = plan.FirstItem(static_cast<int>(blockIdx.x));
  const int end = plan.FirstItem(static_cast<int>(blockIdx.x) + 1);
  const int early =
      min(plan.ChunksBefore(end) - plan.ChunksBefore(begin), kStreamRingChunks);  // chunks
  int first_chunk = 0;
  int count = 0;
  for (int item = begin; item < end; ++item) {
    const int slice = item % plan.slices;
    const int chunk_end = BeginOfPart(slice + 1, plan.slices, plan.chunks);
    for (int chunk = BeginOfPart(slice, plan.slices, plan.chunks); chunk < chunk_end;
         ++chunk, ++count) {
      for (int half = 0; half < kStreamChunkStages; ++half) {
        const int stage = count * kStreamChunkStages + half;
        if (stage >= kStreamRing) {
          BarrierWait(shared.Empty(stage), static_cast<uint32_t>(stage / kStreamRing - 1) & 1);
        }
        CopyStage(operands, shared, item / plan.slices, chunk, half, stage);
      }
      if (count + 1 < early) {
        first_chunk = chunk;
        continue;
      }
      if (count + 1 == early) {
        LaunchSuccessor();
        WaitForPredecessor();
        if (count > 0) {
          CopyX(operands, shared, first_chunk, 0);
        }
      }
      CopyX(operands, shared, chunk, count);
    }
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

// `groups`: how many of the warp's four runs of 8 columns the chunk has; what lies behind them in
// shared memory is old.
template <int kTokenTiles>
__device__ StreamTokens<kTokenTiles> LoadTokens(const StreamOperands& operands,
                                                const StreamShared<kTokenTiles>& shared, int count,
                                                int groups) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int warp = static_cast<int>(threadIdx.x) / 32;
  StreamTokens<kTokenTiles> tokens;
#pragma unroll
  for (int tile = 0; tile < kTokenTiles; ++tile) {
    // Columns of the product beyond the last token repeat it and go nowhere.
    const int token = min(tile * 8 + lane % 8, operands.tokens - 1);
    LoadMatrix4(tokens.of[tile], shared.XRow(count, token) + (warp * 4 + lane / 8) * 16);
#pragma unroll
    for (int group = 0; group < 4; ++group) {
      tokens.of[tile][group] = group < groups ? tokens.of[tile][group] : 0;
    }
  }
  return tokens;
}

// Adds the stage's columns of this warp to the sums of its units, `first_unit` and the next.
template <int kTokenTiles, int kFirstUnit>
__device__ void MultiplyStage(const StreamShared<kTokenTiles>& shared, int stage, int groups,
                              const StreamTokens<kTokenTiles>& tokens,
                              StreamSums<kTokenTiles>* sums) {
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
      for (int tile = 0; tile < kTokenTiles; ++tile) {
        const uint32_t b[2] = {tokens.of[tile][2 * step], tokens.of[tile][2 * step + 1]};
        MmaBf16(sums->of[kFirstUnit + unit][tile], weights[unit][step], b);
      }
    }
  }
}

// The sums over the chunks of an item; `count` counts the block's chunks.
template <int kTokenTiles>
__device__ StreamSums<kTokenTiles> MultiplyItem(const StreamOperands& operands,
                                                const StreamShared<kTokenTiles>& shared, int item,
                                                int* count) {
  static_assert(kStreamChunkStages == 2);
  const StreamPlan& plan = operands.plan;
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const int slice = item % plan.slices;
  const int chunk_end = BeginOfPart(slice + 1, plan.slices, plan.chunks);
  StreamSums<kTokenTiles> sums{};
  for (int chunk = BeginOfPart(slice, plan.slices, plan.chunks); chunk < chunk_end;
       ++chunk, ++*count) {
    const int groups = operands.ColumnsOf(chunk) / 8 - warp * 4;
    const int stage = *count * kStreamChunkStages;
    const uint32_t parity = static_cast<uint32_t>(stage / kStreamRing) & 1;
    BarrierWait(shared.Full(stage), parity);
    const auto tokens = LoadTokens<kTokenTiles>(operands, shared, *count, groups);
    MultiplyStage<kTokenTiles, 0>(shared, stage, groups, tokens, &sums);
    BarrierWait(shared.Full(stage + 1), parity);
    MultiplyStage<kTokenTiles, kStreamStageUnits>(shared, stage + 1, groups, tokens, &sums);
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
template <int kTokenTiles>
__device__ void AddWarps(const StreamShared<kTokenTiles>& shared,
                         const StreamSums<kTokenTiles>& sums, float2 (&totals)[kTokenTiles]) {
  constexpr int kUnitsPerRound = StreamShared<kTokenTiles>::kUnitsPerRound;
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
template <int kTokenTiles>
__device__ bool AddSlices(const StreamOperands& operands, const StreamShared<kTokenTiles>& shared,
                          int item, float2 (&totals)[kTokenTiles]) {
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

template <class Epilogue, int kTokenTiles>
__device__ void MultiplyItems(const StreamOperands& operands,
                              const StreamShared<kTokenTiles>& shared, const Epilogue& epilogue) {
  WaitForPredecessor();
  const StreamPlan& plan = operands.plan;
  const StreamElement<kTokenTiles> element;
  const auto place = epilogue.PlaceOf(min(element.token, operands.tokens - 1));
  const int end = plan.FirstItem(static_cast<int>(blockIdx.x) + 1);
  int count = 0;
  for (int item = plan.FirstItem(static_cast<int>(blockIdx.x)); item < end; ++item) {
    float2 totals[kTokenTiles];
    AddWarps<kTokenTiles>(shared, MultiplyItem(operands, shared, item, &count), totals);
    if (plan.slices > 1 && !AddSlices<kTokenTiles>(operands, shared, item, totals)) {
      continue;
    }
#pragma unroll
    for (int round = 0; round < kTokenTiles; ++round) {
      const int unit = item / plan.slices * kStreamTileUnits +
                       round * StreamShared<kTokenTiles>::kUnitsPerRound + element.unit;
      if (unit < operands.units && element.token < operands.tokens) {
        epilogue.Store(unit, element.pair, place, totals[round]);
      }
    }
  }
}

// Two blocks fit on a multiprocessor: this kernel's and the next one's.
template <class Epilogue, int kTokenTiles>
__global__ void __launch_bounds__(kStreamThreads, 2)
    StreamKernel(StreamOperands operands, Epilogue epilogue) {
  const StreamShared<kTokenTiles> shared{DynamicShared()};
  if (threadIdx.x == 0) {
    for (int stage = 0; stage < kStreamRing; ++stage) {
      BarrierInit(shared.Full(stage), 1);
      BarrierInit(shared.Empty(stage), kStreamMathWarps);
    }
    BarrierInitFence();
  }
  __syncthreads();
  if (threadIdx.x >= kStreamMathThreads) {
    CopyItems<kTokenTiles>(operands, shared);
  } else {
    MultiplyItems<Epilogue, kTokenTiles>(operands, shared, epilogue);
  }
}

// Whether the kernel can multiply `x` [tokens, columns] by `weight` on this device.
bool CanStream(const CohortCudaDevice& device, const CohortCudaTensor& x,
               const CohortCudaTensor& weight);

// What CanStream took, for `units` units of the weight that lie as `unit_rows` says.
StreamOperands MakeStreamOperands(CohortCudaDevice* device, const CohortCudaTensor& x,
                                  const CohortCudaTensor& weight, int64_t units,
                                  const UnitRows& unit_rows);

// Enqueues the product. epilogue.PlaceOf(token) is what a thread keeps of its token;
// epilogue.Store(unit, pair, place, sums) gets the sums of rows `pair` and `pair` + 8 of each unit.
template <class Epilogue>
void LaunchStream(CohortCudaDevice* device, const char* name, const StreamOperands& operands,
                  const Epilogue& epilogue) {
  LaunchShape shape;
  shape.grid = dim3(static_cast<unsigned>(operands.plan.blocks));
  shape.block = dim3(kStreamThreads);
  shape.programmatic = true;
  if (operands.tokens <= 8) {
    shape.shared_bytes = StreamShared<1>::kBytes;
    Launch(device, name, shape, StreamKernel<Epilogue, 1>, operands, epilogue);
  } else {
    shape.shared_bytes = StreamShared<2>::kBytes;
    Launch(device, name, shape, StreamKernel<Epilogue, 2>, operands, epilogue);
  }
}

}  // namespace cohort::cuda

#endif  // COHORT_KERNELS_CUDA_STREAM_CUH_H_
