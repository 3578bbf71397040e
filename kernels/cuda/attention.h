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
// decodes (attention_decode.cu), and the rest (attention_prefill.cu).
inline constexpr int kSlabKeys = 16;
struct TensorCoreAttention;
void DecodeAttention(CohortCudaDevice* device, const AttentionCall& call,
                     const TensorCoreAttention& arguments, int groups);
void PrefillAttention(CohortCudaDevice* device, const AttentionCall& call,
                      const TensorCoreAttention& arguments, int groups);

// What DecodeAttention needs of device memory, zero at the beginning.
std::size_t AttentionWorkspaceBytes(int multiprocessors);

}  // namespace cohort::cuda

#endif  // COHORT_KERNELS_CUDA_ATTENTION_H_
