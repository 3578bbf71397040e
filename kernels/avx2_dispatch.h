// Kernels whose bits must not depend on the machine: compiled for any x86-64 and for AVX2, but
// never for FMA, which would round a product and a sum once. kernels/cpu/ has those that may.
#ifndef COHORT_KERNELS_AVX2_DISPATCH_H_
#define COHORT_KERNELS_AVX2_DISPATCH_H_

namespace cohort::avx2 {

// What a kernel calls must be compiled with it, for its instruction set.
#define COHORT_AVX2_INLINE [[gnu::always_inline]] inline

template <class Kernel, class... Args>
void RunBaseline(Args&... args) {
  Kernel::Run(args...);
}

template <class Kernel, class... Args>
__attribute__((target("avx2"))) void RunAvx2(Args&... args) {
  Kernel::Run(args...);
}

// A kernel is a struct with an inlined static Run().
template <class Kernel, class... Args>
void Run(Args&&... args) {
  static const bool has_avx2 = __builtin_cpu_supports("avx2") != 0;
  if (has_avx2) {
    RunAvx2<Kernel>(args...);
  } else {
    RunBaseline<Kernel>(args...);
  }
}

}  // namespace cohort::avx2

#endif  // COHORT_KERNELS_AVX2_DISPATCH_H_
