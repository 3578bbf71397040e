// Hopper's matrix products of a warpgroup (wgmma: 4 consecutive warps whose first is a multiple of
// 4), one small function each. They exist on 9.0 alone, not on what came before or after, and trap
// elsewhere: a launcher asks device->has_wgmma.
//
// A product is asynchronous. WgmmaFence, then products, then WgmmaCommit; after WgmmaWait the
// accumulators may be read, and shared memory operands overwritten. Between, accumulators are
// nobody's: a kernel says WgmmaKeep(d) before the fence and after the wait, or the compiler may
// carry its reads and writes of d across. The same holds for operands in registers, and they are
// complete before the fence: ptxas serialises what it must wait for between products (C7519), and
// compile.sh fails. Operands in shared memory must have been written by bulk copies, or
// FenceProxyAsync (ptx.cuh) stands between the writer's writes and the barrier.
//
// An operand in shared memory consists of rows of 128 bytes (64 elements), eight of which make 1024
// aligned bytes; SwizzledOffset128 says where a row's bytes lie, so that eight rows' chunks of 16
// bytes fall into different banks. K-major: a row has 64 steps of k of one row of A (column of B).
// MN-major: a row is one k and has 64 columns of B; 64 columns further lies another such tile.
// Descriptors are sums: + kKMajorStep or kMnMajorStep goes on to the next 16 of k (K-major: of the
// 64 that a tile's rows have).
//
// Semantics: the PTX ISA manual, "Asynchronous warpgroup level matrix instructions"; layouts with
// the names of CUTLASS's mma_traits_sm90_gmma.hpp. The twin for the emulated GPU lies at
// tests/cuda_emulator/include/kernels/cuda/wgmma.cuh.
#ifndef COHORT_KERNELS_CUDA_WGMMA_CUH_H_
#define COHORT_KERNELS_CUDA_WGMMA_CUH_H_

#include <cuda_runtime.h>

#include <cstdint>
#include <nv/target>

#include "kernels/cuda/ptx.cuh"

namespace cohort::cuda {

inline constexpr int kWarpgroupThreads = 128;
inline constexpr int kMatrixAlignment = 1024;  // of a tile
inline constexpr uint64_t kKMajorStep = 2;     // 32 bytes
inline constexpr uint64_t kMnMajorStep = 128;  // 2048 bytes

// What a launch adds to its shared bytes when it uses DynamicSharedMatrices.
inline constexpr int kMatrixSlack = kMatrixAlignment - 128;

// The dynamic shared memory of the block from its first 1024-byte aligned address on.
__device__ inline unsigned char* DynamicSharedMatrices() {
  unsigned char* const shared = DynamicShared();
  return shared + (0u - SharedAddress(shared)) % kMatrixAlignment;
}

// Where byte `byte` of row `row` lies in a tile.
__host__ __device__ constexpr int SwizzledOffset128(int row, int byte) {
  return row * 128 + (byte ^ ((row & 7) << 4));
}

// The descriptor of what begins at `tile`. The fields: address, distance of 64-column tiles (MN-
// major only), distance of eight rows, 128-byte swizzle; addresses and distances in 16 bytes.
__device__ inline uint64_t SharedMatrix(const void* tile, uint64_t tile_distance) {
  return (uint64_t{SharedAddress(tile)} >> 4 & 0x3fff) | tile_distance >> 4 << 16 |
         uint64_t{1024 >> 4} << 32 | uint64_t{1} << 62;
}
__device__ inline uint64_t SharedMatrixKMajor(const void* tile) { return SharedMatrix(tile, 16); }
// `tile_bytes`: from a tile of 64 columns to the next.
__device__ inline uint64_t SharedMatrixMnMajor(const void* tile, uint32_t tile_bytes) {
  return SharedMatrix(tile, tile_bytes);
}

// What the warp wrote to registers comes before the products that follow: before the first, and
// whenever accumulators or A's registers were written by anything but products.
__device__ inline void WgmmaFence() {
  NV_IF_ELSE_TARGET(NV_HAS_FEATURE_SM_90a,
                    (asm volatile("wgmma.fence.sync.aligned;" ::
                                      : "memory");),
                    (__trap();));
}
// Closes the group of the products since the last commit.
__device__ inline void WgmmaCommit() {
  NV_IF_ELSE_TARGET(NV_HAS_FEATURE_SM_90a,
                    (asm volatile("wgmma.commit_group.sync.aligned;" ::
                                      : "memory");),
                    (__trap();));
}
// Until at most the last `kPending` groups of this warpgroup are under way.
template <int kPending>
__device__ void WgmmaWait() {
  NV_IF_ELSE_TARGET(NV_HAS_FEATURE_SM_90a,
                    (asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(kPending)
                                  : "memory");),
                    (__trap();));
}
// No instruction; the compiler moves no access to d across.
template <int kCount>
__device__ void WgmmaKeep(float (&d)[kCount]) {
#pragma unroll
  for (int i = 0; i < kCount; ++i) {
    asm volatile("" : "+f"(d[i])::"memory");
  }
}
// The same for operands in registers: they stay what they are until here.
__device__ inline void WgmmaKeep(uint32_t (&a)[4]) {
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    asm volatile("" : "+r"(a[i])::"memory");
  }
}

