// The products of RoutedFfn for many rows on Hopper: a tile is up to 160 pairs of an expert times
// 256 rows of its weights (128 gates and their ups, or 256 rows of down), by wgmma.
//
// The operands are swapped: weights are the tensor core's M, pairs its N, which comes in steps of
// 16. An expert's pairs are cut into equal tiles (GroupPairs), so little is multiplied for nothing,
// whatever the routing. One block per multiprocessor goes through its tiles:
//
// - The copying warpgroup brings 64 inputs of the weights and of the pairs' rows per stage, four
//   stages in a ring (matrix_ring.cuh). It runs ahead into the next tile. Thread t copies pack t %
//   8 of rows t / 8 + 16 i; rows of x are gathered through the list of pairs.
// - Each of two multiplying warpgroups has 128 of the rows of weights, as two products of 64 rows
//   by all pairs: m64nNk16, N / 2 sums of each in a thread. A sum runs over ascending inputs.
//
// Where a row of weights lies in a stage is chosen for the epilogue: a thread ends with rows g and
// g + 8 of both products of its warpgroup, and these are one pair's neighbouring features. So eight
// threads write 32 bytes (gated) or 128 bytes (down) of a row, and a gate meets its up in a thread.
//
// Shared memory of a stage: weights [256][64], then x [160][64] bf16, rows swizzled as wgmma wants
// them. What lies in rows of absent pairs is old: it goes only into their own sums.
//
// The cut into roles and the ring with setmaxnreg are those of CUTLASS's warp-specialised kernels
// for sm_90; swapped operands with N by the tile are those of DeepGEMM's and vLLM's small batches.
#include "kernels/cuda/experts.cuh"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/matrix_ring.cuh"
#include "kernels/cuda/ptx.cuh"
#include "kernels/cuda/wgmma.cuh"

namespace cohort::cuda {
namespace {

constexpr int kMultiplyingGroups = 2;
constexpr int kThreads = (kMultiplyingGroups + 1) * kWarpgroupThreads;
// Of a thread, 504 for one of each warpgroup.
constexpr int kCopyingRegisters = 72;
constexpr int kMultiplyingRegisters = 216;
constexpr int kStages = 4;
constexpr int kProductRows = 64;
constexpr int kProductsOfGroup = 2;
constexpr int kGroupRows = kProductRows * kProductsOfGroup;
// From one product's rows of weights to the next one's, in a descriptor.
constexpr uint64_t kProductStep = kProductRows * kMatrixRowBytes / 16;
constexpr int kWeightRows = kGroupRows * kMultiplyingGroups;
constexpr int kWeightBytes = kWeightRows * kMatrixRowBytes;
constexpr int kStageBytes = kWeightBytes + kWarpgroupTileRows * kMatrixRowBytes;
using Ring = MatrixRing<kStages, kStageBytes>;
using Writer = RingWriter<kStages, kStageBytes>;
using Reader = RingReader<kStages, kStageBytes>;

template <bool kGated>
constexpr int kTileFeatures = kGated ? kWeightRows / 2 : kWeightRows;
// A warp's features, and those of one of its threads: they follow each other.
template <bool kGated>
constexpr int kWarpFeatures = kGated ? 16 : 32;
template <bool kGated>
constexpr int kThreadFeatures = kWarpFeatures<kGated> / 8;

// The first feature of warp `warp` of the multiplying ones.
template <bool kGated>
__host__ __device__ constexpr int FeatureOfWarp(int warp) {
  return warp * kWarpFeatures<kGated>;
}
// The feature in rows 16 * strip of a stage's weights, plus what `row % 16` adds: rows of a strip
// belong to one product of one warp, its two halves are g and g + 8.
template <bool kGated>
__host__ __device__ constexpr int FeatureOfStrip(int strip) {
  const int product = strip / kWarpgroupWarps % kProductsOfGroup;
  const int warp =
      strip / (kWarpgroupWarps * kProductsOfGroup) * kWarpgroupWarps + strip % kWarpgroupWarps;
  return FeatureOfWarp<kGated>(warp) + product * (kThreadFeatures<kGated> / kProductsOfGroup);
}
template <bool kGated>
__device__ int FeatureInStrip(int row) {
  return row % 8 * kThreadFeatures<kGated> + (kGated ? 0 : row / 8);
}

// A piece of work: some features of a tile.
struct Stretch {
  ExpertTile tile;
  int first_feature;
};
template <bool kGated>
__device__ Stretch StretchOf(const ExpertProduct<BFloat16>& product, const ExpertLists& lists,
                             int work) {
  const int stretches = (product.features + kTileFeatures<kGated> - 1) / kTileFeatures<kGated>;
  return {lists.tiles[work / stretches], work % stretches * kTileFeatures<kGated>};
}

// What one thread of the copying warpgroup copies of a stretch.
template <bool kGated>
class Copies {
 public:
  __device__ Copies(const ExpertProduct<BFloat16>& product, const Stretch& stretch, int thread)
      : place_{thread}, inputs_(product.inputs) {
    const int row = place_.Row();
    pairs_ = stretch.tile.pairs - row;
#pragma unroll
    for (int i = 0; i < kXRows; ++i) {
      x_[i] = RowOfPair(
          product, stretch.tile.first_pair +
                       (i * kCopyRows < pairs_ ? row + i * kCopyRows : stretch.tile.pairs - 1));
    }
    const int feature = stretch.first_feature + FeatureInStrip<kGated>(row);
    features_ = product.features - feature;
    weights_ = WeightRow<kGated>(product, stretch.tile.expert, feature, row / 8 == 1);
  }

