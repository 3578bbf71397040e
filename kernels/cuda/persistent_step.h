// The persistent step's kernel (persistent_step.cu), for who fills its arguments (dense_layers.cu)
// and for the device's memory.
#ifndef COHORT_KERNELS_CUDA_PERSISTENT_STEP_H_
#define COHORT_KERNELS_CUDA_PERSISTENT_STEP_H_

#include "kernels/cuda/device.h"

namespace cohort::cuda {

inline constexpr int kStepLayers = 128;
inline constexpr int kStepCounters = 5 * kStepLayers + 1;

struct StepArguments;  // persistent_step.cuh
void LaunchPersistentStep(CohortCudaDevice* device, const StepArguments& arguments);

}  // namespace cohort::cuda

#endif  // COHORT_KERNELS_CUDA_PERSISTENT_STEP_H_
