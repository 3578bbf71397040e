// The compute capability that the emulated GPUs have, and the one that the kernels are compiled
// for: COHORT_EMULATOR_COMPUTE and COHORT_EMULATOR_COMPILED_FOR.
#ifndef COHORT_TESTS_CUDA_EMULATOR_ARCHITECTURE_H_
#define COHORT_TESTS_CUDA_EMULATOR_ARCHITECTURE_H_

namespace cuda_emulator {

struct Architecture {
  int compute = 90;  // 9.0
  int shared_bytes_of_block = 227 << 10;
  int shared_bytes_of_multiprocessor = 228 << 10;
  int threads_of_multiprocessor = 2048;
  int blocks_of_multiprocessor = 32;
};

// The largest shared memory that any of them has.
inline constexpr int kMostSharedBytes = 227 << 10;

const Architecture& TheArchitecture();
int CompiledFor();  // 90 for 9.0

}  // namespace cuda_emulator

#endif  // COHORT_TESTS_CUDA_EMULATOR_ARCHITECTURE_H_
