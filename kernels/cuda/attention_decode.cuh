// Attention of sequences with one row (decodes) on tensor cores, by four warps: what the decode
// kernel (attention_decode.cu) and the persistent step (persistent_step.cu) share.
//
// An item is the heads of one group (kGroupHeads at most, of one KV head) of one sequence over one
// range of its keys; the ranges are cut on the device, from the sequence's length, into at most
// `splits` of whole kRangeKeys. Warp w takes the slabs of 16 keys w, w + 4, ... of the range.
// Keys are the rows of the products and heads their columns, so no column is wasted on a token's
// few heads: S [16 keys, 8 heads] = K Q^T, then O^T [head size, 8 heads] += V^T P^T, where P^T is
// the transpose of what the softmax left in registers. Every warp has its own running softmax; the
// four are merged in order, and whoever finishes the last range of a (sequence, group) merges the
// ranges in order. (The swap of operands: FlashInfer and TensorRT-LLM's XQA; splits:
// Flash-Decoding.)
//
// Shared memory: for each warp a ring of kStages slabs, keys and values [16, head size] each,
// swizzled (SwizzledTile), filled by cp.async of that warp alone, so the main loop needs no barrier
// of the block. Afterwards the same bytes hold each warp's O [8, head size + 4], maxima and sums in
// fp32. Slots behind the last position are not read: they count as zeros.
//
// Rounding: weights are rounded to bf16 for the product with V, their sum is not. A row's result
// depends on its own numbers, its length and `splits`, which follows from how many sequences and
// groups the step's decodes have; on nothing else in the batch. Not yet run on a GPU.
#ifndef COHORT_KERNELS_CUDA_ATTENTION_DECODE_CUH_H_
#define COHORT_KERNELS_CUDA_ATTENTION_DECODE_CUH_H_

#include <cmath>
#include <cstdint>

#include "kernels/cuda/attention.cuh"
#include "kernels/cuda/attention.h"
#include "kernels/cuda/ptx.cuh"

namespace cohort::cuda {

inline constexpr int kDecodeWarps = 4;
inline constexpr int kDecodeThreads = kDecodeWarps * 32;
inline constexpr int kRangeKeys = kDecodeWarps * kSlabKeys;  // a slab for every warp
// A range is no shorter than this many kRangeKeys: below, merging costs more than it brings.
inline constexpr int kLeastUnits = 2;
// What a range leaves: O [kGroupHeads, head size], then maxima and sums of the heads.
template <int kHeadDim>
inline constexpr int kRangeFloats = (kHeadDim + 2) * kGroupHeads;

struct DecodeArguments {
  TensorCoreAttention attention;
  uint32_t* arrived;  // [sequences, groups], zero between launches
  float* ranges;      // [sequences, groups, splits, kRangeFloats]
};

// One of `splits` ranges at most of the keys of a group's heads.
struct DecodeItem {
  int64_t sequence;  // and its row
  int group;
  int groups;
  int split;
  int splits;
};

// The shared memory of four warps. They meet at barrier kBarrier; 0 is that of the whole block.
template <int kDim, int kSlabs, int kBarrier>
struct DecodeShared {
  static constexpr int kHeadDim = kDim;
  static constexpr int kStages = kSlabs;  // slabs of a warp's ring
  static constexpr int kTileBytes = kSlabKeys * kHeadDim * 2;
  static constexpr int kWarpBytes = kStages * 2 * kTileBytes;
  static constexpr int kBytes = kDecodeWarps * kWarpBytes;
  static constexpr int kOutStride = kHeadDim + 4;  // floats; 4 spread the heads over the banks
  static_assert(kGroupHeads * (kOutStride + 2) * 4 <= kWarpBytes);

  unsigned char* begin;

  __device__ SwizzledTile<kHeadDim> Slot(int warp, int stage, int is_value) const {
    return {begin + warp * kWarpBytes + (stage * 2 + is_value) * kTileBytes};
  }
  // The warp's region after its ring is done with.
  __device__ float* Result(int warp) const {
    return reinterpret_cast<float*>(begin + warp * kWarpBytes);
  }
  __device__ void Sync() const {
    if constexpr (kBarrier == 0) {
      __syncthreads();
    } else {
      NamedBarrier(kBarrier, kDecodeThreads);
    }
  }
};

// Where the block's keys lie: position p of the sequence, and the slabs of this warp.
struct KeySource {
  const int32_t* blocks;
  int32_t length;  // of the sequence
  int32_t begin;   // keys before and from `end` on are another's
  int32_t end;
  int32_t first_slab;
  int32_t slabs;  // of this warp

