// For which architecture the code was compiled that the driver runs on a device: the plugin may
// hold several, and a device takes what was compiled for an older one where nothing fits better.
#ifndef COHORT_KERNELS_CUDA_COMPILED_CODE_H_
#define COHORT_KERNELS_CUDA_COMPILED_CODE_H_

#include "kernels/cuda_plugin.h"

namespace cohort::cuda {

struct CompiledCode {
  int32_t compute;    // 90 is compute capability 9.0
  int32_t has_wgmma;  // compiled for sm_90a
};

// Asks a kernel; waits for it. The device has its stream and its workspace. kCohortCudaNotUsable
// where the plugin has no code for the device.
CohortCudaError LookAtCode(CohortCudaDevice* device, CompiledCode* code);

}  // namespace cohort::cuda

#endif  // COHORT_KERNELS_CUDA_COMPILED_CODE_H_
