// The products of RoutedFfn for many rows on GPUs without wgmma: a block computes a tile of 64 or
// 128 pairs of an expert times 128 rows of its weights (64 gates beside their 64 ups, or 128 rows
// of down).
//
// The 8 warps stand 2 x 4 over the tile: a warp computes half of the pairs times 32 rows of weights
// by m16n8k16, its fragments loaded by ldmatrix. Both operands come by cp.async, thread t copying
// pack t % 8 of rows t / 8 + 32 i: 64 inputs of every row per stage, three stages. The rows of x
// are gathered on the way, through the list of pairs. Rows of eights interleave gates and ups, so a
// thread ends with both sums of a feature. A sum runs over ascending inputs.
//
// Shared memory, [stage]: x [kTileRows][64], then weights [128][64] bf16; pack p of row r lies at
// p ^ (r % 8), so that neither the copies nor ldmatrix meet in a bank.
#include "kernels/cuda/experts.cuh"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/ptx.cuh"

namespace cohort::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kResidentBlocks = 2;
constexpr int kStages = 3;
constexpr int kStageInputs = 64;
constexpr int kPack = 8;  // elements of 16 bytes
constexpr int kWeightRows = 128;
constexpr int kWarpWeightRows = 32;
constexpr int kCopyRows = kThreads / (kStageInputs / kPack);  // rows that the block copies at once

template <bool kGated>
constexpr int kTileFeatures = kGated ? kWeightRows / 2 : kWeightRows;
template <int kTileRows>
constexpr int kStageElements = (kTileRows + kWeightRows) * kStageInputs;

__device__ BFloat16* PackAt(BFloat16* rows, int row, int pack) {
  return rows + row * kStageInputs + (pack ^ (row % 8)) * kPack;
}

// The rows that a thread copies of one tile.
template <bool kGated, int kTileRows>
struct Copies {
  static constexpr int kXRows = kTileRows / kCopyRows;
  static constexpr int kWRows = kWeightRows / kCopyRows;
  static constexpr int kFeatureStep = FeatureOfRow<kGated>(kCopyRows);

  const ExpertProduct<BFloat16>& product;
  int32_t x[kXRows];        // rows; as pointers they would take more registers than there are
  const BFloat16* weights;  // row i is i * kFeatureStep features further
  int pairs;                // rows of x that are there, from this thread's first
  int features;             // rows of weights likewise, in features

  __device__ Copies(const ExpertProduct<BFloat16>& from, const ExpertTile& tile, int first_feature)
      : product(from) {
    const int row = static_cast<int>(threadIdx.x) / (kStageInputs / kPack);
    const int feature = first_feature + FeatureOfRow<kGated>(row);
    pairs = tile.pairs - row;
    features = product.features - feature;
#pragma unroll
    for (int i = 0; i < kXRows; ++i) {
      const int32_t pair = tile.first_pair + min(row + i * kCopyRows, tile.pairs - 1);
      x[i] = product.row_of_pair != nullptr ? product.row_of_pair[pair] : pair;
    }
    weights = WeightRow<kGated>(product, tile.expert, feature, row / 8 % 2 == 1);
  }

  // Zeros where a row or an input is not there.
  __device__ void Start(BFloat16* stage, int first_input) const {
    const int row = static_cast<int>(threadIdx.x) / (kStageInputs / kPack);
    const int pack = static_cast<int>(threadIdx.x) % (kStageInputs / kPack);
    const int input = first_input + pack * kPack;
    const bool is_input = input < product.inputs;
#pragma unroll
    for (int i = 0; i < kXRows; ++i) {
      CopyAsync16(PackAt(stage, row + i * kCopyRows, pack), product.x[x[i]] + input,
                  is_input && i * kCopyRows < pairs);
    }
    BFloat16* const weight_rows = stage + kTileRows * kStageInputs;
#pragma unroll
    for (int i = 0; i < kWRows; ++i) {
      CopyAsync16(PackAt(weight_rows, row + i * kCopyRows, pack),
                  weights + static_cast<int64_t>(i * kFeatureStep) * product.inputs + input,
                  is_input && i * kFeatureStep < features);
    }
  }
};

// The sums of one warp: kRows / 16 times 4 fragments of 16 pairs and 8 rows of weights.
template <int kRows>
struct WarpSums {
  static constexpr int kFragments = kRows / 16;
  float value[kFragments][kWarpWeightRows / 8][4];

  __device__ void Clear() {
#pragma unroll
    for (auto& row : value) {
#pragma unroll
      for (auto& fragment : row) {
#pragma unroll
        for (float& sum : fragment) {
          sum = 0;
        }
      }
    }
  }

  // Adds the products of one stage; `x` and `weights` are the warp's first rows in it.
  __device__ void Multiply(BFloat16* x, BFloat16* weights) {
    const int lane = static_cast<int>(threadIdx.x) % 32;
#pragma unroll 2  // more spills on 8.0
    for (int k = 0; k < kStageInputs / 16; ++k) {
      uint32_t w[kWarpWeightRows / 16][4];  // two fragments of 8 rows each: inputs low, high
#pragma unroll
      for (int n = 0; n < kWarpWeightRows / 16; ++n) {
        LoadMatrix4(w[n], PackAt(weights + n * 16 * kStageInputs, lane / 16 * 8 + lane % 8,
                                 k * 2 + lane / 8 % 2));
      }
#pragma unroll
      for (int m = 0; m < kFragments; ++m) {
        uint32_t a[4];
        LoadMatrix4(a, PackAt(x + m * 16 * kStageInputs, lane % 16, k * 2 + lane / 16));
#pragma unroll
        for (int n = 0; n < kWarpWeightRows / 8; ++n) {
          const uint32_t b[2] = {w[n / 2][n % 2 * 2], w[n / 2][n % 2 * 2 + 1]};
          MmaBf16(value[m][n], a, b);
        }
      }
    }
  }
};

