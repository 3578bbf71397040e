// Attention of chunks on tensor cores (FlashAttention-2's algorithm, arXiv 2307.08691).
//
// A block computes kRows rows, (token, head) pairs: consecutive tokens of one sequence with all
// heads of one group (of one KV head), token by token, so that the group reads keys and values
// once. Blocks find their tokens from first_rows; long ones, at a sequence's end, come first. Keys
// pass in tiles of kKeys positions from the beginning on. Each of 4 warps computes 32 rows: S [32,
// keys] = Q K^T, the running softmax of its rows in registers, O [32, head size] += P V with P in
// registers. A thread holds the rows lane / 4 (+ 8, + 16, + 24) of its warp and two of every eight
// columns.
//
// Shared memory, swizzled (SwizzledTile): Q [kRows, head size], then two stages of K and V
// [kKeys, head size]; one is filled by cp.async while the other is used. Then what each row, and
// what the block, has of its own. At the end Q's bytes hold the result on its way out. Slots behind
// the last position are not read: they count as zeros.
//
// With chunks (DualChunkAttention), the tokens of a block are computed chunk by chunk, and for each
// the three parts of its keys, with Q rotated anew, go into the same softmax; tiles that two parts
// share are computed twice, each time without the other's keys.
//
// Rounding: weights are rounded to bf16 for the product with V, their sum is not. A row's result
// depends on nothing but the row. Not yet run on a GPU.
#include <algorithm>
#include <cmath>

#include "kernels/cuda/attention.cuh"
#include "kernels/cuda/attention.h"
#include "kernels/cuda/attention_prefill.cuh"
#include "kernels/cuda/attention_tokens.cuh"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/ptx.cuh"

namespace cohort::cuda {
namespace {

using namespace prefill;

// The running softmax and weighted sum of a thread's rows: 16 f + 8 h + lane / 4 of its warp is
// number 2 f + h, and out[f] holds the columns 8 i + 2 (lane % 4) and the next of both.
template <class S>
struct Running {
  float maximum[S::kThreadRows];  // of the scaled logits
  float sum[S::kThreadRows];      // over this thread's columns only
  float out[S::kFragments][S::kHeadDim / 8][4] = {};

