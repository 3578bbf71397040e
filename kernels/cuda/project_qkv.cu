// The product with the query, key and value rows, and rope with the store into the KV memory in its
// epilogue where the product streams (stream.cuh, stream_wide.cuh): a unit is 8 rows of the first
// half of a head and the 8 that they rotate with, so that a pair meets in one thread.
#include "kernels/cuda/attention.cuh"
#include "kernels/cuda/device.h"
#include "kernels/cuda/entries.h"
#include "kernels/cuda/rows.cuh"
#include "kernels/cuda/stream.cuh"
#include "kernels/cuda/stream_wide.cuh"

namespace cohort::cuda {
namespace {

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

}  // namespace

void ProjectQkv(CohortCudaDevice* device, const CohortCudaTensor* x, const CohortCudaTensor* weight,
                const CohortCudaTensor* bias, const CohortCudaTensor* qkv, int64_t query_heads,
                const CohortCudaRope* rope, const CohortCudaBatch* batch,
                const CohortCudaKv* kv) noexcept {
  const int64_t head_dim = kv->keys.dims[3];
  if (qkv->dims[1] > 0 && head_dim % 16 == 0 && CanStreamAny(*device, *x, *weight)) {
    Activate(device);
    const int half = static_cast<int>(head_dim / 2);
    const StreamOperands operands =
        MakeStreamOperands(device, *x, *weight, qkv->dims[1] / kStreamUnitRows, HeadRows(half));
    LaunchAnyStream(
        device, "ProjectQkv", operands,
        RopeEpilogue{
            .bias = bias != nullptr ? static_cast<const BFloat16*>(bias->data) : nullptr,
            .qkv = RowsOf<BFloat16>(*qkv),
            .query_heads = static_cast<int>(query_heads),
            .half = half,
            .is_keys_only = rope->keys_only != 0,
            .cosine = RowsOf<const float>(rope->cosine),
            .sine = RowsOf<const float>(rope->sine),
            .batch = BatchOf(*batch),
            .kv = PagedKvOf<BFloat16>(*kv),
        });
    return;
  }
  MatMul(device, x, weight, bias, qkv);
  RopeAndStoreKv(device, qkv, query_heads, rope, batch, kv);
}

}  // namespace cohort::cuda