// setmaxnreg, by all warps of a warpgroup: how many registers a thread has from here on. Raising
// waits until others have lowered theirs.
template <int kRegisters>
__device__ void RaiseRegisters() {
  NV_IF_ELSE_TARGET(NV_HAS_FEATURE_SM_90a,
                    (asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(kRegisters));),
                    (__trap();));
}
template <int kRegisters>
__device__ void LowerRegisters() {
  NV_IF_ELSE_TARGET(NV_HAS_FEATURE_SM_90a,
                    (asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(kRegisters));),
                    (__trap();));
}

// The accumulators of 16 columns after others as the assembler and as the compiler name them.
#define COHORT_WGMMA_NAMES_0 "%0, %1, %2, %3, %4, %5, %6, %7"
#define COHORT_WGMMA_NAMES_1 "%8, %9, %10, %11, %12, %13, %14, %15"
#define COHORT_WGMMA_NAMES_2 "%16, %17, %18, %19, %20, %21, %22, %23"
#define COHORT_WGMMA_NAMES_3 "%24, %25, %26, %27, %28, %29, %30, %31"
#define COHORT_WGMMA_NAMES_4 "%32, %33, %34, %35, %36, %37, %38, %39"
#define COHORT_WGMMA_NAMES_5 "%40, %41, %42, %43, %44, %45, %46, %47"
#define COHORT_WGMMA_NAMES_6 "%48, %49, %50, %51, %52, %53, %54, %55"
#define COHORT_WGMMA_NAMES_7 "%56, %57, %58, %59, %60, %61, %62, %63"
#define COHORT_WGMMA_NAMES_8 "%64, %65, %66, %67, %68, %69, %70, %71"
#define COHORT_WGMMA_NAMES_9 "%72, %73, %74, %75, %76, %77, %78, %79"
#define COHORT_WGMMA_NAMES_10 "%80, %81, %82, %83, %84, %85, %86, %87"
#define COHORT_WGMMA_NAMES_11 "%88, %89, %90, %91, %92, %93, %94, %95"
#define COHORT_WGMMA_NAMES_12 "%96, %97, %98, %99, %100, %101, %102, %103"
#define COHORT_WGMMA_NAMES_13 "%104, %105, %106, %107, %108, %109, %110, %111"
#define COHORT_WGMMA_NAMES_14 "%112, %113, %114, %115, %116, %117, %118, %119"
#define COHORT_WGMMA_NAMES_15 "%120, %121, %122, %123, %124, %125, %126, %127"
#define COHORT_WGMMA_VALUES(i)                                                                    \
  "+f"(d[8 * i]), "+f"(d[8 * i + 1]), "+f"(d[8 * i + 2]), "+f"(d[8 * i + 3]), "+f"(d[8 * i + 4]), \
      "+f"(d[8 * i + 5]), "+f"(d[8 * i + 6]), "+f"(d[8 * i + 7])