  __device__ Running() {
#pragma unroll
    for (int i = 0; i < S::kThreadRows; ++i) {
      maximum[i] = -INFINITY;
      sum[i] = 0;
    }
  }
};

// One thread per row; seen by all after the next barrier.
template <class S>
__device__ void DescribeRows(const BlockWork<S>& work) {
  const int row = static_cast<int>(threadIdx.x);
  if (row >= S::kRows) {
    return;
  }
  const int32_t token = work.Token(row);
  float scale = work.a.scale;
  if constexpr (S::kHasChunks) {
    scale = __fmul_rn(scale, work.a.chunks.logit_factors[token][0]);
  }
  S::Rows()[row] = {work.a.batch.Position(token) + 1, __fmul_rn(scale, kLog2E)};
}

// Brings the queries to shared memory, rotated for `part` where there are chunks.
template <class S>
__device__ void LoadQueries(const BlockWork<S>& work, int part) {
  constexpr int kPairs = S::kHeadDim / 16;  // chunks of half a head
  const auto queries = S::Queries();
  for (int i = static_cast<int>(threadIdx.x); i < S::kRows * kPairs; i += kThreads) {
    const int row = i / kPairs;
    const int chunk = i % kPairs;
    uint4 first = {};
    uint4 second = {};
    if (row < work.rows()) {
      const int32_t token = work.Token(row);
      const BFloat16* from = work.a.queries[token] + work.Head(row) * S::kHeadDim + chunk * 8;
      first = *reinterpret_cast<const uint4*>(from);
      second = *reinterpret_cast<const uint4*>(from + S::kHeadDim / 2);
      if constexpr (S::kHasChunks) {
        const int64_t rope_row = work.a.chunks.RopeRow(part, work.a.batch.Position(token));
        const float* cosine = work.a.chunks.cosine[rope_row] + chunk * 8;
        const float* sine = work.a.chunks.sine[rope_row] + chunk * 8;
        RotatePair(&first.x, &second.x, cosine, sine);
        RotatePair(&first.y, &second.y, cosine + 2, sine + 2);
        RotatePair(&first.z, &second.z, cosine + 4, sine + 4);
        RotatePair(&first.w, &second.w, cosine + 6, sine + 6);
      }
    }
    *reinterpret_cast<uint4*>(queries.Chunk(row, chunk)) = first;
    *reinterpret_cast<uint4*>(queries.Chunk(row, chunk + kPairs)) = second;
  }
}

// Copies keys and values of the tile from position `begin` on. Each slab of it lies inside one
// block of KV memory.
template <class S>
__device__ void CopyTile(const BlockWork<S>& work, int32_t begin, int stage) {
  const PagedKv<const BFloat16>& kv = work.a.kv;
  const int32_t* const blocks = work.a.batch.block_table[work.tokens().sequence];
  const auto keys = S::Keys(stage);
  const auto values = S::Values(stage);
#pragma unroll 1
  for (int slab = 0; slab < kSlabsOfTile; ++slab) {
    const int32_t first = begin + slab * kSlabKeys;
    const int32_t known = min(first, work.last_position());  // the table ends there
    const int64_t block = blocks[known / kv.block_size];
    const int64_t inside = kv.Inside(work.group().kv_head, known / kSlabKeys * kSlabKeys);
    const BFloat16* from_keys = kv.keys + block * kv.key_block_stride + inside;
    const BFloat16* from_values = kv.values + block * kv.value_block_stride + inside;
#pragma unroll
    for (int i = static_cast<int>(threadIdx.x); i < kSlabKeys * S::kChunks; i += kThreads) {
      const int row = slab * kSlabKeys + i / S::kChunks;
      const bool is_there = begin + row <= work.last_position();
      CopyAsync16(keys.Chunk(row, i % S::kChunks), from_keys + i * 8, is_there);
      CopyAsync16(values.Chunk(row, i % S::kChunks), from_values + i * 8, is_there);
    }
  }
  CopyAsyncCommit();
}

template <class S>
__device__ void MultiplyKeys(int stage, typename S::Logits& logits) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const auto queries = S::Queries();
  const auto keys = S::Keys(stage);
#pragma unroll 2  // more makes ptxas fetch so far ahead that it spills
  for (int step = 0; step < S::kHeadDim / 16; ++step) {
    uint32_t a[S::kFragments][4];
#pragma unroll
    for (int f = 0; f < S::kFragments; ++f) {
      LoadMatrix4(a[f],
                  queries.Chunk(warp * S::kWarpRows + f * 16 + lane % 16, step * 2 + lane / 16));
    }
#pragma unroll
    for (int pair = 0; pair < kKeys / 16; ++pair) {
      uint32_t b[4];
      LoadMatrix4(b, keys.Chunk(pair * 16 + lane / 16 * 8 + lane % 8, step * 2 + lane / 8 % 2));
      const uint32_t low[2] = {b[0], b[1]};
      const uint32_t high[2] = {b[2], b[3]};
#pragma unroll
      for (int f = 0; f < S::kFragments; ++f) {
        MmaBf16(logits[f][pair * 2], a[f], low);
        MmaBf16(logits[f][pair * 2 + 1], a[f], high);
      }
    }
  }
}

// Hides from each row the keys outside [begin, end) and behind the row's own position; `first` is
// the tile's first.
template <class S>
__device__ void HideKeys(int32_t first, int32_t begin, int32_t end, typename S::Logits& logits) {
  const int32_t column = first + static_cast<int32_t>(threadIdx.x) % 4 * 2;
#pragma unroll
  for (int row = 0; row < S::kThreadRows; ++row) {
    const int32_t row_end = min(end, S::Rows()[S::FirstRow() + row * 8].visible);
#pragma unroll
    for (int i = 0; i < kKeys / 8; ++i) {
#pragma unroll
      for (int k = 0; k < 2; ++k) {
        const int32_t position = column + i * 8 + k;
        float& logit = logits[row / 2][i][row % 2 * 2 + k];
        logit = position >= begin && position < row_end ? logit : -INFINITY;
      }
    }
  }
}

// Turns the logits of row `h` of fragment `f` into weights relative to the row's largest so far;
// returns the factor of what was summed before.
template <class S>
__device__ float TakeLogits(int f, int h, typename S::Logits& logits, Running<S>& running) {
  const int row = f * 2 + h;
  const float scale = S::Rows()[S::FirstRow() + row * 8].scale;
  float largest = -INFINITY;
#pragma unroll
  for (int i = 0; i < kKeys / 8; ++i) {
    largest = fmaxf(largest, fmaxf(logits[f][i][h * 2], logits[f][i][h * 2 + 1]));
  }
  largest = fmaxf(largest, __shfl_xor_sync(0xffffffffu, largest, 1));
  largest = fmaxf(largest, __shfl_xor_sync(0xffffffffu, largest, 2));
  const float maximum = fmaxf(running.maximum[row], __fmul_rn(largest, scale));
  const float keep = Exp2Approximate(__fsub_rn(running.maximum[row], maximum));
  running.maximum[row] = maximum;
  float sum = 0;
#pragma unroll
  for (int i = 0; i < kKeys / 8; ++i) {
#pragma unroll
    for (int k = h * 2; k < h * 2 + 2; ++k) {
      logits[f][i][k] = Exp2Approximate(__fmaf_rn(logits[f][i][k], scale, -maximum));
      sum = __fadd_rn(sum, logits[f][i][k]);
    }
  }
  running.sum[row] = __fmaf_rn(running.sum[row], keep, sum);
  return keep;
}

// The softmax of the tile; what was summed before shrinks where a row has met a larger logit.
template <class S>
__device__ void TakeTile(typename S::Logits& logits, Running<S>& running) {
#pragma unroll
  for (int f = 0; f < S::kFragments; ++f) {
    const float keep[2] = {TakeLogits<S>(f, 0, logits, running),
                           TakeLogits<S>(f, 1, logits, running)};
    if (!__any_sync(0xffffffffu, keep[0] != 1.0f || keep[1] != 1.0f)) {
      continue;
    }
#pragma unroll
    for (auto& columns : running.out[f]) {
#pragma unroll
      for (int k = 0; k < 4; ++k) {
        columns[k] = __fmul_rn(columns[k], keep[k / 2]);
      }
    }
  }
}

template <class S>
__device__ void AddValues(int stage, const typename S::Logits& weights, Running<S>& running) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const auto values = S::Values(stage);
#pragma unroll
  for (int step = 0; step < kKeys / 16; ++step) {
    uint32_t a[S::kFragments][4];
#pragma unroll
    for (int f = 0; f < S::kFragments; ++f) {
#pragma unroll
      for (int k = 0; k < 4; ++k) {
        const auto& from = weights[f][step * 2 + k / 2];
        a[f][k] = PackBFloat16(from[k % 2 * 2], from[k % 2 * 2 + 1]);
      }
    }
#pragma unroll
    for (int pair = 0; pair < S::kHeadDim / 16; ++pair) {
      uint32_t b[4];
      LoadMatrix4Transposed(b, values.Chunk(step * 16 + lane % 16, pair * 2 + lane / 16));
      const uint32_t low[2] = {b[0], b[1]};
      const uint32_t high[2] = {b[2], b[3]};
#pragma unroll
      for (int f = 0; f < S::kFragments; ++f) {
        MmaBf16(running.out[f][pair * 2], a[f], low);
        MmaBf16(running.out[f][pair * 2 + 1], a[f], high);
      }
    }
  }
}

