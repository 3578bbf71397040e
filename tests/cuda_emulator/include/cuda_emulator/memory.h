// Atomics, fences and qualified loads under their CUDA names. Atomics are those of the host: blocks
// of a cooperative launch run on several host threads.
#ifndef COHORT_TESTS_CUDA_EMULATOR_MEMORY_H_
#define COHORT_TESTS_CUDA_EMULATOR_MEMORY_H_

#include <atomic>
#include <type_traits>

#include "cuda_emulator/thread.h"

namespace cuda_emulator {

// *address = change(*address); what was there.
template <class T, class Change>
T Update(T* address, Change change) {
  const std::atomic_ref<T> word(*address);
  T old = word.load(std::memory_order_relaxed);
  while (!word.compare_exchange_weak(old, change(old), std::memory_order_relaxed)) {
  }
  return old;
}

}  // namespace cuda_emulator

// The second argument takes the type of the first, as with CUDA's overloads.
template <class T>
T atomicAdd(T* address, std::type_identity_t<T> value) {
  return cuda_emulator::Update(address, [&](T old) { return static_cast<T>(old + value); });
}
template <class T>
T atomicSub(T* address, std::type_identity_t<T> value) {
  return cuda_emulator::Update(address, [&](T old) { return static_cast<T>(old - value); });
}
template <class T>
T atomicMax(T* address, std::type_identity_t<T> value) {
  return cuda_emulator::Update(address, [&](T old) { return old < value ? value : old; });
}
template <class T>
T atomicMin(T* address, std::type_identity_t<T> value) {
  return cuda_emulator::Update(address, [&](T old) { return value < old ? value : old; });
}
template <class T>
T atomicAnd(T* address, std::type_identity_t<T> value) {
  return cuda_emulator::Update(address, [&](T old) { return old & value; });
}
template <class T>
T atomicOr(T* address, std::type_identity_t<T> value) {
  return cuda_emulator::Update(address, [&](T old) { return old | value; });
}
template <class T>
T atomicXor(T* address, std::type_identity_t<T> value) {
  return cuda_emulator::Update(address, [&](T old) { return old ^ value; });
}
template <class T>
T atomicExch(T* address, std::type_identity_t<T> value) {
  cuda_emulator::Yield();
  return cuda_emulator::Update(address, [&](T) { return value; });
}
template <class T>
T atomicCAS(T* address, std::type_identity_t<T> compare, std::type_identity_t<T> value) {
  cuda_emulator::Yield();
  return cuda_emulator::Update(address, [&](T old) { return old == compare ? value : old; });
}
inline unsigned atomicInc(unsigned* address, unsigned limit) {
  return cuda_emulator::Update(address, [&](unsigned old) { return old >= limit ? 0 : old + 1; });
}

inline void __threadfence_block() { std::atomic_thread_fence(std::memory_order_seq_cst); }
inline void __threadfence() { std::atomic_thread_fence(std::memory_order_seq_cst); }
inline void __threadfence_system() { std::atomic_thread_fence(std::memory_order_seq_cst); }

template <class T>
T __ldg(const T* p) {
  return *p;
}
template <class T>
T __ldcg(const T* p) {
  return *p;
}
template <class T>
T __ldca(const T* p) {
  return *p;
}
template <class T>
T __ldcs(const T* p) {
  return *p;
}
template <class T>
T __ldcv(const T* p) {
  cuda_emulator::Yield();
  return *const_cast<const volatile T*>(p);
}
template <class T>
void __stcg(T* p, T value) {
  *p = value;
}
template <class T>
void __stcs(T* p, T value) {
  *p = value;
}

#endif  // COHORT_TESTS_CUDA_EMULATOR_MEMORY_H_