// All of a size.
#define COHORT_WGMMA_NAMES_TO_16 COHORT_WGMMA_NAMES_0
#define COHORT_WGMMA_VALUES_TO_16 COHORT_WGMMA_VALUES(0)
#define COHORT_WGMMA_NAMES_TO_32 COHORT_WGMMA_NAMES_TO_16 ", " COHORT_WGMMA_NAMES_1
#define COHORT_WGMMA_VALUES_TO_32 COHORT_WGMMA_VALUES_TO_16, COHORT_WGMMA_VALUES(1)
#define COHORT_WGMMA_NAMES_TO_48 COHORT_WGMMA_NAMES_TO_32 ", " COHORT_WGMMA_NAMES_2
#define COHORT_WGMMA_VALUES_TO_48 COHORT_WGMMA_VALUES_TO_32, COHORT_WGMMA_VALUES(2)
#define COHORT_WGMMA_NAMES_TO_64 COHORT_WGMMA_NAMES_TO_48 ", " COHORT_WGMMA_NAMES_3
#define COHORT_WGMMA_VALUES_TO_64 COHORT_WGMMA_VALUES_TO_48, COHORT_WGMMA_VALUES(3)
#define COHORT_WGMMA_NAMES_TO_80 COHORT_WGMMA_NAMES_TO_64 ", " COHORT_WGMMA_NAMES_4
#define COHORT_WGMMA_VALUES_TO_80 COHORT_WGMMA_VALUES_TO_64, COHORT_WGMMA_VALUES(4)
#define COHORT_WGMMA_NAMES_TO_96 COHORT_WGMMA_NAMES_TO_80 ", " COHORT_WGMMA_NAMES_5
#define COHORT_WGMMA_VALUES_TO_96 COHORT_WGMMA_VALUES_TO_80, COHORT_WGMMA_VALUES(5)
#define COHORT_WGMMA_NAMES_TO_112 COHORT_WGMMA_NAMES_TO_96 ", " COHORT_WGMMA_NAMES_6
#define COHORT_WGMMA_VALUES_TO_112 COHORT_WGMMA_VALUES_TO_96, COHORT_WGMMA_VALUES(6)
#define COHORT_WGMMA_NAMES_TO_128 COHORT_WGMMA_NAMES_TO_112 ", " COHORT_WGMMA_NAMES_7
#define COHORT_WGMMA_VALUES_TO_128 COHORT_WGMMA_VALUES_TO_112, COHORT_WGMMA_VALUES(7)
#define COHORT_WGMMA_NAMES_TO_144 COHORT_WGMMA_NAMES_TO_128 ", " COHORT_WGMMA_NAMES_8
#define COHORT_WGMMA_VALUES_TO_144 COHORT_WGMMA_VALUES_TO_128, COHORT_WGMMA_VALUES(8)
#define COHORT_WGMMA_NAMES_TO_160 COHORT_WGMMA_NAMES_TO_144 ", " COHORT_WGMMA_NAMES_9
#define COHORT_WGMMA_VALUES_TO_160 COHORT_WGMMA_VALUES_TO_144, COHORT_WGMMA_VALUES(9)
#define COHORT_WGMMA_NAMES_TO_256                                                 \
  COHORT_WGMMA_NAMES_TO_160 ", " COHORT_WGMMA_NAMES_10 ", " COHORT_WGMMA_NAMES_11 \
                            ", " COHORT_WGMMA_NAMES_12 ", " COHORT_WGMMA_NAMES_13 \
                            ", " COHORT_WGMMA_NAMES_14 ", " COHORT_WGMMA_NAMES_15
