// Rows by expert, and back: the permutation before the products of RoutedFfn, the sum behind them.
#include "kernels/cuda/experts.cuh"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/ptx.cuh"

namespace cohort::cuda {
namespace {

constexpr int kGroupThreads = 1024;
constexpr int kCombineThreads = 256;
constexpr int kCombineBatch = 8;

struct GroupArguments {
  Rows<const int32_t> ids;
  Rows<const float> weights;
  int rows;
  int choices;
  int slots;
  int experts;
  int first_expert;
  int tile_rows;
  int tile_step;

  // Pairs of each of an expert's tiles but the last.
  __device__ int TileRows(int count) const {
    const int tiles = max((count + tile_rows - 1) / tile_rows, 1);
    const int steps = ((count + tiles - 1) / tiles + tile_step - 1) / tile_step;
    return max(steps, 1) * tile_step;
  }
};

// A choice of a row: its expert here and its place among the row's pairs; -1 where it is no pair.
struct Pair {
  int expert;
  int place;
};

// Ids come once in a row. Should one come twice all the same, no more than `slots` choices of a row
// become pairs, and nothing is written where it should not be.
__device__ Pair PairOfChoice(const GroupArguments& arguments, const int32_t* ids, int choice) {
  const auto expert_of = [&](int i) {
    const int expert = ids[i] - arguments.first_expert;
    return expert >= 0 && expert < arguments.experts ? expert : -1;
  };
  const int expert = expert_of(choice);
  if (expert < 0) {
    return {-1, -1};
  }
  int place = 0;
  for (int i = 0; i < arguments.choices; ++i) {
    const int other = expert_of(i);
    place += other >= 0 && (other < expert || (other == expert && i < choice)) ? 1 : 0;
  }
  return place < arguments.slots ? Pair{expert, place} : Pair{-1, -1};
}

// The sum over this lane and those below it.
__device__ int InclusiveScan(int value) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  for (int offset = 1; offset < 32; offset *= 2) {
    const int below = __shfl_up_sync(0xffffffffu, value, static_cast<unsigned>(offset));
    value += lane >= offset ? below : 0;
  }
  return value;
}

// By one warp: `counts` of the experts become the number of each one's first pair, and the pairs
// are cut into tiles.
__device__ void PlaceExperts(const GroupArguments& arguments, const ExpertLists& lists,
                             int* counts) {
  const int lane = static_cast<int>(threadIdx.x);
  int pairs_before = 0;
  int tiles_before = 0;
  for (int base = 0; base < arguments.experts; base += 32) {
    const int expert = base + lane;
    const int count = expert < arguments.experts ? counts[expert] : 0;
    const int tile_rows = arguments.TileRows(count);
    const int tiles = (count + tile_rows - 1) / tile_rows;
    const int pairs_through = pairs_before + InclusiveScan(count);
    const int tiles_through = tiles_before + InclusiveScan(tiles);
    const int first_pair = pairs_through - count;
    for (int i = 0; i < tiles; ++i) {
      const int done = i * tile_rows;
      lists.tiles[tiles_through - tiles + i] = {expert, first_pair + done,
                                                min(tile_rows, count - done)};
    }
    if (expert < arguments.experts) {
      counts[expert] = first_pair;
    }
    pairs_before = __shfl_sync(0xffffffffu, pairs_through, 31);
    tiles_before = __shfl_sync(0xffffffffu, tiles_through, 31);
  }
  if (lane == 0) {
    *lists.tile_count = tiles_before;
  }
}

// One block: a thread counts and later places the choices of its rows. Integer atomics of shared
// memory hand out the numbers inside an expert, so their order may differ from run to run; no
// result depends on it, since a pair is computed alone and rows are summed by ascending experts.
// Shared memory: one int per expert.
__global__ __launch_bounds__(kGroupThreads) void GroupPairsKernel(GroupArguments arguments,
                                                                  ExpertLists lists) {
  WaitForPredecessor();
  LaunchSuccessor();
  int* const counts = reinterpret_cast<int*>(DynamicShared());
  const int thread = static_cast<int>(threadIdx.x);
  for (int expert = thread; expert < arguments.experts; expert += kGroupThreads) {
    counts[expert] = 0;
  }
  __syncthreads();
  for (int row = thread; row < arguments.rows; row += kGroupThreads) {
    for (int choice = 0; choice < arguments.choices; ++choice) {
      const Pair pair = PairOfChoice(arguments, arguments.ids[row], choice);
      if (pair.expert >= 0) {
        atomicAdd(counts + pair.expert, 1);
      }
    }
  }
  __syncthreads();
  if (thread < 32) {
    PlaceExperts(arguments, lists, counts);
  }
  __syncthreads();
  for (int row = thread; row < arguments.rows; row += kGroupThreads) {
    const int64_t first_slot = int64_t{row} * arguments.slots;
    int pairs = 0;
    for (int choice = 0; choice < arguments.choices; ++choice) {
      const Pair pair = PairOfChoice(arguments, arguments.ids[row], choice);
      if (pair.expert >= 0) {
        const int number = atomicAdd(counts + pair.expert, 1);
        lists.row_of_pair[number] = row;
        lists.pair_of_slot[first_slot + pair.place] = number;
        lists.weight_of_slot[first_slot + pair.place] = arguments.weights[row][choice];
        ++pairs;
      }
    }
    for (; pairs < arguments.slots; ++pairs) {
      lists.pair_of_slot[first_slot + pairs] = -1;
    }
  }
}

// blockIdx.x is the row, blockIdx.y a stretch of kCombineThreads features; a thread sums one
// feature. The loads of kCombineBatch pairs are under way together.
__global__ __launch_bounds__(kCombineThreads) void CombinePairsKernel(ExpertLists lists, int slots,
                                                                      const float* products,
                                                                      int64_t features,
                                                                      Rows<float> out) {
  WaitForPredecessor();
  LaunchSuccessor();
  const int64_t feature = int64_t{blockIdx.y} * kCombineThreads + threadIdx.x;
  if (feature >= features) {
    return;
  }
  const int64_t first_slot = int64_t{blockIdx.x} * slots;
  float sum = 0;
  for (int base = 0; base < slots; base += kCombineBatch) {
    int32_t pair[kCombineBatch];
    float value[kCombineBatch];
#pragma unroll
    for (int i = 0; i < kCombineBatch; ++i) {
      pair[i] = base + i < slots ? lists.pair_of_slot[first_slot + base + i] : -1;
    }
#pragma unroll
    for (int i = 0; i < kCombineBatch; ++i) {
      value[i] = pair[i] >= 0 ? products[pair[i] * features + feature] : 0.0f;
    }
#pragma unroll
    for (int i = 0; i < kCombineBatch; ++i) {
      if (pair[i] >= 0) {  // the product is rounded before it is added, as everywhere
        sum = __fadd_rn(sum, __fmul_rn(lists.weight_of_slot[first_slot + base + i], value[i]));
      }
    }
  }
  out[blockIdx.x][feature] = sum;
}

}  // namespace