// What of a tile concerns this warp.
struct WarpView {
  int32_t least;  // keys of positions below are visible to all rows of the warp
  int32_t most;   // others are to none; 0: the warp has no rows
};

template <class S>
__device__ WarpView ViewOf(const BlockWork<S>& work) {
  const int first = static_cast<int>(threadIdx.x) / 32 * S::kWarpRows;
  if (first >= work.rows()) {
    return {0, 0};
  }
  return {S::Rows()[first].visible, S::Rows()[first + S::kWarpRows - 1].visible};
}

// Takes the keys [begin, end) into the softmax of the block's rows. The queries are in shared
// memory, perhaps not yet seen by all.
template <class S>
__device__ void TakeKeys(const BlockWork<S>& work, int32_t begin, int32_t end,
                         Running<S>& running) {
  int32_t first = begin / kKeys * kKeys;
  CopyTile<S>(work, first, first / kKeys % 2);
  for (; first < end; first += kKeys) {
    const int stage = first / kKeys % 2;
    CopyAsyncWait<0>();
    __syncthreads();  // the tile is there for all warps, and the other stage is free
    if (first + kKeys < end) {
      CopyTile<S>(work, first + kKeys, stage ^ 1);
    }
    const WarpView view = ViewOf<S>(work);
    if (first >= view.most) {
      continue;
    }
    typename S::Logits logits = {};
    MultiplyKeys<S>(stage, logits);
    if (first < begin || first + kKeys > min(end, view.least)) {
      HideKeys<S>(first, begin, end, logits);
    }
    TakeTile<S>(logits, running);
    AddValues<S>(stage, logits, running);
  }
}

