// Kernels beside cuBLASLt, launched by matmul.cc.
#ifndef COHORT_KERNELS_CUDA_MATMUL_H_
#define COHORT_KERNELS_CUDA_MATMUL_H_

#include "kernels/cuda_plugin.h"

namespace cohort::cuda {

// The whole product without cuBLASLt (matmul_plain.cu): for shapes and alignments it does not take,
// and for rows of no columns, where out is the bias or 0. `bias` may be null.
void PlainMatMul(CohortCudaDevice* device, const CohortCudaTensor& x,
                 const CohortCudaTensor& weight, const CohortCudaTensor* bias,
                 const CohortCudaTensor& out);

// The product of 1 to 16 tokens in bf16 by the kernel of stream.cuh (matmul_stream.cu). False, and
// nothing is done, where that kernel does not take the shape or the device.
bool StreamMatMul(CohortCudaDevice* device, const CohortCudaTensor& x,
                  const CohortCudaTensor& weight, const CohortCudaTensor* bias,
                  const CohortCudaTensor& out);

// out += bias. out [tokens, columns] fp32; bias [columns] bf16 or fp32.
void AddBias(CohortCudaDevice* device, const CohortCudaTensor& bias, const CohortCudaTensor& out);

// Random numbers of magnitude 0.5 to 1 in all of `bytes`, a multiple of 4.
void FillRandom(CohortCudaDevice* device, void* memory, int64_t bytes, int32_t dtype);

}  // namespace cohort::cuda

#endif  // COHORT_KERNELS_CUDA_MATMUL_H_
