// The functions of kernels/cuda/ptx.cuh on the emulated GPU; what each does stands there.
#ifndef COHORT_KERNELS_CUDA_PTX_CUH_H_
#define COHORT_KERNELS_CUDA_PTX_CUH_H_

#include <cuda_runtime.h>

#include <atomic>
#include <cstdint>
#include <cstring>

namespace cohort::cuda {

inline constexpr uint64_t kSpinBoundNanoseconds = uint64_t{10} * 1000 * 1000 * 1000;

inline unsigned char* DynamicShared() { return cuda_emulator::current->dynamic_shared; }

// --- The code itself ---

inline int CompiledCompute() { return cuda_emulator::CompiledFor(); }
inline bool IsCompiledForWgmma() { return cuda_emulator::CompiledFor() == 90; }
// Instructions that came with 9.0 and stayed.
inline void RequireHopper(const char* what) { cuda_emulator::RequireCompute(90, 999, what); }

// --- Programmatic dependent launch ---

inline void WaitForPredecessor() { cuda_emulator::WaitForPredecessor(); }
inline void LaunchSuccessor() { cuda_emulator::LaunchSuccessor(); }

// --- Tensor cores ---

inline void MmaBf16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  cuda_emulator::MmaBf16(d, a, b);
}
inline void LoadMatrix4(uint32_t (&r)[4], const void* shared_row) {
  cuda_emulator::LoadMatrix(r, 4, false, shared_row);
}
inline void LoadMatrix4Transposed(uint32_t (&r)[4], const void* shared_row) {
  cuda_emulator::LoadMatrix(r, 4, true, shared_row);
}
inline void LoadMatrix2(uint32_t (&r)[2], const void* shared_row) {
  cuda_emulator::LoadMatrix(r, 2, false, shared_row);
}
inline void LoadMatrix2Transposed(uint32_t (&r)[2], const void* shared_row) {
  cuda_emulator::LoadMatrix(r, 2, true, shared_row);
}
inline uint32_t TransposeMatrix(uint32_t a) { return cuda_emulator::TransposeMatrix(a); }
inline float Exp2Approximate(float x) { return exp2f(x); }

// --- Asynchronous copies ---

inline void CopyAsync16(void* shared, const void* global, bool valid) {
  cuda_emulator::CopyAsync16(shared, global, valid);
}
inline void CopyAsync16Streaming(void* shared, const void* global, bool valid) {
  CopyAsync16(shared, global, valid);
}
inline void CopyAsyncCommit() { cuda_emulator::CopyAsyncCommit(); }
template <int kPending>
void CopyAsyncWait() {
  cuda_emulator::CopyAsyncWait(kPending);
}

inline void BarrierInit(uint64_t* barrier, uint32_t arrivals) {
  cuda_emulator::BarrierInit(barrier, arrivals);
}
inline void BarrierInitFence() { RequireHopper("BarrierInitFence"); }
inline void BarrierArrive(uint64_t* barrier) { cuda_emulator::BarrierArrive(barrier, 0); }
inline void BarrierArriveExpect(uint64_t* barrier, uint32_t bytes) {
  RequireHopper("BarrierArriveExpect");
  cuda_emulator::BarrierArrive(barrier, bytes);
}
inline bool BarrierTest(uint64_t* barrier, uint32_t parity) {
  RequireHopper("BarrierTest");
  return cuda_emulator::BarrierTest(barrier, parity);
}
inline void BarrierWait(uint64_t* barrier, uint32_t parity) {
  while (!BarrierTest(barrier, parity)) {
  }
}
inline void FenceProxyAsync() {
  RequireHopper("FenceProxyAsync");
  cuda_emulator::FenceProxyAsync();
}
inline void BulkCopy(void* shared, const void* global, uint32_t bytes, uint64_t* barrier) {
  RequireHopper("BulkCopy");
  cuda_emulator::BulkCopy(shared, global, bytes, barrier);
}
inline void BulkCopyStreaming(void* shared, const void* global, uint32_t bytes, uint64_t* barrier) {
  RequireHopper("BulkCopyStreaming");
  cuda_emulator::BulkCopy(shared, global, bytes, barrier);
}