// Divides, rounds, and writes the warp's rows by way of their queries' bytes.
template <class S>
__device__ void StoreRows(const BlockWork<S>& work, const Running<S>& running) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int first = static_cast<int>(threadIdx.x) / 32 * S::kWarpRows;
  const auto rows = S::Queries();
#pragma unroll
  for (int i = 0; i < S::kThreadRows; ++i) {
    float sum = running.sum[i];
    sum = __fadd_rn(sum, __shfl_xor_sync(0xffffffffu, sum, 1));
    sum = __fadd_rn(sum, __shfl_xor_sync(0xffffffffu, sum, 2));
#pragma unroll
    for (int chunk = 0; chunk < S::kChunks; ++chunk) {
      const auto& from = running.out[i / 2][chunk];
      const uint32_t pair =
          PackBFloat16(__fdiv_rn(from[i % 2 * 2], sum), __fdiv_rn(from[i % 2 * 2 + 1], sum));
      *reinterpret_cast<uint32_t*>(rows.Chunk(first + i * 8 + lane / 4, chunk) + lane % 4 * 4) =
          pair;
    }
  }
  __syncwarp();
  for (int i = lane; i < S::kWarpRows * S::kChunks; i += 32) {
    const int row = first + i / S::kChunks;
    if (row < work.rows()) {
      BFloat16* to =
          work.a.out[work.Token(row)] + work.Head(row) * S::kHeadDim + i % S::kChunks * 8;
      *reinterpret_cast<uint4*>(to) =
          *reinterpret_cast<const uint4*>(rows.Chunk(row, i % S::kChunks));
    }
  }
}

// `tokens` lie in one chunk.
template <class S>
__device__ void Attend(const TensorCoreAttention& a, const HeadGroup& group,
                       const TokenRange& tokens) {
  if (threadIdx.x == 0) {
    *S::Tokens() = {group, tokens, a.batch.Position(tokens.first + tokens.count - 1)};
  }
  __syncthreads();
  const BlockWork<S> work = {a};
  Running<S> running;
  DescribeRows<S>(work);
  if constexpr (!S::kHasChunks) {
    LoadQueries<S>(work, 0);
    TakeKeys<S>(work, 0, work.last_position() + 1, running);
  } else {
    const Chunks& chunks = work.a.chunks;
    int32_t begin = 0;
    for (int part = 0; part < kKeyParts; ++part) {
      const int32_t end = min(chunks.PartEnd(part, chunks.ChunkBegin(work.last_position())),
                              work.last_position() + 1);
      if (begin >= end) {
        continue;
      }
      __syncthreads();  // shared memory is in use until here
      LoadQueries<S>(work, part);
      TakeKeys<S>(work, begin, end, running);
      begin = end;
    }
  }
  StoreRows<S>(work, running);
}

