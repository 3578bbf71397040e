// The PTX instructions that CUDA C++ has no name for, one small function each; inline PTX stands
// here and in wgmma.cuh alone. Every function compiles for 8.0 and later. Those marked 9.0 trap on
// older devices (or do nothing, where that is right): a launcher chooses its kernel by
// device->compute.
//
// tests/cuda_emulator/include/kernels/cuda/ptx.cuh holds the same functions for the emulated GPU:
// what is added here is added there. Semantics: the PTX ISA manual, under the instruction's name.
#ifndef COHORT_KERNELS_CUDA_PTX_CUH_H_
#define COHORT_KERNELS_CUDA_PTX_CUH_H_

#include <cuda_runtime.h>

#include <cstdint>
#include <nv/target>

namespace cohort::cuda {

// A wait inside a kernel that lasts longer is a bug; it ends the kernel with an error.
inline constexpr uint64_t kSpinBoundNanoseconds = uint64_t{10} * 1000 * 1000 * 1000;

// The dynamic shared memory of the block, 128-byte aligned.
__device__ inline unsigned char* DynamicShared() {
  extern __shared__ __align__(128) unsigned char cohort_dynamic_shared[];
  return cohort_dynamic_shared;
}

// --- The code itself ---

// The compute capability that this code was compiled for, 90 for 9.0: that of the device, or an
// older one.
__device__ inline int CompiledCompute() {
  int compute = 0;
  NV_IF_TARGET(NV_IS_DEVICE, (compute = __CUDA_ARCH__ / 10;));
  return compute;
}
// Whether it has the instructions that 9.0 alone has, wgmma and setmaxnreg (sm_90a).
__device__ inline bool IsCompiledForWgmma() {
  bool is_so = false;
  NV_IF_TARGET(NV_HAS_FEATURE_SM_90a, (is_so = true;));
  return is_so;
}

// The 32-bit address that the instructions on shared memory take.
__device__ inline uint32_t SharedAddress(const void* shared) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(shared));
}

// --- Programmatic dependent launch (9.0; before, launches are never programmatic: nothing) ---

// griddepcontrol.wait: until the kernels before this one have ended and their writes are visible.
__device__ inline void WaitForPredecessor() {
  NV_IF_TARGET(NV_PROVIDES_SM_90, (asm volatile("griddepcontrol.wait;" ::: "memory");));
}

// griddepcontrol.launch_dependents: the next kernel may start once every block has come here or
// ended. Makes nothing visible to it.
__device__ inline void LaunchSuccessor() {
  NV_IF_TARGET(NV_PROVIDES_SM_90, (asm volatile("griddepcontrol.launch_dependents;" ::
                                                    : "memory");));
}

// --- Tensor cores ---

// d += a b for bf16 a [16, 16] (row major) and b [16, 8] (column major), fp32 d [16, 8]. With
// g = lane / 4 and t = lane % 4 a thread holds, low half first:
//   a[0] = A[g][2t, 2t+1]  a[1] = A[g+8][2t, 2t+1]  a[2] = A[g][2t+8, 2t+9]  a[3] = A[g+8][2t+8,
//   2t+9] b[0] = B[2t, 2t+1][g]  b[1] = B[2t+8, 2t+9][g]  d = D[g][2t], D[g][2t+1], D[g+8][2t],
//   D[g+8][2t+1]
__device__ inline void MmaBf16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
      "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

// ldmatrix: four 8x8 matrices of 16-bit elements. Lane l gives the address of row l % 8 of matrix
// l / 8 (16 aligned bytes of shared memory); r[m] is row lane / 4, columns 2 (lane % 4) and the
// next, of matrix m.
__device__ inline void LoadMatrix4(uint32_t (&r)[4], const void* shared_row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(SharedAddress(shared_row))
               : "memory");
}
// r[m] is column lane / 4, rows 2 (lane % 4) and the next.
__device__ inline void LoadMatrix4Transposed(uint32_t (&r)[4], const void* shared_row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(SharedAddress(shared_row))
               : "memory");
}
// The same of two matrices; lanes 16 to 31 give any valid address.
__device__ inline void LoadMatrix2(uint32_t (&r)[2], const void* shared_row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0, %1}, [%2];"
               : "=r"(r[0]), "=r"(r[1])
               : "r"(SharedAddress(shared_row))
               : "memory");
}
__device__ inline void LoadMatrix2Transposed(uint32_t (&r)[2], const void* shared_row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0, %1}, [%2];"
               : "=r"(r[0]), "=r"(r[1])
               : "r"(SharedAddress(shared_row))
               : "memory");
}

