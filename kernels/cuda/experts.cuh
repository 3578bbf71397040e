// What the steps of RoutedFfn share. A "pair" is a row and one of its experts that are here; the
// pairs of a step are numbered expert by expert, so that an expert's rows lie together:
//
// - GroupPairs numbers them and cuts each expert's into tiles, on the device (experts_group.cu).
// - The gated product: activated[pair] = round(round(silu(gate)) * up).
// - The down product: products[pair] = down activated[pair], fp32.
// - CombinePairs: out[row] = the sum over the row's pairs, experts ascending, of weight * products.
//
// Both products are one kernel per way to compute them: weights streamed past a few rows
// (experts_stream.cu), tiles of many rows (experts_wgmma.cu on Hopper, experts_tiles.cu on others),
// any shape and dtype (experts_plain.cu). Their grids depend on numbers that the host knows; blocks
// stride over (tile, stretch of features), tile by tile, and find on the device how many tiles
// there are.
#ifndef COHORT_KERNELS_CUDA_EXPERTS_CUH_H_
#define COHORT_KERNELS_CUDA_EXPERTS_CUH_H_

#include <cmath>
#include <cstdint>

#include "kernels/cuda/device.h"
#include "kernels/cuda/rows.cuh"

namespace cohort::cuda {

// Consecutive pairs of one expert that are computed together.
struct ExpertTile {
  int32_t expert;  // counted from the first one here
  int32_t first_pair;
  int32_t pairs;
};

// Device memory, written by GroupPairs. A row has `slots` places for its pairs.
struct ExpertLists {
  int32_t* row_of_pair;   // [pairs]
  int32_t* pair_of_slot;  // [rows, slots] ascending experts, -1 behind a row's last pair
  float* weight_of_slot;  // [rows, slots]
  ExpertTile* tiles;      // [tile_bound]
  int32_t* tile_count;    // [1]
};

// What the host knows of a step.
struct ExpertShape {
  int64_t rows;
  int64_t slots;  // pairs of a row at most
  int64_t experts;
  int64_t first_expert;
  int tile_rows;  // pairs of a tile at most
  int tile_step;  // an expert's tiles are equal but for the last, in steps of this

  int64_t pairs() const { return rows * slots; }
  int64_t tile_bound() const {
    return (experts < pairs() ? experts : pairs()) + pairs() / tile_rows;
  }
};

// One of the two products of every expert: out[pair][f] = x[pair's row] weights[expert][f].
template <class T>
struct ExpertProduct {
  Rows<const T> x;
  const int32_t* row_of_pair;  // null: pair p reads row p
  const T* weights;            // matrices of rows of `inputs` elements
  int64_t expert_stride;       // elements between the matrices of neighbours
  int64_t up_offset;           // gated: elements from a gate's row to that of its up
  int32_t inputs;
  int32_t features;
  void* out;  // [pairs, features], T when gated, else fp32
  int64_t out_stride;
};

template <class T>
__device__ const T* RowOfPair(const ExpertProduct<T>& product, int32_t pair) {
  return product.x[product.row_of_pair != nullptr ? product.row_of_pair[pair] : pair];
}

// Of neighbouring rows of weights in shared memory or a tensor core's fragment, eight gates are
// followed by their eight ups: then one thread holds both sums of a feature.
template <bool kGated>
__device__ constexpr int FeatureOfRow(int row) {
  return kGated ? row / 16 * 8 + row % 8 : row;
}
template <bool kGated, class T>
__device__ const T* WeightRow(const ExpertProduct<T>& product, int32_t expert, int feature,
                              bool is_up) {
  return product.weights + expert * product.expert_stride +
         static_cast<int64_t>(feature) * product.inputs +
         (kGated && is_up ? product.up_offset : int64_t{0});
}

// SiluMultiply of two sums, each rounded to T first.
template <class T>
__device__ T GatedValue(float gate_sum, float up_sum) {
  const float gate = Rounded<T>(gate_sum);
  return FromFloat<T>(Rounded<T>(gate / (1.0f + expf(-gate))) * Rounded<T>(up_sum));
}

template <bool kGated, class T>
__device__ void StoreFeature(const ExpertProduct<T>& product, int32_t pair, int feature, float sum,
                             float up_sum) {
  const int64_t place = pair * product.out_stride + feature;
  if constexpr (kGated) {
    static_cast<T*>(product.out)[place] = GatedValue<T>(sum, up_sum);
  } else {
    static_cast<float*>(product.out)[place] = sum;
  }
}

inline constexpr int64_t kMostExperts = 4096;  // of a rank: a counter of each in shared memory
inline constexpr int kStreamRows = 64;         // rows of a step at most that StreamExperts takes
inline constexpr int kPlainTileRows = 8;
inline constexpr int kWarpgroupTileRows = 160;  // of WgmmaExperts
inline constexpr int kWarpgroupTileStep = 16;

// The tile that StreamExperts uses for so many rows: 8, 16, 32 or 64.
int StreamTileRows(int64_t rows);

void GroupPairs(CohortCudaDevice* device, const CohortCudaRouting& routing,
                const ExpertShape& shape, const ExpertLists& lists);
// `out` may be some columns of the result. Zeros where `slots` is 0.
void CombinePairs(CohortCudaDevice* device, const ExpertLists& lists, int64_t slots,
                  const float* products, const CohortCudaTensor& out);

// bf16 with inputs and features of whole 16-byte packs, every row aligned.
template <bool kGated>
void StreamExperts(CohortCudaDevice* device, const ExpertProduct<BFloat16>& product,
                   const ExpertShape& shape, const ExpertLists& lists);
template <bool kGated>
void TileExperts(CohortCudaDevice* device, const ExpertProduct<BFloat16>& product,
                 const ExpertShape& shape, const ExpertLists& lists);  // tiles of 64 or 128 rows
// Compute 9.0.
template <bool kGated>
void WgmmaExperts(CohortCudaDevice* device, const ExpertProduct<BFloat16>& product,
                  const ExpertShape& shape, const ExpertLists& lists);
template <bool kGated, class T>
void PlainExperts(CohortCudaDevice* device, const ExpertProduct<T>& product,
                  const ExpertShape& shape, const ExpertLists& lists);

// Blocks for `work` pieces of it, so many resident on every multiprocessor at most.
inline unsigned PersistentBlocks(const CohortCudaDevice* device, int64_t work, int resident) {
  const int64_t most = int64_t{device->multiprocessors} * resident;
  return static_cast<unsigned>(work < most ? work : most);
}

}  // namespace cohort::cuda

#endif  // COHORT_KERNELS_CUDA_EXPERTS_CUH_H_
