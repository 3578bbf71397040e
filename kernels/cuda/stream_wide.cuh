// out = x weight^T for 17 to 64 tokens in bf16 on Hopper, at the speed at which the weight comes
// from memory: what stream.cuh does for fewer, with wgmma.
//
// The operands are swapped: 64 rows of the weight are the rows of a product, 32, 48 or 64 tokens
// its columns. A tile is eight units of 16 rows of the weight; a block goes through a run of chunks
// of 64 columns of the tiles (stream_wide_plan.h).
//
// A block is a warpgroup that copies, by cp.async into a ring of four or five stages
// (matrix_ring.cuh), and two that multiply, each 64 rows of the tile by all tokens. Warp w holds
// the sums of unit w of the tile, over all columns of the block's part: nothing is added across
// warps. A stage is given back as soon as its product is done, because the memory is what is waited
// for.
//
// Tiles that several blocks share: each writes its sums to the workspace and counts itself at the
// tile; the last one adds them in the order of the columns. So a sum's order never depends on
// timing, on the number of tokens or on the other rows.
//
// Dynamic shared memory: the ring, of stages weight [128][64], x [tokens][64] bf16 with rows
// swizzled as wgmma wants them. At most 111 KB and 80 registers a thread, so that the next kernel's
// block has room beside this one; weights are read before WaitForPredecessor(), as in stream.cuh.
// Rows of x behind the last token are old: they go only into sums that nobody stores.
#ifndef COHORT_KERNELS_CUDA_STREAM_WIDE_CUH_H_
#define COHORT_KERNELS_CUDA_STREAM_WIDE_CUH_H_

#include <cstdint>

#include "kernels/cuda/device.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/matrix_ring.cuh"
#include "kernels/cuda/ptx.cuh"
#include "kernels/cuda/rows.cuh"
#include "kernels/cuda/stream.cuh"
#include "kernels/cuda/stream_wide_plan.h"
#include "kernels/cuda/wgmma.cuh"

namespace cohort::cuda {

inline constexpr int kWideMaxTokens = 64;
inline constexpr int kWideMathWarps = kWideTileUnits;
inline constexpr int kWideMathThreads = kWideMathWarps * 32;
inline constexpr int kWideThreads = kWideMathThreads + kWarpgroupThreads;
// Of a thread, 240 for one of each warpgroup.
inline constexpr int kWideCopyRegisters = 48;
inline constexpr int kWideMathRegisters = 96;
inline constexpr int kWideMathBarrier = 1;
inline constexpr int kWideWeightBytes = kWideTileUnits * kStreamUnitRows * kMatrixRowBytes;
inline constexpr int kWideCopyBytes = kCopyRows * kMatrixRowBytes;  // from row i to row i + 16
static_assert(kCopyRows == kStreamUnitRows && kWideChunkColumns == kStageInputs);

template <int kTokens>
struct WideRing {
  static constexpr int kStageBytes = kWideWeightBytes + kTokens * kMatrixRowBytes;
  static constexpr int kStages = (108 << 10) / kStageBytes;
  using Ring = MatrixRing<kStages, kStageBytes>;
  using Writer = RingWriter<kStages, kStageBytes>;
  using Reader = RingReader<kStages, kStageBytes>;
};

// --- The copying warpgroup ---

// What one thread copies of each chunk: of row `Row()` of every unit and of every 16th token.
template <int kTokens>
class WideCopies {
 public:
  __device__ WideCopies(const StreamOperands& operands, const WidePlan& plan)
      : operands_(operands),
        plan_(plan),
        place_{static_cast<int>(threadIdx.x) % kWarpgroupThreads} {}

  __device__ void StartWeights(unsigned char* stage, int chunk) {
    if (chunk / plan_.chunks != tile_) {
      tile_ = chunk / plan_.chunks;
      FindRows();
    }
    const int column = ColumnOf(chunk);
    unsigned char* const to = stage + place_.Offset();
#pragma unroll
    for (int i = 0; i < kWideTileUnits; ++i) {
      CopyAsync16Streaming(to + i * kWideCopyBytes, rows_[i] + column,
                           (is_there_ >> i & 1) != 0 && column < operands_.columns);
    }
  }
  __device__ void StartX(unsigned char* stage, int chunk) const {
    const int column = ColumnOf(chunk);
    unsigned char* const to = stage + kWideWeightBytes + place_.Offset();
#pragma unroll
    for (int i = 0; i < kTokens / kCopyRows; ++i) {
      const int token = place_.Row() + i * kCopyRows;
      if (token < operands_.tokens) {
        CopyAsync16(to + i * kWideCopyBytes, operands_.x[token] + column,
                    column < operands_.columns);
      }
    }
  }