// movmatrix: the transpose of an 8x8 matrix of 16-bit elements that lies in the warp's registers.
__device__ inline uint32_t TransposeMatrix(uint32_t a) {
  uint32_t d;
  asm volatile("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;" : "=r"(d) : "r"(a));
  return d;
}

// 2^x with the hardware's approximation, subnormals to 0.
__device__ inline float Exp2Approximate(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

// --- Cache policies ---

__device__ inline uint64_t EvictFirstPolicy() {
  uint64_t policy;
  asm("createpolicy.fractional.L2::evict_first.b64 %0, 1.0;" : "=l"(policy));
  return policy;
}
__device__ inline uint64_t EvictLastPolicy() {
  uint64_t policy;
  asm("createpolicy.fractional.L2::evict_last.b64 %0, 1.0;" : "=l"(policy));
  return policy;
}

// --- Asynchronous copies of 16 bytes, thread by thread ---

// cp.async: 16 aligned bytes to shared memory, zeros and no access where not `valid`. Seen by this
// thread after CopyAsyncWait, by others after a barrier behind it.
__device__ inline void CopyAsync16(void* shared, const void* global, bool valid) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(SharedAddress(shared)),
               "l"(__cvta_generic_to_global(global)), "r"(valid ? 16 : 0)
               : "memory");
}
// The same for rows that are read once, piece after piece: the line's other half comes along into
// L2, and both are the first to leave it.
__device__ inline void CopyAsync16Streaming(void* shared, const void* global, bool valid) {
  asm volatile("cp.async.cg.shared.global.L2::cache_hint.L2::256B [%0], [%1], 16, %2, %3;" ::"r"(
                   SharedAddress(shared)),
               "l"(__cvta_generic_to_global(global)), "r"(valid ? 16 : 0), "l"(EvictFirstPolicy())
               : "memory");
}
// Closes the group of this thread's copies since the last commit.
__device__ inline void CopyAsyncCommit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
// Until at most the last `kPending` groups of this thread are under way.
template <int kPending>
__device__ void CopyAsyncWait() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kPending) : "memory");
}

// --- mbarrier, and bulk copies that complete on it (9.0) ---

// One thread initialises; the others may use it after BarrierInitFence and a barrier of the block.
__device__ inline void BarrierInit(uint64_t* barrier, uint32_t arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(SharedAddress(barrier)),
               "r"(arrivals)
               : "memory");
}
// Makes BarrierInit visible to bulk copies.
__device__ inline void BarrierInitFence() {
  NV_IF_ELSE_TARGET(NV_PROVIDES_SM_90,
                    (asm volatile("fence.mbarrier_init.release.cluster;" ::
                                      : "memory");),
                    (__trap();));
}
// Release: what this thread wrote is seen by those who wait for the phase.
__device__ inline void BarrierArrive(uint64_t* barrier) {
  asm volatile("{ .reg .b64 state; mbarrier.arrive.shared::cta.b64 state, [%0]; }" ::"r"(
                   SharedAddress(barrier))
               : "memory");
}
// Arrives, and the phase ends only when `bytes` more have come by bulk copies. Before their issue.
__device__ inline void BarrierArriveExpect(uint64_t* barrier, uint32_t bytes) {
  NV_IF_ELSE_TARGET(NV_PROVIDES_SM_90,
                    (asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(
                                      SharedAddress(barrier)),
                                  "r"(bytes)
                                  : "memory");),
                    (__trap();));
}
// Whether the phase of this parity is over (the first phase has parity 0); may wait a little.
__device__ inline bool BarrierTest(uint64_t* barrier, uint32_t parity) {
  uint32_t is_over = 0;
  NV_IF_ELSE_TARGET(
      NV_PROVIDES_SM_90,
      (asm volatile("{ .reg .pred p; mbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2; "
                    "selp.u32 %0, 1, 0, p; }"
                    : "=r"(is_over)
                    : "r"(SharedAddress(barrier)), "r"(parity)
                    : "memory");),
      (__trap();));
  return is_over != 0;
}

