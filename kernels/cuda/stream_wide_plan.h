// How the weight-streaming product for many tokens (stream_wide.cuh) is cut into work: by the
// matrix and the device alone, so that the order of a sum does not depend on the number of tokens.
#ifndef COHORT_KERNELS_CUDA_STREAM_WIDE_PLAN_H_
#define COHORT_KERNELS_CUDA_STREAM_WIDE_PLAN_H_

#include "kernels/cuda/stream_plan.h"

namespace cohort::cuda {

inline constexpr int kWideTileUnits = 8;
inline constexpr int kWideChunkColumns = 64;

// `tiles` of eight units, each of `chunks` chunks of columns, numbered tile by tile; block b has a
// run of the chunks, whose first and last tiles it may share with its neighbours.
struct WidePlan {
  int tiles = 0;
  int chunks = 0;
  int blocks = 0;

  __host__ __device__ int FirstChunk(int block) const {
    return BeginOfPart(block, blocks, tiles * chunks);
  }
  __host__ __device__ int BlockOf(int chunk) const {
    return static_cast<int>((int64_t{chunk + 1} * blocks - 1) / (tiles * chunks));
  }
  // The blocks that share a tile.
  __host__ __device__ int FirstBlock(int tile) const { return BlockOf(tile * chunks); }
  __host__ __device__ int LastBlock(int tile) const { return BlockOf((tile + 1) * chunks - 1); }
};

// Where the sums of a block for a tile that it shares lie in the workspace: it has two places, one
// for its first tile and one for its last.
__host__ __device__ inline int PlaceOfPart(const WidePlan& plan, int block, int tile) {
  return 2 * block + (tile * plan.chunks > plan.FirstChunk(block) ? 1 : 0);
}

// The number of blocks that is expected to be fastest.
WidePlan PlanWide(int units, int columns, int multiprocessors);

}  // namespace cohort::cuda

#endif  // COHORT_KERNELS_CUDA_STREAM_WIDE_PLAN_H_