// --- Cache policies ---

inline void RequireAligned(const void* p, const char* what) {
  if (reinterpret_cast<uintptr_t>(p) % 16 != 0) {
    cuda_emulator::Fail("%s at %p, which is not 16-byte aligned", what, p);
  }
}
// A prefetch must name memory that is there: it is read.
inline void PrefetchL2(const void* global) {
  [[maybe_unused]] const char byte = *static_cast<const volatile char*>(global);
}
inline void BulkPrefetchL2(const void* global, uint32_t bytes) {
  RequireAligned(global, "BulkPrefetchL2");
  if (bytes % 16 != 0) {
    cuda_emulator::Fail("BulkPrefetchL2 of %u bytes, not a multiple of 16", bytes);
  }
  if (bytes > 0) {
    PrefetchL2(global);
    PrefetchL2(static_cast<const char*>(global) + bytes - 1);
  }
}
inline uint4 LoadStreaming16(const void* global) {
  RequireAligned(global, "LoadStreaming16");
  return *static_cast<const uint4*>(global);
}

// --- Ordered accesses; loads yield, because spinning threads repeat them ---

inline uint32_t LoadAcquireSystem(const uint32_t* p) {
  cuda_emulator::Yield();
  return std::atomic_ref<uint32_t>(*const_cast<uint32_t*>(p)).load(std::memory_order_acquire);
}
inline uint32_t LoadAcquire(const uint32_t* p) { return LoadAcquireSystem(p); }
inline void StoreReleaseSystem(uint32_t* p, uint32_t v) {
  std::atomic_ref<uint32_t>(*p).store(v, std::memory_order_release);
}
inline void StoreRelease(uint32_t* p, uint32_t v) { StoreReleaseSystem(p, v); }
inline void AddReleaseSystem(uint32_t* p, uint32_t v) {
  std::atomic_ref<uint32_t>(*p).fetch_add(v, std::memory_order_release);
}
inline void AddRelease(uint32_t* p, uint32_t v) { AddReleaseSystem(p, v); }
inline uint32_t FetchAddAcquireRelease(uint32_t* p, uint32_t v) {
  return std::atomic_ref<uint32_t>(*p).fetch_add(v, std::memory_order_acq_rel);
}
// 16 bytes at once, as between devices: SSE's aligned accesses are single on every CPU with AVX.
using Wide = long long __attribute__((vector_size(16)));
inline uint4 LoadRelaxedSystem16(const void* p) {
  RequireAligned(p, "LoadRelaxedSystem16");
  cuda_emulator::Yield();
  const Wide wide = *static_cast<const volatile Wide*>(p);
  uint4 v;
  std::memcpy(&v, &wide, sizeof(v));
  return v;
}
inline void StoreRelaxedSystem16(void* p, uint4 v) {
  RequireAligned(p, "StoreRelaxedSystem16");
  Wide wide;
  std::memcpy(&wide, &v, sizeof(wide));
  *static_cast<volatile Wide*>(p) = wide;
}

// --- Time, and barriers of a part of the block ---

inline uint64_t GlobalTimer() {
  cuda_emulator::Yield();
  return cuda_emulator::Nanoseconds();
}
inline void NamedBarrier(int id, int threads, COHORT_EMULATOR_LINE) {
  cuda_emulator::NamedBarrier(id, threads, true, file, line);
}
inline void NamedBarrierArrive(int id, int threads, COHORT_EMULATOR_LINE) {
  cuda_emulator::NamedBarrier(id, threads, false, file, line);
}

}  // namespace cohort::cuda

#endif  // COHORT_KERNELS_CUDA_PTX_CUH_H_