// One instruction for the compiler: a loop of its own, whose lanes may part ways, makes ptxas
// forget what setmaxnreg gives and serialise warpgroup products (C7512).
__device__ inline void BarrierWait(uint64_t* barrier, uint32_t parity) {
  NV_IF_ELSE_TARGET(
      NV_PROVIDES_SM_90,
      (asm volatile(
           "{ .reg .pred p; .reg .u64 begin; .reg .u64 now; "
           "mbarrier.try_wait.parity.shared::cta.b64 p, [%0], %1; @p bra DONE; "
           "mov.u64 begin, %%globaltimer; "
           "AGAIN: mbarrier.try_wait.parity.shared::cta.b64 p, [%0], %1; @p bra DONE; "
           "mov.u64 now, %%globaltimer; sub.u64 now, now, begin; "
           "setp.lt.u64 p, now, %2; @p bra AGAIN; trap; DONE: }" ::"r"(SharedAddress(barrier)),
           "r"(parity), "n"(kSpinBoundNanoseconds)
           : "memory");),
      (__trap();));
}

// Orders this thread's plain accesses to shared memory before bulk copies (and wgmma) that follow a
// barrier.
__device__ inline void FenceProxyAsync() {
  NV_IF_ELSE_TARGET(NV_PROVIDES_SM_90,
                    (asm volatile("fence.proxy.async.shared::cta;" ::
                                      : "memory");),
                    (__trap();));
}

// --- Bulk copies ---

// cp.async.bulk by one thread: `bytes` (a multiple of 16, both ends 16-byte aligned) to shared
// memory; counted by `barrier`, see BarrierArriveExpect.
__device__ inline void BulkCopy(void* shared, const void* global, uint32_t bytes,
                                uint64_t* barrier) {
  NV_IF_ELSE_TARGET(
      NV_PROVIDES_SM_90,
      (asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], "
                    "%2, [%3];" ::"r"(SharedAddress(shared)),
                    "l"(__cvta_generic_to_global(global)), "r"(bytes), "r"(SharedAddress(barrier))
                    : "memory");),
      (__trap();));
}
// The same for data that is read once: it is the first to leave L2.
__device__ inline void BulkCopyStreaming(void* shared, const void* global, uint32_t bytes,
                                         uint64_t* barrier) {
  NV_IF_ELSE_TARGET(
      NV_PROVIDES_SM_90,
      (asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes."
                    "L2::cache_hint [%0], [%1], %2, [%3], %4;" ::"r"(SharedAddress(shared)),
                    "l"(__cvta_generic_to_global(global)), "r"(bytes), "r"(SharedAddress(barrier)),
                    "l"(EvictFirstPolicy())
                    : "memory");),
      (__trap();));
}

// The line of `global` on its way into L2; never faults a valid address, waits for nothing.
__device__ inline void PrefetchL2(const void* global) {
  asm volatile("prefetch.global.L2 [%0];" ::"l"(__cvta_generic_to_global(global)));
}
// `bytes` (a multiple of 16) from a 16-byte aligned address, to stay in L2 (9.0; before, nothing).
__device__ inline void BulkPrefetchL2(const void* global, uint32_t bytes) {
  NV_IF_TARGET(NV_PROVIDES_SM_90,
               (asm volatile("cp.async.bulk.prefetch.L2.global.L2::cache_hint [%0], %1, %2;" ::"l"(
                                 __cvta_generic_to_global(global)),
                             "r"(bytes), "l"(EvictLastPolicy()));));
}