template <class S>
__device__ void AttendChunkByChunk(const TensorCoreAttention& a, const HeadGroup& group,
                                   TokenRange tokens) {
  while (tokens.count > 0) {
    TokenRange now = tokens;
    const int32_t chunk = a.chunks.ChunkBegin(a.batch.Position(tokens.first));
    if (INT_MAX - chunk >= a.chunks.length) {
      now.count = CountBefore(a.batch, tokens, chunk + a.chunks.length);
    }
    Attend<S>(a, group, now);
    tokens.first += now.count;
    tokens.count -= now.count;
    __syncthreads();  // shared memory is in use until here
  }
}

// Two blocks fit on a multiprocessor even where a thread takes all the registers that it may; ptxas
// spills for 10.0 when it is asked for them.
template <class S>
__global__ void __launch_bounds__(kThreads) PrefillAttentionKernel(TensorCoreAttention a) {
  WaitForPredecessor();
  const HeadGroup group = a.groups.item[blockIdx.y];
  const TokenRange tokens =
      FindTokens(a.batch, static_cast<int32_t>(blockIdx.x), S::kRows / group.count);
  if constexpr (S::kHasChunks) {
    AttendChunkByChunk<S>(a, group, tokens);
  } else if (tokens.count > 0) {
    Attend<S>(a, group, tokens);
  }
}

// The blocks of a launch: no group has more tiles than the one with the most heads.
struct Tiles {
  int64_t count;
  int groups;
};

template <class S>
Tiles TilesOf(const CohortCudaBatch& batch, const HeadGroups& heads, int groups) {
  int largest = 1;
  for (int i = 0; i < groups; ++i) {
    largest = std::max<int>(largest, heads.item[i].count);
  }
  const int64_t tile = S::kRows / largest;
  const int64_t sequences = batch.sequences - batch.leading_decodes;
  const int64_t tokens = batch.tokens - batch.leading_decodes;
  const int64_t of_longest = (batch.longest_chunk + tile - 1) / tile;
  return {std::min(tokens / tile + sequences, sequences * of_longest), groups};
}

template <class S>
void LaunchTiles(CohortCudaDevice* device, const TensorCoreAttention& arguments,
                 const Tiles& tiles) {
  const dim3 grid(static_cast<unsigned>(tiles.count), static_cast<unsigned>(tiles.groups));
  Launch(device, "PrefillAttention",
         {.grid = grid, .block = kThreads, .shared_bytes = S::kBytes, .programmatic = true},
         PrefillAttentionKernel<S>, arguments);
}

// Blocks of 128 rows read a key half as often as blocks of 64; those are for steps that are too
// short to give every multiprocessor one of the large, and for chunks, whose rotations need
// registers.
template <int kHeadDim>
void LaunchPrefill(CohortCudaDevice* device, const CohortCudaBatch& batch,
                   const TensorCoreAttention& arguments, int groups) {
  using Large = Shape<kHeadDim, 2, false>;
  using Small = Shape<kHeadDim, 1, false>;
  using SmallWithChunks = Shape<kHeadDim, 1, true>;
  const Tiles large = TilesOf<Large>(batch, arguments.groups, groups);
  const Tiles small = TilesOf<Small>(batch, arguments.groups, groups);
  if (arguments.chunks.length > 0) {
    LaunchTiles<SmallWithChunks>(device, arguments, small);
  } else if (large.count * large.groups < device->multiprocessors) {
    LaunchTiles<Small>(device, arguments, small);
  } else {
    LaunchTiles<Large>(device, arguments, large);
  }
}

}  // namespace

void PrefillAttention(CohortCudaDevice* device, const AttentionCall& call,
                      const TensorCoreAttention& arguments, int groups) {
  if (call.kv->keys.dims[3] == 128) {
    LaunchPrefill<128>(device, *call.batch, arguments, groups);
  } else {
    LaunchPrefill<64>(device, *call.batch, arguments, groups);
  }
}

}  // namespace cohort::cuda
