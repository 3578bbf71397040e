// Rope with the store into the paged KV memory. One block handles one token, one thread kVec
// neighbouring pairs (i, i + head_dim / 2) of one head at a time. Heads are numbered as they lie in
// the row: queries, keys, values.
#include "kernels/cuda/attention.cuh"
#include "kernels/cuda/device.h"
#include "kernels/cuda/entries.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/ptx.cuh"

namespace cohort::cuda {
namespace {

constexpr int kThreads = 256;

struct RotationRow {
  const float* cosine;
  const float* sine;
};

// to[i..], to[i + half..] = the rotated pairs of `from`, which may be `to`.
template <class T, int kVec>
__device__ void RotatePairs(const T* from, const RotationRow& row, int32_t half, int32_t i, T* to) {
  const auto first = LoadPack<kVec>(from + i);
  const auto second = LoadPack<kVec>(from + i + half);
  const auto cosine = LoadPack<kVec>(row.cosine + i);
  const auto sine = LoadPack<kVec>(row.sine + i);
  Pack<T, kVec> low;
  Pack<T, kVec> high;
#pragma unroll
  for (int k = 0; k < kVec; ++k) {
    const float x = ToFloat(first.item[k]);
    const float y = ToFloat(second.item[k]);
    low.item[k] = SumOfRoundedProducts<T>(x, cosine.item[k], -y, sine.item[k]);
    high.item[k] = SumOfRoundedProducts<T>(y, cosine.item[k], x, sine.item[k]);
  }
  StorePack<kVec>(to + i, low);
  StorePack<kVec>(to + i + half, high);
}

template <class T, int kVec>
__global__ void RopeAndStoreKvKernel(Rows<T> qkv, int32_t first_head, int32_t query_heads,
                                     Rows<const float> cosine, Rows<const float> sine, Batch batch,
                                     PagedKv<T> kv) {
  WaitForPredecessor();
  LaunchSuccessor();
  const int64_t token = blockIdx.x;
  const int32_t position = batch.Position(token);
  const int64_t block = batch.Blocks(token)[position / kv.block_size];
  const int64_t rope_row = batch.rope_rows[token][0];
  const RotationRow row = {cosine[rope_row], sine[rope_row]};
  const int32_t half = kv.head_dim / 2;
  const int32_t packs = half / kVec;  // of a head
  const int32_t end = (query_heads + 2 * kv.kv_heads) * packs;
  for (int32_t pack = first_head * packs + static_cast<int32_t>(threadIdx.x); pack < end;
       pack += kThreads) {
    const int32_t head = pack / packs;
    const int32_t i = pack % packs * kVec;
    T* source = qkv[token] + head * kv.head_dim;
    if (head < query_heads) {
      RotatePairs<T, kVec>(source, row, half, i, source);
    } else if (head < query_heads + kv.kv_heads) {
      RotatePairs<T, kVec>(source, row, half, i, kv.Key(block, head - query_heads, position));
    } else {
      T* value = kv.Value(block, head - query_heads - kv.kv_heads, position);
      StorePack<kVec>(value + i, LoadPack<kVec>(source + i));
      StorePack<kVec>(value + i + half, LoadPack<kVec>(source + i + half));
    }
  }
}

template <class T, int kVec>
void LaunchRope(CohortCudaDevice* device, const CohortCudaTensor& qkv, int64_t query_heads,
                const CohortCudaRope& rope, const CohortCudaBatch& batch, const CohortCudaKv& kv) {
  const int32_t heads = static_cast<int32_t>(query_heads);
  const int32_t first_head = rope.keys_only != 0 ? heads : 0;
  const LaunchShape shape = {
      .grid = static_cast<unsigned>(batch.tokens), .block = kThreads, .programmatic = true};
  Launch(device, "RopeAndStoreKv", shape, RopeAndStoreKvKernel<T, kVec>, RowsOf<T>(qkv), first_head,
         heads, RowsOf<const float>(rope.cosine), RowsOf<const float>(rope.sine), BatchOf(batch),
         PagedKvOf<T>(kv));
}

}  // namespace

void RopeAndStoreKv(CohortCudaDevice* device, const CohortCudaTensor* qkv, int64_t query_heads,
                    const CohortCudaRope* rope, const CohortCudaBatch* batch,
                    const CohortCudaKv* kv) noexcept {
  if (batch->tokens == 0 || qkv->dims[1] == 0) {
    return;
  }
  Activate(device);
  const int64_t half = kv->keys.dims[3] / 2;
  WithActivation(qkv->dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    constexpr int kVec = 16 / sizeof(T);
    const bool is_vectorised =
        CutsIntoPacks(half, kVec, {qkv, &kv->keys, &kv->values, &rope->cosine, &rope->sine});
    if (is_vectorised) {
      LaunchRope<T, kVec>(device, *qkv, query_heads, *rope, *batch, *kv);
    } else {
      LaunchRope<T, 1>(device, *qkv, query_heads, *rope, *batch, *kv);
    }
  });
}

}  // namespace cohort::cuda
