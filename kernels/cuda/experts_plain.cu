// The products of RoutedFfn for fp32, and for sizes that tensor cores cannot take.
#include "kernels/cuda/experts.cuh"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/ptx.cuh"

namespace cohort::cuda {
namespace {

constexpr int kWarps = 8;
constexpr int kResidentBlocks = 4;

// A warp computes one feature of the pairs of a tile: its lanes stride over the inputs and read
// each weight once. The order of a sum depends on `inputs` alone.
template <bool kGated, class T>
__global__ __launch_bounds__(kWarps * 32) void PlainExpertsKernel(ExpertProduct<T> product,
                                                                  ExpertLists lists) {
  WaitForPredecessor();
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int64_t work = int64_t{*lists.tile_count} * product.features;
  for (int64_t i = int64_t{blockIdx.x} * kWarps + threadIdx.x / 32; i < work;
       i += int64_t{gridDim.x} * kWarps) {
    const ExpertTile tile = lists.tiles[i / product.features];
    const int feature = static_cast<int>(i % product.features);
    const T* const row = WeightRow<kGated>(product, tile.expert, feature, false);
    const T* const up_row = WeightRow<kGated>(product, tile.expert, feature, true);
    const T* x[kPlainTileRows];
    float sum[kPlainTileRows] = {};
    float up_sum[kPlainTileRows] = {};
#pragma unroll
    for (int p = 0; p < kPlainTileRows; ++p) {
      x[p] = RowOfPair(product, tile.first_pair + min(p, tile.pairs - 1));
    }
#pragma unroll 2
    for (int k = lane; k < product.inputs; k += 32) {
      const float weight = ToFloat(row[k]);
      const float up_weight = kGated ? ToFloat(up_row[k]) : 0.0f;
#pragma unroll
      for (int p = 0; p < kPlainTileRows; ++p) {
        const float value = ToFloat(x[p][k]);
        sum[p] += value * weight;
        if constexpr (kGated) {
          up_sum[p] += value * up_weight;
        }
      }
    }
#pragma unroll
    for (int p = 0; p < kPlainTileRows; ++p) {
      const float of_warp = WarpSum(sum[p]);
      const float up_of_warp = kGated ? WarpSum(up_sum[p]) : 0.0f;
      if (lane == 0 && p < tile.pairs) {
        StoreFeature<kGated>(product, tile.first_pair + p, feature, of_warp, up_of_warp);
      }
    }
  }
}

}  // namespace

template <bool kGated, class T>
void PlainExperts(CohortCudaDevice* device, const ExpertProduct<T>& product,
                  const ExpertShape& shape, const ExpertLists& lists) {
  const int64_t work = (shape.tile_bound() * product.features + kWarps - 1) / kWarps;
  Launch(device, kGated ? "PlainExperts gate and up" : "PlainExperts down",
         {.grid = PersistentBlocks(device, work, kResidentBlocks),
          .block = kWarps * 32,
          .programmatic = true},
         PlainExpertsKernel<kGated, T>, product, lists);
}

template void PlainExperts<true, float>(CohortCudaDevice*, const ExpertProduct<float>&,
                                        const ExpertShape&, const ExpertLists&);
template void PlainExperts<false, float>(CohortCudaDevice*, const ExpertProduct<float>&,
                                         const ExpertShape&, const ExpertLists&);
template void PlainExperts<true, BFloat16>(CohortCudaDevice*, const ExpertProduct<BFloat16>&,
                                           const ExpertShape&, const ExpertLists&);
template void PlainExperts<false, BFloat16>(CohortCudaDevice*, const ExpertProduct<BFloat16>&,
                                            const ExpertShape&, const ExpertLists&);

}  // namespace cohort::cuda
