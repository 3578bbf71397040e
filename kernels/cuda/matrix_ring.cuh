// A ring of stages in shared memory between a warpgroup that copies operands and warpgroups that
// multiply them with wgmma (wgmma.cuh).
//
// The copies are cp.async of 16 bytes, so that rows may be gathered and swizzled on the way. A
// thread knows only of its own copies when they have come; therefore a stage is announced kBehind
// stages after its copies were started: then, as a rule, nobody waits, and kBehind + 1 stages are
// under way.
#ifndef COHORT_KERNELS_CUDA_MATRIX_RING_CUH_H_
#define COHORT_KERNELS_CUDA_MATRIX_RING_CUH_H_

#include <cstddef>
#include <cstdint>

#include "kernels/cuda/ptx.cuh"
#include "kernels/cuda/wgmma.cuh"

namespace cohort::cuda {

inline constexpr int kMatrixRowBytes = 128;  // of a row of an operand in a stage
inline constexpr int kMatrixRowPacks = kMatrixRowBytes / 16;
inline constexpr int kStageInputs = kMatrixRowBytes / 2;  // bf16
inline constexpr int kWarpgroupWarps = kWarpgroupThreads / 32;
// A thread of the copying warpgroup copies the same pack of every 16th row.
inline constexpr int kCopyRows = kWarpgroupThreads / kMatrixRowPacks;

// Dynamic shared memory: the stages, 1024-byte aligned; two barriers for each.
template <int kStages, int kStageBytes>
struct MatrixRing {
  static_assert(kStageBytes % kMatrixAlignment == 0);
  static constexpr std::size_t kBytes =
      kMatrixSlack + std::size_t{kStages} * (kStageBytes + 2 * sizeof(uint64_t));

  unsigned char* begin;  // DynamicSharedMatrices()

  // By one thread of the block, before a barrier.
  __device__ void Init(int multiplying_warps) const {
    for (int stage = 0; stage < kStages; ++stage) {
      BarrierInit(Full(stage), kWarpgroupWarps);
      BarrierInit(Empty(stage), static_cast<uint32_t>(multiplying_warps));
    }
    BarrierInitFence();
  }
  __device__ unsigned char* Stage(int count) const { return begin + count % kStages * kStageBytes; }
  __device__ uint64_t* Full(int count) const { return Barriers() + count % kStages; }
  __device__ uint64_t* Empty(int count) const { return Barriers() + kStages + count % kStages; }

 private:
  __device__ uint64_t* Barriers() const {
    return reinterpret_cast<uint64_t*>(begin + kStages * kStageBytes);
  }
};

// By a whole warp: what its lanes did comes before.
__device__ inline void ArriveAsWarp(uint64_t* barrier) {
  __syncwarp();
  if (threadIdx.x % 32 == 0) {
    BarrierArrive(barrier);
  }
}

// The side of the copying warpgroup.
template <int kStages, int kStageBytes>
class RingWriter {
 public:
  static constexpr int kBehind = kStages - 2;

  __device__ explicit RingWriter(const MatrixRing<kStages, kStageBytes>& ring) : ring_(ring) {}

  // The memory of the next stage, once everybody has left it.
  __device__ unsigned char* Next() const {
    if (count_ >= kStages) {
      BarrierWait(ring_.Empty(count_), static_cast<uint32_t>(count_ / kStages - 1) & 1);
    }
    return ring_.Stage(count_);
  }
  // This thread has started its copies of the stage.
  __device__ void Commit() {
    CopyAsyncCommit();
    if (count_ >= kBehind) {
      CopyAsyncWait<kBehind>();
      Announce(count_ - kBehind);
    }
    ++count_;
  }
  __device__ void Finish() const {
    CopyAsyncWait<0>();
    for (int stage = max(count_ - kBehind, 0); stage < count_; ++stage) {
      Announce(stage);
    }
  }

 private:
  __device__ void Announce(int stage) const {
    FenceProxyAsync();
    ArriveAsWarp(ring_.Full(stage));
  }

  const MatrixRing<kStages, kStageBytes>& ring_;
  int count_ = 0;
};

// The side of a multiplying warp.
template <int kStages, int kStageBytes>
class RingReader {
 public:
  __device__ explicit RingReader(const MatrixRing<kStages, kStageBytes>& ring) : ring_(ring) {}

  // The next stage, once it has come.
  __device__ const unsigned char* Next() {
    BarrierWait(ring_.Full(count_), static_cast<uint32_t>(count_ / kStages) & 1);
    return ring_.Stage(count_++);
  }
  // This warp's products of the stage `back` before the last one are done.
  __device__ void Release(int back) const { ArriveAsWarp(ring_.Empty(count_ - 1 - back)); }

 private:
  const MatrixRing<kStages, kStageBytes>& ring_;
  int count_ = 0;
};

// Where a thread of the copying warpgroup writes: its pack of row `Row()` + kCopyRows * i of an
// operand lies at Place() + i * kCopyRows * kMatrixRowBytes.
struct CopyPlace {
  int thread;  // of the warpgroup

  __device__ int Row() const { return thread / kMatrixRowPacks; }
  __device__ int Input() const { return thread % kMatrixRowPacks * 8; }  // in the stage
  __device__ int Offset() const { return SwizzledOffset128(Row(), thread % kMatrixRowPacks * 16); }
};

}  // namespace cohort::cuda

#endif  // COHORT_KERNELS_CUDA_MATRIX_RING_CUH_H_
