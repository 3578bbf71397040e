// CUDA C++ for the host's compiler. Found before the toolkit's header of this name and included
// ahead of every .cu file, as nvcc does with that one.
#ifndef COHORT_TESTS_CUDA_EMULATOR_CUDA_RUNTIME_H_
#define COHORT_TESTS_CUDA_EMULATOR_CUDA_RUNTIME_H_

// The toolkit's headers leave these names alone where they are defined.
#define __global__
#define __device__
#define __host__
#define __constant__
#define __grid_constant__
// A block lives on one thread of the host.
#define __shared__ static thread_local
#define __launch_bounds__(...)

#include <cuda_runtime_api.h>
#include <vector_functions.h>

#include "cuda_emulator/launch.h"
#include "cuda_emulator/math.h"
#include "cuda_emulator/memory.h"
#include "cuda_emulator/thread.h"
#include "cuda_emulator/warp.h"

inline constexpr int warpSize = 32;

#endif  // COHORT_TESTS_CUDA_EMULATOR_CUDA_RUNTIME_H_
