// The products of RoutedFfn for few rows: the weights of the active experts stream past the rows
// once. The operands of the tensor core are swapped: 16 rows of weights are its M, 8 rows of x its
// N, so that few rows waste little.
//
// A block computes units of 16 rows of weights (8 gates and their 8 ups, or 16 rows of down) for
// all pairs of a tile. Its 8 warps share a unit by steps of 64 inputs: step s belongs to warp
// s % 8, so the block reads 1 KB of each row at a time. At the end of the unit the warps' sums are
// added in the order of the warps: a sum's order depends on the number of inputs alone.
//
// Inside a step a thread owns four packs of 8 neighbouring inputs, of rows lane / 4 and
// lane / 4 + 8, and meets the same inputs in x. The tensor core multiplies them in an order of its
// own inputs that is the same on both sides, so neither needs ldmatrix. A thread copies its own
// packs by cp.async into a ring of shared memory that nobody else reads: no barrier is needed to
// stream, and the ring runs ahead into the next unit while this one is summed.
//
// Shared memory: the ring, [warp][stage][pack][lane] 16 bytes; then the warps' sums,
// [warp][group of 8 rows of x][16][8] fp32.
#include "kernels/cuda/experts.cuh"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/ptx.cuh"

namespace cohort::cuda {
namespace {

constexpr int kWarps = 8;
constexpr int kThreads = kWarps * 32;
constexpr int kResidentBlocks = 2;
constexpr int kStepInputs = 64;
constexpr int kStages = 4;
constexpr int kPacks = 4;  // of a thread and step: two of each of its rows
constexpr int kUnitRows = 16;
constexpr int kGroupRows = 8;
constexpr int kSums = kUnitRows * kGroupRows;
constexpr std::size_t kRingBytes = std::size_t{kThreads} * kStages * kPacks * sizeof(uint4);

template <bool kGated>
constexpr int kUnitFeatures = kGated ? kUnitRows / 2 : kUnitRows;

int64_t UnitsOf(int features, int unit_features) {
  return (features + unit_features - 1) / unit_features;
}

// What a block does, from the first step to the last: its units, round by round of a step per warp.
struct Schedule {
  int units;   // of a tile
  int rounds;  // of a unit
  int work;    // units of all tiles
};

// The input where this thread's first pack of a round begins; the second lies 32 further.
__device__ int FirstInput(int round) {
  const int thread = static_cast<int>(threadIdx.x);
  return (round * kWarps + thread / 32) * kStepInputs + thread % 4 * 8;
}

// The copies of one thread, ahead of the products by the depth of the ring.
template <bool kGated>
class WeightStream {
 public:
  __device__ WeightStream(const ExpertProduct<BFloat16>& product, const ExpertTile* tiles,
                          const Schedule& schedule)
      : product_(product),
        tiles_(tiles),
        schedule_(schedule),
        ring_(reinterpret_cast<uint4*>(DynamicShared()) +
              threadIdx.x / 32 * (kStages * kPacks * 32) + threadIdx.x % 32),
        work_(static_cast<int>(blockIdx.x)) {
    FindRows();
  }

  // Starts the copies of the next round, zeros behind the last input and the last row; a group of
  // copies even where nothing is left, so that groups count rounds.
  __device__ void Fetch() {
    if (work_ < schedule_.work) {
      uint4* const packs = ring_ + fetched_ * (kPacks * 32);
      const int input = FirstInput(round_);
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        const bool is_input = input + i * 32 < product_.inputs;
        CopyAsync16(packs + i * 32, low_ + input + i * 32, is_input && has_low_);
        CopyAsync16(packs + (2 + i) * 32, high_ + input + i * 32, is_input && has_high_);
      }
      if (++round_ == schedule_.rounds) {
        round_ = 0;
        work_ += static_cast<int>(gridDim.x);
        FindRows();
      }
    }
    CopyAsyncCommit();
    fetched_ = (fetched_ + 1) % kStages;
  }

  // The packs of the oldest round that was not taken yet.
  __device__ void Take(uint4 (&packs)[kPacks]) {
    CopyAsyncWait<kStages - 1>();
#pragma unroll
    for (int i = 0; i < kPacks; ++i) {
      packs[i] = ring_[(taken_ * kPacks + i) * 32];
    }
    taken_ = (taken_ + 1) % kStages;
  }

