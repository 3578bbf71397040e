// How large messages are that go over peer memory.
#ifndef COHORT_KERNELS_CUDA_PEER_SIZES_H_
#define COHORT_KERNELS_CUDA_PEER_SIZES_H_

#include <cstdint>

#include "kernels/cuda/peers.h"

namespace cohort::cuda {

// What a rank's buffer has room for.
int64_t MostOneShotBytes(int32_t world);

// Times all ways and sets the communicator's sizes, on every rank the same. Collective, before
// anything is recorded.
CohortCudaError MeasureSizes(CohortCudaCommunicator* c);

}  // namespace cohort::cuda

#endif  // COHORT_KERNELS_CUDA_PEER_SIZES_H_