// Writes a warp's sums; its pairs begin at `pair` of the tile, its features at `feature`.
template <bool kGated, int kRows>
__device__ void StoreSums(const ExpertProduct<BFloat16>& product, const ExpertTile& tile, int pair,
                          int feature, const WarpSums<kRows>& sums) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  constexpr int kStep = kGated ? 2 : 1;
#pragma unroll
  for (int m = 0; m < WarpSums<kRows>::kFragments; ++m) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int row = pair + m * 16 + half * 8 + lane / 4;
      if (row >= tile.pairs) {
        continue;
      }
      const int64_t place = (tile.first_pair + row) * product.out_stride;
#pragma unroll
      for (int n = 0; n < kWarpWeightRows / 8; n += kStep) {
        const int column = feature + n / kStep * 8 + lane % 4 * 2;
        if (column >= product.features) {
          continue;
        }
        const float* const first = &sums.value[m][n][half * 2];
        if constexpr (kGated) {
          const float* const up = &sums.value[m][n + 1][half * 2];
          StorePack<2>(static_cast<BFloat16*>(product.out) + place + column,
                       Pack<BFloat16, 2>{{GatedValue<BFloat16>(first[0], up[0]),
                                          GatedValue<BFloat16>(first[1], up[1])}});
        } else {
          StorePack<2>(static_cast<float*>(product.out) + place + column,
                       Pack<float, 2>{{first[0], first[1]}});
        }
      }
    }
  }
}

template <bool kGated, int kTileRows>
__device__ void MultiplyTile(const ExpertProduct<BFloat16>& product, const ExpertTile& tile,
                             int first_feature) {
  BFloat16* const shared = reinterpret_cast<BFloat16*>(DynamicShared());
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const int x_row = warp / 4 * (kTileRows / 2);
  const int weight_row = warp % 4 * kWarpWeightRows;
  const Copies<kGated, kTileRows> copies(product, tile, first_feature);
  const int stages = (product.inputs + kStageInputs - 1) / kStageInputs;
  WarpSums<kTileRows / 2> sums;
  sums.Clear();
  for (int i = 0; i < kStages - 1; ++i) {
    copies.Start(shared + i * kStageElements<kTileRows>, i * kStageInputs);
    CopyAsyncCommit();
  }
  for (int i = 0; i < stages; ++i) {
    CopyAsyncWait<kStages - 2>();
    __syncthreads();  // stage i has come, and all have left stage i - 1, which is filled next
    copies.Start(shared + (i + kStages - 1) % kStages * kStageElements<kTileRows>,
                 (i + kStages - 1) * kStageInputs);
    CopyAsyncCommit();
    BFloat16* const stage = shared + i % kStages * kStageElements<kTileRows>;
    sums.Multiply(stage + x_row * kStageInputs, stage + (kTileRows + weight_row) * kStageInputs);
  }
  CopyAsyncWait<0>();
  __syncthreads();  // the stages are free
  StoreSums<kGated>(product, tile, x_row, first_feature + warp % 4 * (kTileFeatures<kGated> / 4),
                    sums);
}

template <bool kGated, int kTileRows>
__global__ __launch_bounds__(kThreads, kResidentBlocks) void TileExpertsKernel(
    ExpertProduct<BFloat16> product, ExpertLists lists) {
  constexpr int kFeatures = kTileFeatures<kGated>;
  const int stretches = (product.features + kFeatures - 1) / kFeatures;
  const int work = *lists.tile_count * stretches;
  const int blocks = static_cast<int>(gridDim.x);
  for (int i = static_cast<int>(blockIdx.x); i < work; i += blocks) {
    MultiplyTile<kGated, kTileRows>(product, lists.tiles[i / stretches], i % stretches * kFeatures);
  }
}

template <bool kGated, int kTileRows>
void LaunchTiles(CohortCudaDevice* device, const ExpertProduct<BFloat16>& product,
                 const ExpertShape& shape, const ExpertLists& lists) {
  constexpr int kFeatures = kTileFeatures<kGated>;
  const int64_t work = shape.tile_bound() * ((product.features + kFeatures - 1) / kFeatures);
  Launch(device, kGated ? "TileExperts gate and up" : "TileExperts down",
         {.grid = PersistentBlocks(device, work, kResidentBlocks),
          .block = kThreads,
          .shared_bytes = std::size_t{kStages} * kStageElements<kTileRows> * sizeof(BFloat16)},
         TileExpertsKernel<kGated, kTileRows>, product, lists);
}

}  // namespace

template <bool kGated>
void TileExperts(CohortCudaDevice* device, const ExpertProduct<BFloat16>& product,
                 const ExpertShape& shape, const ExpertLists& lists) {
  if (shape.tile_rows == 64) {
    LaunchTiles<kGated, 64>(device, product, shape, lists);
  } else {
    LaunchTiles<kGated, 128>(device, product, shape, lists);
  }
}

template void TileExperts<true>(CohortCudaDevice*, const ExpertProduct<BFloat16>&,
                                const ExpertShape&, const ExpertLists&);
template void TileExperts<false>(CohortCudaDevice*, const ExpertProduct<BFloat16>&,
                                 const ExpertShape&, const ExpertLists&);

}  // namespace cohort::cuda
