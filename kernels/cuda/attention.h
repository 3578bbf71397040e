// The kernels behind PagedAttention and DualChunkAttention, apart from the choice between them
// (attention.cu).
#ifndef COHORT_KERNELS_CUDA_ATTENTION_H_
#define COHORT_KERNELS_CUDA_ATTENTION_H_

#include <cstddef>
#include <cstdint>

#include "kernels/cuda/device.h"
#include "kernels/cuda_plugin.h"

namespace cohort::cuda {

struct AttentionCall {
  const CohortCudaTensor* queries;
  const CohortCudaTensor* out;
  const int32_t* kv_head_of_query;
  int64_t query_heads;
  const CohortCudaBatch* batch;
  const CohortCudaKv* kv;
  const CohortCudaDualChunks* chunks;  // null: plain attention
  float scale;
};

// Any head size, dtype and block size: all rows. (attention_plain.cu)
void PlainAttention(CohortCudaDevice* device, const AttentionCall& call);

// bf16, head sizes 64 and 128, blocks of a multiple of kSlabKeys positions: the rows of the leading
// decodes (attention_decode.cu), and the rest (attention_prefill.cu; on compute 9.0 without chunks
// attention_wgmma.cu).
inline constexpr int kSlabKeys = 16;
struct TensorCoreAttention;
bool SuitsTensorCores(const CohortCudaDevice& device, const AttentionCall& call);
void DecodeAttention(CohortCudaDevice* device, const AttentionCall& call,
                     const TensorCoreAttention& arguments, int groups);
void PrefillAttention(CohortCudaDevice* device, const AttentionCall& call,
                      const TensorCoreAttention& arguments, int groups);

void PrefillAttentionWgmma(CohortCudaDevice* device, const AttentionCall& call,
                           const TensorCoreAttention& arguments, int groups);

// Device memory of attention (device->attention_workspace), zero at the beginning: a counter for
// each multiprocessor, zero between launches, then what ranges of keys leave for those that merge
// them.
struct AttentionWorkspace {
  uint32_t* counters;
  float* ranges;
};
std::size_t AttentionWorkspaceBytes(int multiprocessors);
AttentionWorkspace AttentionWorkspaceOf(CohortCudaDevice* device);
// Of that, the ranges of either kernel.
std::size_t DecodeRangeBytes(int multiprocessors);
std::size_t PrefillRangeBytes(int multiprocessors);

}  // namespace cohort::cuda

#endif  // COHORT_KERNELS_CUDA_ATTENTION_H_
