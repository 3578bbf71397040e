// What becomes of the sums of a streaming product (stream_tile.cuh, stream_wide.cuh):
// PlaceOf(token) is what a thread keeps of its token, Store(unit, pair, place, sums) gets the sums
// of rows `pair` and `pair`
// + 8 of a unit.
#ifndef COHORT_KERNELS_CUDA_STREAM_EPILOGUES_CUH_H_
#define COHORT_KERNELS_CUDA_STREAM_EPILOGUES_CUH_H_

#include "kernels/cuda/attention.cuh"
#include "kernels/cuda/rows.cuh"
#include "kernels/cuda/stream_plan.h"

namespace cohort::cuda {

// out = sums + bias; units are kPlainRows.
template <class Out>
struct BiasEpilogue {
  const BFloat16* bias;  // may be null
  Rows<Out> out;
  int rows;

  __device__ Out* PlaceOf(int token) const { return out[token]; }
  __device__ void StoreRow(int row, Out* place, float sum) const {
    if (row < rows) {
      place[row] = FromFloat<Out>(bias != nullptr ? sum + ToFloat(__ldg(bias + row)) : sum);
    }
  }
  __device__ void Store(int unit, int pair, Out* place, float2 sums) const {
    StoreRow(unit * kStreamUnitRows + pair, place, sums.x);
    StoreRow(unit * kStreamUnitRows + pair + 8, place, sums.y);
  }
};

// out = SiLU(gate) * up; units are GateUpRows.
struct GateUpEpilogue {
  Rows<BFloat16> out;

  __device__ BFloat16* PlaceOf(int token) const { return out[token]; }
  __device__ void Store(int unit, int pair, BFloat16* place, float2 sums) const {
    place[unit * 8 + pair] =
        SiluTimes<BFloat16>(Rounded<BFloat16>(sums.x), Rounded<BFloat16>(sums.y));
  }
};

// Bias, rope, and the store of keys and values; units are HeadRows.
struct RopeEpilogue {
  const BFloat16* bias;  // may be null
  Rows<BFloat16> qkv;
  int query_heads;
  int half;           // of a head's dimension, a multiple of 8
  bool is_keys_only;  // queries are stored as they are
  Rows<const float> cosine;
  Rows<const float> sine;
  Batch batch;
  PagedKv<BFloat16> kv;

  struct Place {
    BFloat16* queries;
    int64_t position;
    int64_t block;
    int64_t rope_row;
  };
  __device__ Place PlaceOf(int token) const {
    const int64_t position = batch.Position(token);
    return {qkv[token], position, batch.Blocks(token)[position / kv.block_size],
            batch.rope_rows[token][0]};
  }

  // Read-only loads, here and of cosine and sine: they may run ahead of other tokens' stores.
  __device__ float Biased(float sum, int row) const {
    return Rounded<BFloat16>(bias != nullptr ? sum + ToFloat(__ldg(bias + row)) : sum);
  }
  __device__ void Store(int unit, int pair, const Place& place, float2 sums) const {
    const int head = unit / (half / 8);
    const int i = unit % (half / 8) * 8 + pair;
    const float first = Biased(sums.x, head * 2 * half + i);
    const float second = Biased(sums.y, head * 2 * half + i + half);
    const int64_t kv_head = head - query_heads;
    const bool is_value = kv_head >= kv.kv_heads;
    BFloat16* to = kv_head < 0 ? place.queries + int64_t{head} * 2 * half
                   : is_value  ? kv.Value(place.block, kv_head - kv.kv_heads, place.position)
                               : kv.Key(place.block, kv_head, place.position);
    if (is_value || (kv_head < 0 && is_keys_only)) {
      to[i] = FromFloat<BFloat16>(first);
      to[i + half] = FromFloat<BFloat16>(second);
      return;
    }
    const float c = __ldg(cosine[place.rope_row] + i);
    const float s = __ldg(sine[place.rope_row] + i);
    to[i] = SumOfRoundedProducts<BFloat16>(first, c, -second, s);
    to[i + half] = SumOfRoundedProducts<BFloat16>(second, c, first, s);
  }
};

// (project_qkv.cu)
RopeEpilogue RopeEpilogueOf(const CohortCudaTensor* bias, const CohortCudaTensor& qkv,
                            int64_t query_heads, const CohortCudaRope& rope,
                            const CohortCudaBatch& batch, const CohortCudaKv& kv);

}  // namespace cohort::cuda

#endif  // COHORT_KERNELS_CUDA_STREAM_EPILOGUES_CUH_H_