 private:
  __device__ int ColumnOf(int chunk) const {
    return chunk % plan_.chunks * kWideChunkColumns + place_.Input();
  }
  __device__ void FindRows() {
    is_there_ = 0;
#pragma unroll
    for (int i = 0; i < kWideTileUnits; ++i) {
      const int unit = tile_ * kWideTileUnits + i;
      const int64_t row = operands_.unit_rows.Row(unit, place_.Row());
      const bool is_there = unit < operands_.units && row < operands_.rows;
      rows_[i] = operands_.weight[is_there ? row : 0];
      is_there_ |= (is_there ? 1u : 0u) << i;
    }
  }

  const StreamOperands& operands_;
  const WidePlan& plan_;
  CopyPlace place_;
  int tile_ = -1;
  uint32_t is_there_ = 0;
  const BFloat16* rows_[kWideTileUnits] = {};
};

template <int kTokens>
__device__ void CopyChunks(const StreamOperands& operands, const WidePlan& plan,
                           const typename WideRing<kTokens>::Ring& ring) {
  const int begin = plan.FirstChunk(static_cast<int>(blockIdx.x));
  const int chunks = plan.FirstChunk(static_cast<int>(blockIdx.x) + 1) - begin;
  const int early = min(chunks, WideRing<kTokens>::kStages);
  WideCopies<kTokens> copies(operands, plan);
  for (int i = 0; i < early; ++i) {
    copies.StartWeights(ring.Stage(i), begin + i);
  }
  LaunchSuccessor();
  WaitForPredecessor();
  typename WideRing<kTokens>::Writer writer(ring);
  for (int i = 0; i < chunks; ++i) {
    unsigned char* const stage = writer.Next();
    if (i >= early) {
      copies.StartWeights(stage, begin + i);
    }
    copies.StartX(stage, begin + i);
    writer.Commit();
  }
  writer.Finish();
}

// --- The multiplying warpgroups ---

// The sums of a thread, as wgmma has them: of rows g and g + 8 of its warp's unit.
template <int kTokens>
using WideSums = float[kTokens / 2];

template <int kTokens>
__device__ __forceinline__ void MultiplyChunks(int chunks,
                                               typename WideRing<kTokens>::Reader& reader,
                                               WideSums<kTokens>& sums) {
  const int weight_begin = static_cast<int>(threadIdx.x) / kWarpgroupThreads * kWarpgroupWarps *
                           kStreamUnitRows * kMatrixRowBytes;
  WgmmaKeep(sums);
  for (int i = 0; i < chunks; ++i) {
    const unsigned char* const stage = reader.Next();
    const uint64_t weight = SharedMatrixKMajor(stage + weight_begin);
    const uint64_t x = SharedMatrixKMajor(stage + kWideWeightBytes);
    WgmmaFence();
#pragma unroll
    for (int k = 0; k < kWideChunkColumns / 16; ++k) {
      WgmmaBf16<kTokens>(sums, weight + k * kKMajorStep, x + k * kKMajorStep, true);
    }
    WgmmaCommit();
    WgmmaWait<0>();
    reader.Release(0);
  }
  WgmmaKeep(sums);
}

// Whether this block is the last of those that share the tile; then `sums` are those of all.
template <int kTokens>
__device__ __forceinline__ bool AddParts(const StreamOperands& operands, const WidePlan& plan,
                                         int tile, WideSums<kTokens>& sums) {
  __shared__ uint32_t is_last;
  constexpr int kPacks = kTokens / 8;
  const int first = plan.FirstBlock(tile);
  const int last = plan.LastBlock(tile);
  if (first == last) {
    return true;
  }
  float4* const parts = reinterpret_cast<float4*>(operands.partials) + threadIdx.x;
  const auto part = [&](int block) {
    return parts + int64_t{PlaceOfPart(plan, block, tile)} * (kPacks * kWideMathThreads);
  };
  float4* const own = part(static_cast<int>(blockIdx.x));
#pragma unroll
  for (int i = 0; i < kPacks; ++i) {
    own[i * kWideMathThreads] =
        make_float4(sums[4 * i], sums[4 * i + 1], sums[4 * i + 2], sums[4 * i + 3]);
  }
  NamedBarrier(kWideMathBarrier, kWideMathThreads);
  if (threadIdx.x == 0) {
    const uint32_t before = FetchAddAcquireRelease(&operands.arrivals[tile], 1);
    is_last = before == static_cast<uint32_t>(last - first) ? 1 : 0;
    if (is_last != 0) {
      operands.arrivals[tile] = 0;
    }
  }
  NamedBarrier(kWideMathBarrier, kWideMathThreads);
  if (is_last == 0) {
    return false;
  }
#pragma unroll
  for (float& sum : sums) {
    sum = 0;
  }
  for (int block = first; block <= last; ++block) {
    const float4* const addends = part(block);
#pragma unroll
    for (int i = 0; i < kPacks; ++i) {
      const float4 addend = __ldcg(addends + i * kWideMathThreads);
      sums[4 * i] += addend.x;
      sums[4 * i + 1] += addend.y;
      sums[4 * i + 2] += addend.z;
      sums[4 * i + 3] += addend.w;
    }
  }
  return true;
}

template <class Epilogue, int kTokens>
__device__ __forceinline__ void MultiplyTiles(const StreamOperands& operands, const WidePlan& plan,
                                              const typename WideRing<kTokens>::Ring& ring,
                                              const Epilogue& epilogue) {
  using Place = decltype(epilogue.PlaceOf(0));
  __shared__ Place places[kTokens];
  const int thread = static_cast<int>(threadIdx.x);
  WaitForPredecessor();
  if (thread < operands.tokens) {
    places[thread] = epilogue.PlaceOf(thread);
  }
  NamedBarrier(kWideMathBarrier, kWideMathThreads);
  typename WideRing<kTokens>::Reader reader(ring);
  const int end = plan.FirstChunk(static_cast<int>(blockIdx.x) + 1);
  for (int chunk = plan.FirstChunk(static_cast<int>(blockIdx.x)); chunk < end;) {
    const int tile = chunk / plan.chunks;
    const int tile_end = min((tile + 1) * plan.chunks, end);
    WideSums<kTokens> sums = {};
    MultiplyChunks<kTokens>(tile_end - chunk, reader, sums);
    chunk = tile_end;
    const int unit = tile * kWideTileUnits + thread / 32;
    if (!AddParts<kTokens>(operands, plan, tile, sums) || unit >= operands.units) {
      continue;
    }
#pragma unroll
    for (int i = 0; i < kTokens / 4; ++i) {
      const int token = i / 2 * 8 + thread % 4 * 2 + i % 2;
      const int first = i / 2 * 4 + i % 2;  // row g; row g + 8 comes two later
      if (token < operands.tokens) {
        epilogue.Store(unit, thread % 32 / 4, places[token],
                       make_float2(sums[first], sums[first + 2]));
      }
    }
    __syncwarp();  // wgmma wants whole warps
  }
}

// Two blocks fit on a multiprocessor: this kernel's and the next one's.
template <class Epilogue, int kTokens>
__global__ void __launch_bounds__(kWideThreads, 2)
    WideStreamKernel(StreamOperands operands, WidePlan plan, Epilogue epilogue) {
  const typename WideRing<kTokens>::Ring ring{DynamicSharedMatrices()};
  if (threadIdx.x == 0) {
    ring.Init(kWideMathWarps);
  }
  __syncthreads();
  if (threadIdx.x >= kWideMathThreads) {
    LowerRegisters<kWideCopyRegisters>();
    CopyChunks<kTokens>(operands, plan, ring);
  } else {
    RaiseRegisters<kWideMathRegisters>();
    MultiplyTiles<Epilogue, kTokens>(operands, plan, ring, epilogue);
  }
}

template <int kTokens, class Epilogue>
void LaunchWide(CohortCudaDevice* device, const char* name, const StreamOperands& operands,
                const WidePlan& plan, const Epilogue& epilogue) {
  LaunchShape shape;
  shape.grid = dim3(static_cast<unsigned>(plan.blocks));
  shape.block = dim3(kWideThreads);
  shape.shared_bytes = WideRing<kTokens>::Ring::kBytes;
  shape.programmatic = true;
  Launch(device, name, shape, WideStreamKernel<Epilogue, kTokens>, operands, plan, epilogue);
}

// Whether this kernel or that of stream.cuh can multiply `x` by `weight` on this device.
bool CanStreamAny(const CohortCudaDevice& device, const CohortCudaTensor& x,
                  const CohortCudaTensor& weight);

WidePlan WidePlanOf(CohortCudaDevice* device, const StreamOperands& operands);

// LaunchStream (stream.cuh) for what CanStreamAny took.
template <class Epilogue>
void LaunchAnyStream(CohortCudaDevice* device, const char* name, const StreamOperands& operands,
                     const Epilogue& epilogue) {
  if (operands.tokens <= kStreamMaxTokens) {
    LaunchStream(device, name, operands, epilogue);
    return;
  }
  const WidePlan plan = WidePlanOf(device, operands);
  if (operands.tokens <= 32) {
    LaunchWide<32>(device, name, operands, plan, epilogue);
  } else if (operands.tokens <= 48) {
    LaunchWide<48>(device, name, operands, plan, epilogue);
  } else {
    LaunchWide<64>(device, name, operands, plan, epilogue);
  }
}

}  // namespace cohort::cuda

#endif  // COHORT_KERNELS_CUDA_STREAM_WIDE_CUH_H_
