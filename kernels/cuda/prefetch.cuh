// Weights of the next products on their way into L2 while attention, which waits for latencies more
// than for bytes, leaves memory idle. Every block of a streaming product (stream.cuh) begins at
// another place of its weight: fetched are the first chunks of each block.
#ifndef COHORT_KERNELS_CUDA_PREFETCH_CUH_H_
#define COHORT_KERNELS_CUDA_PREFETCH_CUH_H_

#include "kernels/cuda/ptx.cuh"
#include "kernels/cuda/stream_tile.cuh"

namespace cohort::cuda {

struct StreamPrefetch {
  StreamOperands operands;
  int chunks_of_block;  // so many of every block; 0: nothing
};

// The products behind an attention, in their order.
struct NextPrefetches {
  StreamPrefetch item[2];
};

// The part of thread `thread` of `threads`: one row of a chunk at a time.
__device__ inline void PrefetchStream(const StreamPrefetch& prefetch, int thread, int threads) {
  constexpr int kRows = kStreamTileUnits * kStreamUnitRows;
  const StreamOperands& operands = prefetch.operands;
  const StreamPlan& plan = operands.plan;
  const int rows = prefetch.chunks_of_block * plan.blocks * kRows;
  for (int i = thread; i < rows; i += threads) {
    const int block = i / kRows % plan.blocks;
    // Chunks lie tile by tile, and so do a block's.
    const int of_all = plan.ChunksBefore(plan.FirstItem(block)) + i / kRows / plan.blocks;
    if (of_all >= plan.ChunksBefore(plan.FirstItem(block + 1))) {
      continue;
    }
    const int chunk = of_all % plan.chunks;
    const int unit = of_all / plan.chunks * kStreamTileUnits + i % kRows / kStreamUnitRows;
    const int64_t row = operands.unit_rows.Row(unit, i % kStreamUnitRows);
    if (unit < operands.units && row < operands.rows) {
      BulkPrefetchL2(operands.weight[row] + int64_t{chunk} * kStreamChunkColumns,
                     static_cast<uint32_t>(operands.ColumnsOf(chunk)) * 2);
    }
  }
}

// By every thread of the grid.
__device__ inline void PrefetchNext(const NextPrefetches& next) {
  const unsigned block = (blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x;
  const int thread = static_cast<int>(block * blockDim.x + threadIdx.x);
  const int threads = static_cast<int>(gridDim.x * gridDim.y * gridDim.z * blockDim.x);
  for (const StreamPrefetch& prefetch : next.item) {
    PrefetchStream(prefetch, thread, threads);
  }
}

// What the device was told of by PrefetchWeights(), for a step of `tokens` rows, and forgets it.
// Nothing where the products would not stream their weights. (prefetch.cu)
NextPrefetches TakeNextPrefetches(CohortCudaDevice* device, int64_t tokens);

}  // namespace cohort::cuda

#endif  // COHORT_KERNELS_CUDA_PREFETCH_CUH_H_