  // Warp `warp` of the keys [begin, end).
  __device__ KeySource(const int32_t* table, int32_t keys, int32_t first, int32_t last, int warp)
      : blocks(table),
        length(keys),
        begin(first),
        end(last),
        first_slab(first / kSlabKeys + warp),
        slabs((last - 1) / kSlabKeys - first_slab + kDecodeWarps) {
    slabs = slabs > 0 ? slabs / kDecodeWarps : 0;
  }
  __device__ int32_t Slab(int32_t i) const { return first_slab + i * kDecodeWarps; }
};

// Q^T of the group's heads as the second operand of the products, zeros behind the last head.
template <int kHeadDim>
struct QueryFragments {
  uint32_t item[kHeadDim / 16][2];

  __device__ void Load(const BFloat16* group, int heads, int lane) {
    const int head = lane / 4;
    const auto* from = reinterpret_cast<const uint32_t*>(group + head * kHeadDim + lane % 4 * 2);
#pragma unroll
    for (int step = 0; step < kHeadDim / 16; ++step) {
      item[step][0] = head < heads ? from[step * 8] : 0;
      item[step][1] = head < heads ? from[step * 8 + 4] : 0;
    }
  }
  // The thread holds both elements of every pair that a rotation turns.
  __device__ void Rotate(const float* cosine, const float* sine, int lane) {
#pragma unroll
    for (int step = 0; step < kHeadDim / 32; ++step) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int i = step * 16 + half * 8 + lane % 4 * 2;
        RotatePair(&item[step][half], &item[step + kHeadDim / 32][half], cosine + i, sine + i);
      }
    }
  }
};

// The running softmax and weighted sum of a warp. A thread holds the heads 2 (lane % 4) and the
// next; of the weighted sum the dimensions 16 i + lane / 4 and + 8.
template <int kHeadDim>
struct Running {
  float maximum[2] = {-INFINITY, -INFINITY};  // of the scaled logits, to base 2
  float sum[2] = {0, 0};                      // over this thread's keys only
  float out[kHeadDim / 16][4] = {};
};

// Copies the warp's slab into a slot of its ring. A slab lies inside one block of KV memory.
template <class Shared>
__device__ void CopySlab(const Shared& shared, const PagedKv<const BFloat16>& kv, int kv_head,
                         int32_t block, const KeySource& source, int32_t slab, int stage) {
  constexpr int kHeadDim = Shared::kHeadDim;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const int32_t first = slab * kSlabKeys;
  const int64_t inside = kv.Inside(kv_head, first);
  const BFloat16* keys = kv.keys + block * kv.key_block_stride + inside;
  const BFloat16* values = kv.values + block * kv.value_block_stride + inside;
  const auto key_slot = shared.Slot(warp, stage, 0);
  const auto value_slot = shared.Slot(warp, stage, 1);
#pragma unroll
  for (int i = lane; i < kSlabKeys * kHeadDim / 8; i += 32) {
    const int row = i / (kHeadDim / 8);
    const int chunk = i % (kHeadDim / 8);
    const bool is_there = first + row < source.length;
    CopyAsync16(key_slot.Chunk(row, chunk), keys + i * 8, is_there);
    CopyAsync16(value_slot.Chunk(row, chunk), values + i * 8, is_there);
  }
}

// Logits of 16 keys: rows lane / 4 and + 8, columns (heads) 2 (lane % 4) and the next.
template <int kHeadDim>
__device__ void MultiplyKeys(const SwizzledTile<kHeadDim>& keys,
                             const QueryFragments<kHeadDim>& query, int lane, float (&logits)[4]) {
  float odd[4] = {};
#pragma unroll
  for (int step = 0; step < kHeadDim / 16; ++step) {
    uint32_t a[4];
    LoadMatrix4(a, keys.Chunk(lane % 16, step * 2 + lane / 16));
    MmaBf16(step % 2 == 0 ? logits : odd, a, query.item[step]);
  }
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    logits[i] = __fadd_rn(logits[i], odd[i]);
  }
}

