// How a weight-streaming product (stream.cuh) is cut into work: the same cut for any number of
// tokens, so that the order of a sum depends on the matrix and the device alone.
#ifndef COHORT_KERNELS_CUDA_STREAM_PLAN_H_
#define COHORT_KERNELS_CUDA_STREAM_PLAN_H_

#include <cuda_runtime_api.h>

#include <cstdint>

namespace cohort::cuda {

// A unit is 16 rows of the weight: the rows of one mma. A tile is computed by one block at a time.
inline constexpr int kStreamUnitRows = 16;
inline constexpr int kStreamTileUnits = 4;
// A chunk is what a tile reads between two waits.
inline constexpr int kStreamChunkColumns = 256;
// The last block of a tile adds so many partial sums at most.
inline constexpr int kStreamMaxSlices = 32;

// Where part `part` of `parts` begins, when `whole` things are dealt out evenly and in order.
__host__ __device__ inline int BeginOfPart(int part, int parts, int whole) {
  return static_cast<int>(int64_t{part} * whole / parts);
}

// The columns of the weight are `chunks` chunks, dealt out to `slices` slices. An item is a slice
// of a tile; items are numbered tile by tile and dealt out to `blocks` blocks.
struct StreamPlan {
  int tiles = 0;
  int chunks = 0;
  int slices = 0;
  int blocks = 0;

  __host__ __device__ int items() const { return tiles * slices; }
  __host__ __device__ int FirstItem(int block) const { return BeginOfPart(block, blocks, items()); }
  // Chunks of the items before `item`.
  __host__ __device__ int ChunksBefore(int item) const {
    return item / slices * chunks + BeginOfPart(item % slices, slices, chunks);
  }
};

// The cut that keeps the slowest of `multiprocessors` blocks shortest. A product whose tiles have
// more than one slice has at most `max_items` items.
StreamPlan PlanStream(int units, int columns, int multiprocessors, int max_items);

}  // namespace cohort::cuda

#endif  // COHORT_KERNELS_CUDA_STREAM_PLAN_H_