// 16 aligned bytes that nothing writes while the kernel runs and that are read once (weights): not
// kept in L1, the first to leave L2.
__device__ inline uint4 LoadStreaming16(const void* global) {
  uint4 v;
  asm volatile("ld.global.nc.L1::no_allocate.L2::cache_hint.v4.u32 {%0, %1, %2, %3}, [%4], %5;"
               : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
               : "l"(__cvta_generic_to_global(global)), "l"(EvictFirstPolicy()));
  return v;
}

// --- Ordered accesses to global memory ---

// Scope: the device, or with System every device and the host.
__device__ inline uint32_t LoadAcquire(const uint32_t* p) {
  uint32_t v;
  asm volatile("ld.acquire.gpu.global.u32 %0, [%1];"
               : "=r"(v)
               : "l"(__cvta_generic_to_global(p))
               : "memory");
  return v;
}
__device__ inline uint32_t LoadAcquireSystem(const uint32_t* p) {
  uint32_t v;
  asm volatile("ld.acquire.sys.global.u32 %0, [%1];"
               : "=r"(v)
               : "l"(__cvta_generic_to_global(p))
               : "memory");
  return v;
}
__device__ inline void StoreRelease(uint32_t* p, uint32_t v) {
  asm volatile("st.release.gpu.global.u32 [%0], %1;" ::"l"(__cvta_generic_to_global(p)), "r"(v)
               : "memory");
}
__device__ inline void StoreReleaseSystem(uint32_t* p, uint32_t v) {
  asm volatile("st.release.sys.global.u32 [%0], %1;" ::"l"(__cvta_generic_to_global(p)), "r"(v)
               : "memory");
}
// *p += v, after what this thread wrote before.
__device__ inline void AddRelease(uint32_t* p, uint32_t v) {
  asm volatile("red.release.gpu.global.add.u32 [%0], %1;" ::"l"(__cvta_generic_to_global(p)), "r"(v)
               : "memory");
}
__device__ inline void AddReleaseSystem(uint32_t* p, uint32_t v) {
  asm volatile("red.release.sys.global.add.u32 [%0], %1;" ::"l"(__cvta_generic_to_global(p)), "r"(v)
               : "memory");
}
// The same, returning what was there; what other arrivers wrote before theirs is then visible.
__device__ inline uint32_t FetchAddAcquireRelease(uint32_t* p, uint32_t v) {
  uint32_t old;
  asm volatile("atom.acq_rel.gpu.global.add.u32 %0, [%1], %2;"
               : "=r"(old)
               : "l"(__cvta_generic_to_global(p)), "r"(v)
               : "memory");
  return old;
}
// 16 aligned bytes between devices, past L1, without order; each access is one transaction.
__device__ inline uint4 LoadRelaxedSystem16(const void* p) {
  uint4 v;
  asm volatile("ld.relaxed.sys.global.v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
               : "l"(__cvta_generic_to_global(p))
               : "memory");
  return v;
}
__device__ inline void StoreRelaxedSystem16(void* p, uint4 v) {
  asm volatile(
      "st.relaxed.sys.global.v4.u32 [%0], {%1, %2, %3, %4};" ::"l"(__cvta_generic_to_global(p)),
      "r"(v.x), "r"(v.y), "r"(v.z), "r"(v.w)
      : "memory");
}

// --- Time, and barriers of a part of the block ---

// Nanoseconds; may tick coarsely.
__device__ inline uint64_t GlobalTimer() {
  uint64_t now;
  asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(now));
  return now;
}

// __syncthreads for `threads` (a multiple of 32) of the block; ids 1 to 15, 0 is __syncthreads'.
__device__ inline void NamedBarrier(int id, int threads) {
  asm volatile("barrier.sync %0, %1;" ::"r"(id), "r"(threads) : "memory");
}
// Counts as arrived there without waiting.
__device__ inline void NamedBarrierArrive(int id, int threads) {
  asm volatile("barrier.arrive %0, %1;" ::"r"(id), "r"(threads) : "memory");
}

}  // namespace cohort::cuda

#endif  // COHORT_KERNELS_CUDA_PTX_CUH_H_