#define COHORT_WGMMA_VALUES_TO_256                                               \
  COHORT_WGMMA_VALUES_TO_160, COHORT_WGMMA_VALUES(10), COHORT_WGMMA_VALUES(11),  \
      COHORT_WGMMA_VALUES(12), COHORT_WGMMA_VALUES(13), COHORT_WGMMA_VALUES(14), \
      COHORT_WGMMA_VALUES(15)

// `operands` are those behind the accumulators, by the assembler's numbers, in which `flag` is
// `add`'s.
#define COHORT_WGMMA(columns, operands, flag, ...)                                               \
  if constexpr (kColumns == columns) {                                                           \
    NV_IF_ELSE_TARGET(                                                                           \
        NV_HAS_FEATURE_SM_90a,                                                                   \
        (asm volatile("{ .reg .pred add; setp.ne.b32 add, %" #flag ", 0; "                       \
                      "wgmma.mma_async.sync.aligned.m64n" #columns                               \
                      "k16.f32.bf16.bf16 {" COHORT_WGMMA_NAMES_TO_##columns "}, " operands "; }" \
                      : COHORT_WGMMA_VALUES_TO_##columns                                         \
                      : __VA_ARGS__, "l"(b), "r"(add ? 1 : 0), "n"(kMajor));),                   \
        (__trap();));                                                                            \
  }
