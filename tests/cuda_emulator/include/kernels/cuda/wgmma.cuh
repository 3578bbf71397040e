// The functions of kernels/cuda/wgmma.cuh on the emulated GPU; what each does stands there.
#ifndef COHORT_KERNELS_CUDA_WGMMA_CUH_H_
#define COHORT_KERNELS_CUDA_WGMMA_CUH_H_

#include <cuda_runtime.h>

#include <cstdint>

#include "cuda_emulator/warpgroup.h"
#include "kernels/cuda/ptx.cuh"

namespace cohort::cuda {

inline constexpr int kWarpgroupThreads = 128;
inline constexpr int kMatrixAlignment = 1024;
inline constexpr uint64_t kKMajorStep = 2;
inline constexpr uint64_t kMnMajorStep = 128;
inline constexpr int kMatrixSlack = kMatrixAlignment - 128;

inline unsigned char* DynamicSharedMatrices() {
  unsigned char* const shared = DynamicShared();
  return shared + (0u - cuda_emulator::SharedAddress(shared)) % kMatrixAlignment;
}

constexpr int SwizzledOffset128(int row, int byte) { return row * 128 + (byte ^ ((row & 7) << 4)); }

inline uint64_t SharedMatrix(const void* tile, uint64_t tile_distance) {
  return (uint64_t{cuda_emulator::SharedAddress(tile)} >> 4 & 0x3fff) | tile_distance >> 4 << 16 |
         uint64_t{1024 >> 4} << 32 | uint64_t{1} << 62;
}
inline uint64_t SharedMatrixKMajor(const void* tile) { return SharedMatrix(tile, 16); }
inline uint64_t SharedMatrixMnMajor(const void* tile, uint32_t tile_bytes) {
  return SharedMatrix(tile, tile_bytes);
}

inline void WgmmaFence() { cuda_emulator::WgmmaFence(); }
inline void WgmmaCommit() { cuda_emulator::WgmmaCommit(); }
template <int kPending>
void WgmmaWait() {
  cuda_emulator::WgmmaWait(kPending);
}
template <int kCount>
void WgmmaKeep(float (&d)[kCount]) {
  cuda_emulator::RequireIdle(d);
}
inline void WgmmaKeep(uint32_t (&)[4]) {}

template <int kRegisters>
void RaiseRegisters() {
  cuda_emulator::SetRegisters(kRegisters);
}
template <int kRegisters>
void LowerRegisters() {
  cuda_emulator::SetRegisters(kRegisters);
}

template <int kColumns>
inline constexpr bool kIsWgmmaSize =
    (kColumns % 16 == 0 && kColumns >= 16 && kColumns <= 160) || kColumns == 256;

template <int kColumns, bool kBIsMnMajor = false>
void WgmmaBf16(float (&d)[kColumns / 2], uint64_t a, uint64_t b, bool add) {
  static_assert(kIsWgmmaSize<kColumns>);
  cuda_emulator::Wgmma({kColumns, kBIsMnMajor, false, add, a, b}, d, nullptr);
}
template <int kColumns, bool kBIsMnMajor = false>
void WgmmaBf16(float (&d)[kColumns / 2], const uint32_t (&a)[4], uint64_t b, bool add) {
  static_assert(kIsWgmmaSize<kColumns>);
  cuda_emulator::Wgmma({kColumns, kBIsMnMajor, true, add, 0, b}, d, a);
}

}  // namespace cohort::cuda

#endif  // COHORT_KERNELS_CUDA_WGMMA_CUH_H_
