// The product with the query, key and value rows, and rope with the store into the KV memory in its
// epilogue where the product streams (stream.cuh, stream_wide.cuh): a unit is 8 rows of the first
// half of a head and the 8 that they rotate with, so that a pair meets in one thread.
#include "kernels/cuda/attention.cuh"
#include "kernels/cuda/device.h"
#include "kernels/cuda/entries.h"
#include "kernels/cuda/rows.cuh"
#include "kernels/cuda/stream.cuh"
#include "kernels/cuda/stream_epilogues.cuh"
#include "kernels/cuda/stream_wide.cuh"

namespace cohort::cuda {

RopeEpilogue RopeEpilogueOf(const CohortCudaTensor* bias, const CohortCudaTensor& qkv,
                            int64_t query_heads, const CohortCudaRope& rope,
                            const CohortCudaBatch& batch, const CohortCudaKv& kv) {
  return {
      .bias = bias != nullptr ? static_cast<const BFloat16*>(bias->data) : nullptr,
      .qkv = RowsOf<BFloat16>(qkv),
      .query_heads = static_cast<int>(query_heads),
      .half = static_cast<int>(kv.keys.dims[3] / 2),
      .is_keys_only = rope.keys_only != 0,
      .cosine = RowsOf<const float>(rope.cosine),
      .sine = RowsOf<const float>(rope.sine),
      .batch = BatchOf(batch),
      .kv = PagedKvOf<BFloat16>(kv),
  };
}

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
    LaunchAnyStream(device, "ProjectQkv", operands,
                    RopeEpilogueOf(bias, *qkv, query_heads, *rope, *batch, *kv));
    return;
  }
  MatMul(device, x, weight, bias, qkv);
  RopeAndStoreKv(device, qkv, query_heads, rope, batch, kv);
}

}  // namespace cohort::cuda
