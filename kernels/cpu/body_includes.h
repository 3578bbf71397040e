// What the body_*.h files need, included before the target of the compilation changes: nothing of
// these headers may be compiled for an instruction set that another machine lacks.
#ifndef COHORT_KERNELS_CPU_BODY_INCLUDES_H_
#define COHORT_KERNELS_CPU_BODY_INCLUDES_H_

#include <immintrin.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <utility>

#include "kernels/bfloat16.h"
#include "kernels/cpu/kernel_table.h"

#define COHORT_CPU_INLINE [[gnu::always_inline]] inline

#endif  // COHORT_KERNELS_CPU_BODY_INCLUDES_H_
