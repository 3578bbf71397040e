// Kernels that do nothing but what bounds all others: reading, copying, being launched.
#ifndef COHORT_TESTS_GPU_LIMIT_KERNELS_H_
#define COHORT_TESTS_GPU_LIMIT_KERNELS_H_

#include <cstddef>
#include <cstdint>

#include "kernels/cuda/device.h"

namespace cohort::gpu {

// Sizes are multiples of this: what a block reads at a time.
inline constexpr std::size_t kStageBytes = std::size_t{16} << 10;

// bf16 numbers of either sign from 0.5 to 1, random by their place: products of zeros, or of equal
// numbers, draw less power and run faster than real ones.
void FillRandom(CohortCudaDevice* device, void* data, std::size_t bytes);

// Reads everything once, 16 bytes per thread and load, `blocks` blocks per multiprocessor. `sink`
// holds one word per block of the largest grid; it keeps the loads from being left out.
void ReadWithLoads(CohortCudaDevice* device, const void* data, std::size_t bytes, int blocks,
                   uint32_t* sink);
// Reads by bulk copies of `piece` bytes into a ring of `ring` bytes in shared memory (compute
// capability 9.0 and later).
void ReadWithBulkCopies(CohortCudaDevice* device, const void* data, std::size_t bytes,
                        uint32_t piece, std::size_t ring, uint32_t* sink);
void Copy(CohortCudaDevice* device, const void* from, void* to, std::size_t bytes);

// A kernel of one block per multiprocessor that does nothing; `programmatic` ones may overlap.
void Nothing(CohortCudaDevice* device, bool programmatic);

}  // namespace cohort::gpu

#endif  // COHORT_TESTS_GPU_LIMIT_KERNELS_H_