 private:
  __device__ void FindRows() {
    if (work_ >= schedule_.work) {
      return;
    }
    const int32_t expert = tiles_[work_ / schedule_.units].expert;
    const int unit = work_ % schedule_.units;
    const int row = static_cast<int>(threadIdx.x) % 32 / 4;
    const int low = unit * kUnitFeatures<kGated> + FeatureOfRow<kGated>(row);
    const int high = unit * kUnitFeatures<kGated> + FeatureOfRow<kGated>(row + 8);
    has_low_ = low < product_.features;
    has_high_ = high < product_.features;
    low_ = WeightRow<kGated>(product_, expert, has_low_ ? low : 0, false);
    high_ = WeightRow<kGated>(product_, expert, has_high_ ? high : 0, true);
  }

  const ExpertProduct<BFloat16>& product_;
  const ExpertTile* tiles_;
  const Schedule& schedule_;
  uint4* ring_;
  int work_;
  int round_ = 0;
  int fetched_ = 0;  // stages of the ring
  int taken_ = 0;
  bool has_low_ = false;
  bool has_high_ = false;
  const BFloat16* low_ = nullptr;
  const BFloat16* high_ = nullptr;
};

// Two packs of a row of x, zeros behind the last input (what lies there may be NaN).
struct RowPacks {
  uint4 pack[2];
};
__device__ RowPacks LoadRow(const BFloat16* row, int input, int inputs) {
  RowPacks packs = {};
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    if (input + i * 32 < inputs) {
      packs.pack[i] = *reinterpret_cast<const uint4*>(row + input + i * 32);
    }
  }
  return packs;
}

// sums += 16 rows of weights times 8 rows of x over a step.
__device__ void MultiplyStep(const uint4 (&w)[kPacks], const RowPacks& x, float (&sums)[4]) {
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const uint4& low = w[i];
    const uint4& high = w[2 + i];
    const uint32_t first_weights[4] = {low.x, high.x, low.y, high.y};
    const uint32_t first_inputs[2] = {x.pack[i].x, x.pack[i].y};
    MmaBf16(sums, first_weights, first_inputs);
    const uint32_t second_weights[4] = {low.z, high.z, low.w, high.w};
    const uint32_t second_inputs[2] = {x.pack[i].z, x.pack[i].w};
    MmaBf16(sums, second_weights, second_inputs);
  }
}

// This warp's sums of a unit and tile.
template <bool kGated, int kGroups>
__device__ void MultiplyUnit(const ExpertProduct<BFloat16>& product, const ExpertTile& tile,
                             int rounds, WeightStream<kGated>& weights, float (&sums)[kGroups][4]) {
  const int row = static_cast<int>(threadIdx.x) % 32 / 4;
  const BFloat16* x[kGroups];
#pragma unroll
  for (int n = 0; n < kGroups; ++n) {  // absent rows repeat the last one, their sums are not used
    x[n] = RowOfPair(product, tile.first_pair + min(n * kGroupRows + row, tile.pairs - 1));
#pragma unroll
    for (float& sum : sums[n]) {
      sum = 0;
    }
  }
  for (int round = 0; round < rounds; ++round) {
    weights.Fetch();
    const int input = FirstInput(round);
    RowPacks rows = LoadRow(x[0], input, product.inputs);
    uint4 packs[kPacks];
    weights.Take(packs);
#pragma unroll
    for (int n = 0; n < kGroups; ++n) {
      if (n * kGroupRows < tile.pairs) {
        MultiplyStep(packs, rows, sums[n]);
        if (n + 1 < kGroups && (n + 1) * kGroupRows < tile.pairs) {
          rows = LoadRow(x[n + 1 < kGroups ? n + 1 : n], input, product.inputs);
        }
      }
    }
  }
}

template <int kGroups>
__device__ float* SumsOfWarp(int warp) {
  return reinterpret_cast<float*>(DynamicShared() + kRingBytes) + warp * (kGroups * kSums);
}

template <int kGroups>
__device__ void ShareSums(const float (&sums)[kGroups][4], int pairs) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  float* const shared = SumsOfWarp<kGroups>(static_cast<int>(threadIdx.x) / 32);
#pragma unroll
  for (int n = 0; n < kGroups; ++n) {
    if (n * kGroupRows < pairs) {
      float2* const low = reinterpret_cast<float2*>(shared + n * kSums) + lane;
      low[0] = {sums[n][0], sums[n][1]};
      low[32] = {sums[n][2], sums[n][3]};
    }
  }
}