// Turns logits into weights relative to the largest so far; returns the factor of what was summed
// before.
template <int kHeadDim>
__device__ void TakeLogits(float (&logits)[4], float scale, Running<kHeadDim>& running,
                           float (&keep)[2]) {
#pragma unroll
  for (int head = 0; head < 2; ++head) {
    float largest = fmaxf(logits[head], logits[head + 2]);
#pragma unroll
    for (int offset = 4; offset < 32; offset *= 2) {
      largest = fmaxf(largest, __shfl_xor_sync(0xffffffffu, largest, offset));
    }
    const float maximum = fmaxf(running.maximum[head], __fmul_rn(largest, scale));
    keep[head] = Exp2Approximate(__fsub_rn(running.maximum[head], maximum));
    running.maximum[head] = maximum;
#pragma unroll
    for (int i = head; i < 4; i += 2) {
      logits[i] = Exp2Approximate(__fmaf_rn(logits[i], scale, -maximum));
    }
    running.sum[head] =
        __fmaf_rn(running.sum[head], keep[head], __fadd_rn(logits[head], logits[head + 2]));
  }
}

template <int kHeadDim>
__device__ void AddValues(const SwizzledTile<kHeadDim>& values, const float (&weights)[4],
                          const float (&keep)[2], int lane, Running<kHeadDim>& running) {
  const uint32_t b[2] = {TransposeMatrix(PackBFloat16(weights[0], weights[1])),
                         TransposeMatrix(PackBFloat16(weights[2], weights[3]))};
  const bool is_changed = keep[0] != 1.0f || keep[1] != 1.0f;
  if (__any_sync(0xffffffffu, is_changed)) {
#pragma unroll
    for (auto& fragment : running.out) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        fragment[i] = __fmul_rn(fragment[i], keep[i % 2]);
      }
    }
  }
  const int row = lane / 16 * 8 + lane % 8;
#pragma unroll
  for (int i = 0; i < kHeadDim / 16; ++i) {
    uint32_t a[4];
    LoadMatrix4Transposed(a, values.Chunk(row, i * 2 + lane / 8 % 2));
    MmaBf16(running.out[i], a, b);
  }
}

// This warp's slabs of `source`.
template <class Shared>
__device__ void TakeKeys(const Shared& shared, const PagedKv<const BFloat16>& kv, int kv_head,
                         const KeySource& source, const QueryFragments<Shared::kHeadDim>& query,
                         float scale, Running<Shared::kHeadDim>& running) {
  constexpr int kStages = Shared::kStages;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int warp = static_cast<int>(threadIdx.x) / 32;
  int32_t block_of_lane = 0;  // of 32 slabs, one per lane
  const auto copy = [&](int32_t i, int stage) {
    if (i < source.slabs) {
      if (i % 32 == 0 && i + lane < source.slabs) {
        block_of_lane = source.blocks[source.Slab(i + lane) * kSlabKeys / kv.block_size];
      }
      const int32_t block = __shfl_sync(0xffffffffu, block_of_lane, i % 32);
      CopySlab(shared, kv, kv_head, block, source, source.Slab(i), stage);
    }
    CopyAsyncCommit();
  };
  for (int stage = 0; stage < kStages - 1; ++stage) {
    copy(stage, stage);
  }
  int stage = 0;
  for (int32_t i = 0; i < source.slabs; ++i) {
    CopyAsyncWait<kStages - 2>();
    __syncwarp();  // the slab is there for all lanes, and the slot before is free
    copy(i + kStages - 1, stage == 0 ? kStages - 1 : stage - 1);
    float logits[4] = {};
    MultiplyKeys(shared.Slot(warp, stage, 0), query, lane, logits);
    const int32_t key = source.Slab(i) * kSlabKeys + lane / 4;
#pragma unroll
    for (int k = 0; k < 4; ++k) {
      const int32_t position = key + k / 2 * 8;
      logits[k] = position >= source.begin && position < source.end ? logits[k] : -INFINITY;
    }
    float keep[2];
    TakeLogits(logits, scale, running, keep);
    AddValues(shared.Slot(warp, stage, 1), logits, keep, lane, running);
    stage = stage == kStages - 1 ? 0 : stage + 1;
  }
  CopyAsyncWait<0>();
  __syncwarp();
}

