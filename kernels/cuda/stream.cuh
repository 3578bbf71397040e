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
#include "kernels/cuda/stream_tile.cuh"

namespace cohort::cuda {

// The parts of the block's shared memory.
template <int kTiles>
struct StreamShared {
  static constexpr int kTokenTiles = kTiles;
  static constexpr int kRing = 4;  // stages
  // Chunks whose stages fill the ring.
  static constexpr int kRingChunks = kRing / kStreamChunkStages;
  static constexpr int kTokens = 8 * kTokenTiles;
  static constexpr int kStageBytes = kStreamStageRows * kStreamRowBytes;
  static constexpr int kXOffset = kRing * kStageBytes;
  static constexpr int kXBytes = kTokens * kStreamRowBytes;
  static constexpr int kSumsOffset = kXOffset + kRingChunks * kXBytes;
  static constexpr int kUnitsPerRound = kStreamTileUnits / kTokenTiles;
  static constexpr int kSumsBytes = kUnitsPerRound * kStreamMathWarps * kTokenTiles * 32 * 16;
  static constexpr int kBarriersOffset = kSumsOffset + kSumsBytes;
  static constexpr int kFlagOffset = kBarriersOffset + 2 * kRing * 8;
  static constexpr int kBytes = kFlagOffset + 16;
  static_assert(kBytes <= 110 << 10);

  unsigned char* begin;

  __device__ unsigned char* StageRow(int stage, int row) const {
    return begin + stage % kRing * kStageBytes + row * kStreamRowBytes;
  }
  __device__ unsigned char* XRow(int count, int token) const {
    return begin + kXOffset + count % kRingChunks * kXBytes + token * kStreamRowBytes;
  }
  // The mma results of a warp for one unit of the round, lane by lane.
  __device__ float4* Sums(int unit, int warp, int token_tile) const {
    return reinterpret_cast<float4*>(begin + kSumsOffset) +
           ((unit * kStreamMathWarps + warp) * kTokenTiles + token_tile) * 32;
  }
  __device__ uint64_t* Full(int stage) const { return Barriers() + stage % kRing; }
  __device__ uint64_t* Empty(int stage) const { return Barriers() + kRing + stage % kRing; }
  __device__ uint32_t* IsLast() const { return reinterpret_cast<uint32_t*>(begin + kFlagOffset); }

 private:
  __device__ uint64_t* Barriers() const {
    return reinterpret_cast<uint64_t*>(begin + kBarriersOffset);
  }
};

// --- The copying warp ---

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
  constexpr int kRing = StreamShared<kTokenTiles>::kRing;
  const StreamPlan& plan = operands.plan;
  const int begin = plan.FirstItem(static_cast<int>(blockIdx.x));
  const int end = plan.FirstItem(static_cast<int>(blockIdx.x) + 1);
  const int early = min(plan.ChunksBefore(end) - plan.ChunksBefore(begin),
                        StreamShared<kTokenTiles>::kRingChunks);  // chunks
  int first_chunk = 0;
  int count = 0;
  for (int item = begin; item < end; ++item) {
    const int slice = item % plan.slices;
    const int chunk_end = BeginOfPart(slice + 1, plan.slices, plan.chunks);
    for (int chunk = BeginOfPart(slice, plan.slices, plan.chunks); chunk < chunk_end;
         ++chunk, ++count) {
      for (int half = 0; half < kStreamChunkStages; ++half) {
        const int stage = count * kStreamChunkStages + half;
        if (stage >= kRing) {
          BarrierWait(shared.Empty(stage), static_cast<uint32_t>(stage / kRing - 1) & 1);
        }
        CopyStage(operands, shared, item / plan.slices, chunk, half, stage,
                  half == 0 ? static_cast<uint32_t>(operands.tokens) : 0);
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

template <class Epilogue, int kTokenTiles>
__device__ void MultiplyBlock(const StreamOperands& operands,
                              const StreamShared<kTokenTiles>& shared, const Epilogue& epilogue) {
  WaitForPredecessor();
  const int block = static_cast<int>(blockIdx.x);
  const int tokens = operands.tokens;
  const auto place = epilogue.PlaceOf(min(StreamElement<kTokenTiles>().token, tokens - 1));
  int chunks = 0;
  MultiplyItems(operands, shared, operands.plan.FirstItem(block),
                operands.plan.FirstItem(block + 1), epilogue, place, &chunks,
                [&](int, int count, int groups) {
                  return LoadTokens<kTokenTiles>(
                      tokens, groups, [&](int token) { return shared.XRow(count, token); });
                });
}

// Two blocks fit on a multiprocessor: this kernel's and the next one's.
template <class Epilogue, int kTokenTiles>
__global__ void __launch_bounds__(kStreamThreads, 2)
    StreamKernel(StreamOperands operands, Epilogue epilogue) {
  const StreamShared<kTokenTiles> shared{DynamicShared()};
  if (threadIdx.x == 0) {
    for (int stage = 0; stage < StreamShared<kTokenTiles>::kRing; ++stage) {
      BarrierInit(shared.Full(stage), 1);
      BarrierInit(shared.Empty(stage), kStreamMathWarps);
    }
    BarrierInitFence();
  }
  __syncthreads();
  if (threadIdx.x >= kStreamMathThreads) {
    CopyItems<kTokenTiles>(operands, shared);
  } else {
    MultiplyBlock<Epilogue, kTokenTiles>(operands, shared, epilogue);
  }
}

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