template <int kGroups>
__device__ float SumOfWarps(int row, int pair) {
  const int place = (pair / kGroupRows * kUnitRows + row) * kGroupRows + pair % kGroupRows;
  float sum = 0;
#pragma unroll
  for (int warp = 0; warp < kWarps; ++warp) {
    sum += SumsOfWarp<kGroups>(warp)[place];
  }
  return sum;
}

template <bool kGated, int kGroups>
__device__ void StoreUnit(const ExpertProduct<BFloat16>& product, const ExpertTile& tile,
                          int unit) {
  constexpr int kFeatures = kUnitFeatures<kGated>;
  for (int i = static_cast<int>(threadIdx.x); i < tile.pairs * kFeatures; i += kThreads) {
    const int row = i % kFeatures;
    const int feature = unit * kFeatures + row;
    const int pair = i / kFeatures;
    if (feature < product.features) {
      StoreFeature<kGated>(product, tile.first_pair + pair, feature, SumOfWarps<kGroups>(row, pair),
                           kGated ? SumOfWarps<kGroups>(row + 8, pair) : 0.0f);
    }
  }
}

template <bool kGated, int kGroups>
__global__ __launch_bounds__(kThreads, kResidentBlocks) void StreamExpertsKernel(
    ExpertProduct<BFloat16> product, ExpertLists lists) {
  WaitForPredecessor();
  LaunchSuccessor();
  const int units = (product.features + kUnitFeatures<kGated> - 1) / kUnitFeatures<kGated>;
  const int rounds = (product.inputs + kStepInputs * kWarps - 1) / (kStepInputs * kWarps);
  const Schedule schedule = {units, rounds, *lists.tile_count * units};
  WeightStream<kGated> weights(product, lists.tiles, schedule);
  for (int i = 0; i < kStages - 1; ++i) {
    weights.Fetch();
  }
  const int blocks = static_cast<int>(gridDim.x);
  for (int work = static_cast<int>(blockIdx.x); work < schedule.work; work += blocks) {
    const ExpertTile tile = lists.tiles[work / units];
    float sums[kGroups][4];
    MultiplyUnit<kGated, kGroups>(product, tile, rounds, weights, sums);
    __syncthreads();  // the sums of the unit before have been read
    ShareSums<kGroups>(sums, tile.pairs);
    __syncthreads();
    StoreUnit<kGated, kGroups>(product, tile, work % units);
  }
}

template <bool kGated, int kGroups>
void LaunchStream(CohortCudaDevice* device, const ExpertProduct<BFloat16>& product,
                  const ExpertShape& shape, const ExpertLists& lists) {
  const int64_t work = shape.tile_bound() * UnitsOf(product.features, kUnitFeatures<kGated>);
  Launch(device, kGated ? "StreamExperts gate and up" : "StreamExperts down",
         {.grid = PersistentBlocks(device, work, kResidentBlocks),
          .block = kThreads,
          .shared_bytes = kRingBytes + std::size_t{kWarps} * kGroups * kSums * sizeof(float),
          .programmatic = true},
         StreamExpertsKernel<kGated, kGroups>, product, lists);
}

}  // namespace

int StreamTileRows(int64_t rows) {
  int tile_rows = kGroupRows;
  while (tile_rows < rows && tile_rows < kStreamRows) {
    tile_rows *= 2;
  }
  return tile_rows;
}

template <bool kGated>
void StreamExperts(CohortCudaDevice* device, const ExpertProduct<BFloat16>& product,
                   const ExpertShape& shape, const ExpertLists& lists) {
  switch (shape.tile_rows / kGroupRows) {
    case 1:
      return LaunchStream<kGated, 1>(device, product, shape, lists);
    case 2:
      return LaunchStream<kGated, 2>(device, product, shape, lists);
    case 4:
      return LaunchStream<kGated, 4>(device, product, shape, lists);
    default:
      return LaunchStream<kGated, 8>(device, product, shape, lists);
  }
}

template void StreamExperts<true>(CohortCudaDevice*, const ExpertProduct<BFloat16>&,
                                  const ExpertShape&, const ExpertLists&);
template void StreamExperts<false>(CohortCudaDevice*, const ExpertProduct<BFloat16>&,
                                   const ExpertShape&, const ExpertLists&);

}  // namespace cohort::cuda