template <class Shared>
__device__ void StoreWarpResult(const Shared& shared, const Running<Shared::kHeadDim>& running) {
  constexpr int kHeadDim = Shared::kHeadDim;
  constexpr int kStride = Shared::kOutStride;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  float* result = shared.Result(static_cast<int>(threadIdx.x) / 32);
#pragma unroll
  for (int head = 0; head < 2; ++head) {
    const int row = lane % 4 * 2 + head;
    float sum = running.sum[head];
#pragma unroll
    for (int offset = 4; offset < 32; offset *= 2) {
      sum = __fadd_rn(sum, __shfl_xor_sync(0xffffffffu, sum, offset));
    }
#pragma unroll
    for (int i = 0; i < kHeadDim / 16; ++i) {
      result[row * kStride + i * 16 + lane / 4] = running.out[i][head];
      result[row * kStride + i * 16 + lane / 4 + 8] = running.out[i][head + 2];
    }
    if (lane < 4) {
      result[kGroupHeads * kStride + row] = running.maximum[head];
      result[kGroupHeads * (kStride + 1) + row] = sum;
    }
  }
}

// Some dimensions of one head of a merged result, not yet divided by `sum`.
template <int kCount>
struct Merged {
  float maximum = -INFINITY;
  float sum = 0;
  float out[kCount] = {};
};

// Adds up `count` parts in order: their maxima and sums of the head lie `stride` floats apart, and
// so do their outs. A part without keys has the maximum -inf and so the factor 0.
template <int kCount>
__device__ Merged<kCount> Merge(const float* out, const float* maximum, const float* sum,
                                int64_t stride, int count) {
  Merged<kCount> merged;
  for (int part = 0; part < count; ++part) {
    merged.maximum = fmaxf(merged.maximum, maximum[part * stride]);
  }
#pragma unroll 4
  for (int part = 0; part < count; ++part) {
    const float weight = Exp2Approximate(__fsub_rn(maximum[part * stride], merged.maximum));
    merged.sum = __fmaf_rn(sum[part * stride], weight, merged.sum);
#pragma unroll
    for (int k = 0; k < kCount; k += 4) {
      const float4 four = *reinterpret_cast<const float4*>(out + part * stride + k);
      merged.out[k] = __fmaf_rn(four.x, weight, merged.out[k]);
      merged.out[k + 1] = __fmaf_rn(four.y, weight, merged.out[k + 1]);
      merged.out[k + 2] = __fmaf_rn(four.z, weight, merged.out[k + 2]);
      merged.out[k + 3] = __fmaf_rn(four.w, weight, merged.out[k + 3]);
    }
  }
  return merged;
}

template <int kCount>
__device__ void StoreOut(const Merged<kCount>& merged, BFloat16* out) {
  Pack<BFloat16, kCount> pack;
#pragma unroll
  for (int k = 0; k < kCount; ++k) {
    pack.item[k] = FromFloat<BFloat16>(__fdiv_rn(merged.out[k], merged.sum));
  }
  StorePack<kCount>(out, pack);
}

// Whether these warps are the last of `count` that come here; then they see what the others wrote.
template <class Shared>
__device__ bool IsLastToArrive(const Shared& shared, uint32_t* arrived, int count) {
  __shared__ bool is_last;
  shared.Sync();
  if (threadIdx.x == 0) {
    is_last = FetchAddAcquireRelease(arrived, 1) == static_cast<uint32_t>(count - 1);
    if (is_last) {
      *arrived = 0;  // for the next launch
    }
  }
  shared.Sync();
  return is_last;
}