  // Zeros where a row of weights or an input is not there.
  __device__ void Start(unsigned char* stage, int first_input) const {
    const int input = first_input + place_.Input();
    const bool is_input = input < inputs_;
    unsigned char* const to = stage + place_.Offset();
#pragma unroll
    for (int i = 0; i < kStrips; ++i) {
      const int feature = FeatureOfStrip<kGated>(i);
      CopyAsync16(to + i * kStripBytes, weights_ + int64_t{feature} * inputs_ + input,
                  is_input && feature < features_);
    }
#pragma unroll
    for (int i = 0; i < kXRows; ++i) {
      if (i * kCopyRows < pairs_) {
        CopyAsync16(to + kWeightBytes + i * kStripBytes, x_[i] + input, is_input);
      }
    }
  }

 private:
  static constexpr int kStrips = kWeightRows / kCopyRows;
  static constexpr int kXRows = kWarpgroupTileRows / kCopyRows;
  static constexpr int kStripBytes = kCopyRows * kMatrixRowBytes;

  CopyPlace place_;
  int inputs_;
  int pairs_;     // rows of x that are there, from this thread's first
  int features_;  // likewise
  const BFloat16* x_[kXRows];
  const BFloat16* weights_;
};

template <bool kGated>
__device__ void CopyStretches(const ExpertProduct<BFloat16>& product, const ExpertLists& lists,
                              const Ring& ring, int work_end, int thread) {
  Writer writer(ring);
  const int blocks = static_cast<int>(gridDim.x);
  for (int work = static_cast<int>(blockIdx.x); work < work_end; work += blocks) {
    const Copies<kGated> copies(product, StretchOf<kGated>(product, lists, work), thread);
    for (int input = 0; input < product.inputs; input += kStageInputs) {
      copies.Start(writer.Next(), input);
      writer.Commit();
    }
  }
  writer.Finish();
}

// SiluMultiply of two sums, each rounded first, with the hardware's exponential and quotient: they
// err by a few units of fp32 before the rounding to bf16.
__device__ BFloat16 FastGatedValue(float gate_sum, float up_sum) {
  const float gate = Rounded<BFloat16>(gate_sum);
  const float silu = Rounded<BFloat16>(__fdividef(gate, 1.0f + __expf(-gate)));
  return FromFloat<BFloat16>(silu * Rounded<BFloat16>(up_sum));
}

// The sums of a thread: of each product, as wgmma has them.
template <int kPairs>
using Sums = float[kProductsOfGroup][kPairs / 2];

// One pair's features of a thread; `column`: of the thread's columns of the products.
template <bool kGated, int kPairs>
__device__ __forceinline__ void StorePair(const ExpertProduct<BFloat16>& product, int64_t place,
                                          const Sums<kPairs>& sums, int column) {
  const int first = column / 2 * 4 + column % 2;  // row g; row g + 8 comes two later
  if constexpr (kGated) {
    StorePack<2>(static_cast<BFloat16*>(product.out) + place,
                 Pack<BFloat16, 2>{{FastGatedValue(sums[0][first], sums[0][first + 2]),
                                    FastGatedValue(sums[1][first], sums[1][first + 2])}});
  } else {
    StorePack<4>(
        static_cast<float*>(product.out) + place,
        Pack<float, 4>{{sums[0][first], sums[0][first + 2], sums[1][first], sums[1][first + 2]}});
  }
}

template <bool kGated, int kPairs>
__device__ __forceinline__ void StoreSums(const ExpertProduct<BFloat16>& product,
                                          const Stretch& stretch, int warp,
                                          const Sums<kPairs>& sums) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int feature =
      stretch.first_feature + FeatureOfWarp<kGated>(warp) + lane / 4 * kThreadFeatures<kGated>;
  if (feature >= product.features) {
    return;
  }
#pragma unroll
  for (int column = 0; column < kPairs / 4; ++column) {
    const int pair = column / 2 * 8 + lane % 4 * 2 + column % 2;
    if (pair < stretch.tile.pairs) {
      StorePair<kGated, kPairs>(
          product, (stretch.tile.first_pair + pair) * product.out_stride + feature, sums, column);
    }
  }
}

// The products of a stretch by one multiplying warpgroup; `warp`: among the multiplying ones.
template <int kPairs>
__device__ __forceinline__ void MultiplyStages(int inputs, Reader& reader, int warp,
                                               Sums<kPairs>& sums) {
#pragma unroll
  for (int i = 0; i < kProductsOfGroup; ++i) {
    WgmmaKeep(sums[i]);
  }
  const int weights_begin = warp / kWarpgroupWarps * kGroupRows * kMatrixRowBytes;
  for (int input = 0; input < inputs; input += kStageInputs) {
    const unsigned char* const stage = reader.Next();
    const uint64_t weights = SharedMatrixKMajor(stage + weights_begin);
    const uint64_t x = SharedMatrixKMajor(stage + kWeightBytes);
    WgmmaFence();
#pragma unroll
    for (int k = 0; k < kStageInputs / 16; ++k) {
#pragma unroll
      for (int i = 0; i < kProductsOfGroup; ++i) {
        WgmmaBf16<kPairs>(sums[i], weights + i * kProductStep + k * kKMajorStep,
                          x + k * kKMajorStep, true);
      }
    }
    WgmmaCommit();
    if (input > 0) {
      WgmmaWait<1>();
      reader.Release(1);
    }
  }
  WgmmaWait<0>();
  reader.Release(0);
#pragma unroll
  for (int i = 0; i < kProductsOfGroup; ++i) {
    WgmmaKeep(sums[i]);
  }
}

// A stretch, with as many columns as the tile's pairs need.
template <bool kGated, int kPairs>
__device__ __forceinline__ void MultiplyStretch(const ExpertProduct<BFloat16>& product,
                                                const ExpertLists& lists, int work,
                                                Reader& reader) {
  if constexpr (kPairs < kWarpgroupTileRows) {
    if (StretchOf<kGated>(product, lists, work).tile.pairs > kPairs) {
      MultiplyStretch<kGated, kPairs + kWarpgroupTileStep>(product, lists, work, reader);
      return;
    }
  }
  const int warp = static_cast<int>(threadIdx.x) / 32;
  // Zeros, not a first product that does not add: else the compiler takes the sums of all numbers
  // of columns to live on from tile to tile. And the tile is read again behind the products, for
  // there is no register to spare while they run.
  Sums<kPairs> sums = {};
  MultiplyStages<kPairs>(product.inputs, reader, warp, sums);
  StoreSums<kGated, kPairs>(product, StretchOf<kGated>(product, lists, work), warp, sums);
  __syncwarp();  // wgmma wants whole warps
}

template <bool kGated>
__global__ void __launch_bounds__(kThreads, 1)
    WgmmaExpertsKernel(ExpertProduct<BFloat16> product, ExpertLists lists) {
  const Ring ring{DynamicSharedMatrices()};
  if (threadIdx.x == 0) {
    ring.Init(kMultiplyingGroups * kWarpgroupWarps);
  }
  __syncthreads();
  WaitForPredecessor();
  const int stretches = (product.features + kTileFeatures<kGated> - 1) / kTileFeatures<kGated>;
  const int work_end = *lists.tile_count * stretches;
  const int thread = static_cast<int>(threadIdx.x);
  if (thread >= kMultiplyingGroups * kWarpgroupThreads) {
    LowerRegisters<kCopyingRegisters>();
    CopyStretches<kGated>(product, lists, ring, work_end, thread % kWarpgroupThreads);
  } else {
    RaiseRegisters<kMultiplyingRegisters>();
    Reader reader(ring);
    const int blocks = static_cast<int>(gridDim.x);
    for (int work = static_cast<int>(blockIdx.x); work < work_end; work += blocks) {
      MultiplyStretch<kGated, kWarpgroupTileStep>(product, lists, work, reader);
    }
  }
}

}  // namespace

template <bool kGated>
void WgmmaExperts(CohortCudaDevice* device, const ExpertProduct<BFloat16>& product,
                  const ExpertShape& shape, const ExpertLists& lists) {
  constexpr int kFeatures = kTileFeatures<kGated>;
  const int64_t work = shape.tile_bound() * ((product.features + kFeatures - 1) / kFeatures);
  Launch(device, kGated ? "WgmmaExperts gate and up" : "WgmmaExperts down",
         {.grid = PersistentBlocks(device, work, 1),
          .block = kThreads,
          .shared_bytes = Ring::kBytes,
          .programmatic = true},
         WgmmaExpertsKernel<kGated>, product, lists);
}

template void WgmmaExperts<true>(CohortCudaDevice*, const ExpertProduct<BFloat16>&,
                                 const ExpertShape&, const ExpertLists&);
template void WgmmaExperts<false>(CohortCudaDevice*, const ExpertProduct<BFloat16>&,
                                  const ExpertShape&, const ExpertLists&);

}  // namespace cohort::cuda