void GroupPairs(CohortCudaDevice* device, const CohortCudaRouting& routing,
                const ExpertShape& shape, const ExpertLists& lists) {
  const GroupArguments arguments = {.ids = RowsOf<const int32_t>(routing.ids),
                                    .weights = RowsOf<const float>(routing.weights),
                                    .rows = static_cast<int>(shape.rows),
                                    .choices = static_cast<int>(routing.ids.dims[1]),
                                    .slots = static_cast<int>(shape.slots),
                                    .experts = static_cast<int>(shape.experts),
                                    .first_expert = static_cast<int>(shape.first_expert),
                                    .tile_rows = shape.tile_rows,
                                    .tile_step = shape.tile_step};
  Launch(device, "GroupPairs",
         {.grid = 1,
          .block = kGroupThreads,
          .shared_bytes = static_cast<std::size_t>(shape.experts) * sizeof(int),
          .programmatic = true},
         GroupPairsKernel, arguments, lists);
}

void CombinePairs(CohortCudaDevice* device, const ExpertLists& lists, int64_t slots,
                  const float* products, const CohortCudaTensor& out) {
  const int64_t features = out.dims[1];
  const dim3 grid(static_cast<unsigned>(out.dims[0]),
                  static_cast<unsigned>((features + kCombineThreads - 1) / kCombineThreads));
  Launch(device, "CombinePairs", {.grid = grid, .block = kCombineThreads, .programmatic = true},
         CombinePairsKernel, lists, static_cast<int>(slots), products, features,
         RowsOf<float>(out));
}

}  // namespace cohort::cuda