#define COHORT_WGMMA_SHARED(columns, a_, b_, flag, major) \
  COHORT_WGMMA(columns, "%" #a_ ", %" #b_ ", add, 1, 1, 0, %" #major, flag, "l"(a))
#define COHORT_WGMMA_REGISTERS(columns, a0, a1, a2, a3, b_, flag, major)                           \
  COHORT_WGMMA(columns, "{%" #a0 ", %" #a1 ", %" #a2 ", %" #a3 "}, %" #b_ ", add, 1, 1, %" #major, \
               flag, "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]))

template <int kColumns>
inline constexpr bool kIsWgmmaSize =
    (kColumns % 16 == 0 && kColumns >= 16 && kColumns <= 160) || kColumns == 256;

// d = (add ? d : 0) + a b for bf16 a [64, 16] (K-major) and b [16, kColumns] (K-major, or MN-major
// where kBIsMnMajor), fp32 d [64, kColumns]. Warp w of the group holds the rows 16 w to 16 w + 15;
// with g = lane / 4 and t = lane % 4 a thread has
// d[4 i], d[4 i + 1] = D[16 w + g][8 i + 2 t and the next], d[4 i + 2], d[4 i + 3] the same of row
// 16 w + g + 8.
template <int kColumns, bool kBIsMnMajor = false>
__device__ void WgmmaBf16(float (&d)[kColumns / 2], uint64_t a, uint64_t b, bool add) {
  static_assert(kIsWgmmaSize<kColumns>);
  [[maybe_unused]] constexpr int kMajor = kBIsMnMajor ? 1 : 0;
  COHORT_WGMMA_SHARED(16, 8, 9, 10, 11)
  COHORT_WGMMA_SHARED(32, 16, 17, 18, 19)
  COHORT_WGMMA_SHARED(48, 24, 25, 26, 27)
  COHORT_WGMMA_SHARED(64, 32, 33, 34, 35)
  COHORT_WGMMA_SHARED(80, 40, 41, 42, 43)
  COHORT_WGMMA_SHARED(96, 48, 49, 50, 51)
  COHORT_WGMMA_SHARED(112, 56, 57, 58, 59)
  COHORT_WGMMA_SHARED(128, 64, 65, 66, 67)
  COHORT_WGMMA_SHARED(144, 72, 73, 74, 75)
  COHORT_WGMMA_SHARED(160, 80, 81, 82, 83)
  COHORT_WGMMA_SHARED(256, 128, 129, 130, 131)
}
// The same with a in registers, each warp its 16 rows as MmaBf16 (ptx.cuh) holds them. They are
// the product's until the wait, too.
template <int kColumns, bool kBIsMnMajor = false>
__device__ void WgmmaBf16(float (&d)[kColumns / 2], const uint32_t (&a)[4], uint64_t b, bool add) {
  static_assert(kIsWgmmaSize<kColumns>);
  [[maybe_unused]] constexpr int kMajor = kBIsMnMajor ? 1 : 0;
  COHORT_WGMMA_REGISTERS(16, 8, 9, 10, 11, 12, 13, 14)
  COHORT_WGMMA_REGISTERS(32, 16, 17, 18, 19, 20, 21, 22)
  COHORT_WGMMA_REGISTERS(48, 24, 25, 26, 27, 28, 29, 30)
  COHORT_WGMMA_REGISTERS(64, 32, 33, 34, 35, 36, 37, 38)
  COHORT_WGMMA_REGISTERS(80, 40, 41, 42, 43, 44, 45, 46)
  COHORT_WGMMA_REGISTERS(96, 48, 49, 50, 51, 52, 53, 54)
  COHORT_WGMMA_REGISTERS(112, 56, 57, 58, 59, 60, 61, 62)
  COHORT_WGMMA_REGISTERS(128, 64, 65, 66, 67, 68, 69, 70)
  COHORT_WGMMA_REGISTERS(144, 72, 73, 74, 75, 76, 77, 78)
  COHORT_WGMMA_REGISTERS(160, 80, 81, 82, 83, 84, 85, 86)
  COHORT_WGMMA_REGISTERS(256, 128, 129, 130, 131, 132, 133, 134)
}

#undef COHORT_WGMMA_NAMES_0
#undef COHORT_WGMMA_NAMES_1
#undef COHORT_WGMMA_NAMES_2
#undef COHORT_WGMMA_NAMES_3
#undef COHORT_WGMMA_NAMES_4
#undef COHORT_WGMMA_NAMES_5
#undef COHORT_WGMMA_NAMES_6
#undef COHORT_WGMMA_NAMES_7
#undef COHORT_WGMMA_NAMES_8
#undef COHORT_WGMMA_NAMES_9
#undef COHORT_WGMMA_NAMES_10
#undef COHORT_WGMMA_NAMES_11
#undef COHORT_WGMMA_NAMES_12
#undef COHORT_WGMMA_NAMES_13
#undef COHORT_WGMMA_NAMES_14
#undef COHORT_WGMMA_NAMES_15
#undef COHORT_WGMMA_VALUES
#undef COHORT_WGMMA_NAMES_TO_16
#undef COHORT_WGMMA_VALUES_TO_16
#undef COHORT_WGMMA_NAMES_TO_32
#undef COHORT_WGMMA_VALUES_TO_32
#undef COHORT_WGMMA_NAMES_TO_48
#undef COHORT_WGMMA_VALUES_TO_48
#undef COHORT_WGMMA_NAMES_TO_64
#undef COHORT_WGMMA_VALUES_TO_64
#undef COHORT_WGMMA_NAMES_TO_80
#undef COHORT_WGMMA_VALUES_TO_80
#undef COHORT_WGMMA_NAMES_TO_96
#undef COHORT_WGMMA_VALUES_TO_96
#undef COHORT_WGMMA_NAMES_TO_112
#undef COHORT_WGMMA_VALUES_TO_112
#undef COHORT_WGMMA_NAMES_TO_128
#undef COHORT_WGMMA_VALUES_TO_128
#undef COHORT_WGMMA_NAMES_TO_144
#undef COHORT_WGMMA_VALUES_TO_144
#undef COHORT_WGMMA_NAMES_TO_160
#undef COHORT_WGMMA_VALUES_TO_160
#undef COHORT_WGMMA_NAMES_TO_256
#undef COHORT_WGMMA_VALUES_TO_256
#undef COHORT_WGMMA
#undef COHORT_WGMMA_SHARED
#undef COHORT_WGMMA_REGISTERS

}  // namespace cohort::cuda

#endif  // COHORT_KERNELS_CUDA_WGMMA_CUH_H_