// Merges the warps, and the ranges if there are several. 16 threads share a head.
template <class Shared>
__device__ void Finish(const Shared& shared, const DecodeArguments& a, const DecodeItem& item,
                       const HeadGroup& group, int ranges) {
  constexpr int kHeadDim = Shared::kHeadDim;
  constexpr int kCount = kHeadDim / 16;
  constexpr int kStride = Shared::kOutStride;
  const int head = static_cast<int>(threadIdx.x) / 16;
  const int first = static_cast<int>(threadIdx.x) % 16 * kCount;
  BFloat16* const out = a.attention.out[item.sequence] + (group.first + head) * kHeadDim + first;
  const float* const warps = shared.Result(0);
  const Merged<kCount> merged =
      Merge<kCount>(warps + head * kStride + first, warps + kGroupHeads * kStride + head,
                    warps + kGroupHeads * (kStride + 1) + head,
                    Shared::kWarpBytes / int64_t{sizeof(float)}, kDecodeWarps);
  const bool is_used = head < group.count;
  if (ranges == 1) {
    if (is_used) {
      StoreOut(merged, out);
    }
    return;
  }
  const int64_t of_all = item.sequence * item.groups + item.group;
  float* const all = a.ranges + of_all * item.splits * kRangeFloats<kHeadDim>;
  float* const own = all + item.split * kRangeFloats<kHeadDim>;
  if (is_used) {
#pragma unroll
    for (int k = 0; k < kCount; k += 4) {
      *reinterpret_cast<float4*>(own + head * kHeadDim + first + k) =
          make_float4(merged.out[k], merged.out[k + 1], merged.out[k + 2], merged.out[k + 3]);
    }
    if (first == 0) {
      own[kGroupHeads * kHeadDim + head] = merged.maximum;
      own[kGroupHeads * (kHeadDim + 1) + head] = merged.sum;
    }
  }
  if (IsLastToArrive(shared, a.arrived + of_all, ranges) && is_used) {
    StoreOut(
        Merge<kCount>(all + head * kHeadDim + first, all + kGroupHeads * kHeadDim + head,
                      all + kGroupHeads * (kHeadDim + 1) + head, kRangeFloats<kHeadDim>, ranges),
        out);
  }
}

// By the first kDecodeThreads threads of the block; `kv` in place of the arguments'. after_keys()
// is called once the item has no more keys to read.
template <bool kHasChunks, class Shared, class AfterKeys>
__device__ void AttendItem(const Shared& shared, const DecodeArguments& a,
                           const PagedKv<const BFloat16>& kv, const DecodeItem& item,
                           const AfterKeys& after_keys) {
  constexpr int kHeadDim = Shared::kHeadDim;
  const TensorCoreAttention& attention = a.attention;
  const HeadGroup group = attention.groups.item[item.group];
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const int32_t position = attention.batch.Position(item.sequence);
  const int32_t* const blocks = attention.batch.block_table[item.sequence];
  const int32_t units = position / kRangeKeys + 1;
  const int32_t units_of_range = max((units + item.splits - 1) / item.splits, kLeastUnits);
  const int32_t ranges = (units + units_of_range - 1) / units_of_range;
  if (item.split >= ranges) {
    after_keys();
    return;
  }
  const int32_t begin = item.split * units_of_range * kRangeKeys;
  const int32_t end = min(begin + units_of_range * kRangeKeys, position + 1);
  const BFloat16* const queries = attention.queries[item.sequence] + group.first * kHeadDim;

  QueryFragments<kHeadDim> query;
  Running<kHeadDim> running;
  if constexpr (!kHasChunks) {
    query.Load(queries, group.count, lane);
    TakeKeys(shared, kv, group.kv_head, {blocks, position + 1, begin, end, warp}, query,
             __fmul_rn(attention.scale, kLog2E), running);
  } else {
    const Chunks& chunks = attention.chunks;
    const float scale =
        __fmul_rn(__fmul_rn(attention.scale, chunks.logit_factors[item.sequence][0]), kLog2E);
    int32_t first = begin;
    for (int part = 0; part < kKeyParts; ++part) {
      const int32_t last = min(chunks.PartEnd(part, chunks.ChunkBegin(position)), end);
      if (first >= last) {
        continue;
      }
      const int64_t row = chunks.RopeRow(part, position);
      query.Load(queries, group.count, lane);
      query.Rotate(chunks.cosine[row], chunks.sine[row], lane);
      TakeKeys(shared, kv, group.kv_head, {blocks, position + 1, first, last, warp}, query, scale,
               running);
      first = last;
    }
  }
  after_keys();
  StoreWarpResult(shared, running);
  shared.Sync();
  Finish(shared, a, item, group, ranges);
}

// How many ranges the keys may be cut into, of `items` (sequence, group) in all: from numbers that
// the host knows, so that a recorded launch stays right whatever the lengths become.
int DecodeSplits(int multiprocessors, int64_t items);
// With the device's workspace. (attention_decode.cu)
DecodeArguments DecodeArgumentsOf(CohortCudaDevice* device, const TensorCoreAttention& attention);

}  // namespace cohort::cuda

#endif  // COHORT_KERNELS_CUDA_ATTENTION_DECODE_CUH_H_
