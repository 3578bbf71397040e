// How much of each GPU becomes KV memory: what the weights, the workspace and the reserve leave of
// it, by the plan of `cohort plan` (runtime/planner.h), so that both always agree.
#ifndef COHORT_LAUNCHER_GPU_MEMORY_H_
#define COHORT_LAUNCHER_GPU_MEMORY_H_

#include <cstdint>

#include "kernels/tensor.h"
#include "launcher/serve_options.h"
#include "runtime/model_config.h"

namespace cohort {

// Of a GPU of `total_bytes` that `sharers` ranks have together, what one of them may take, by
// --gpu-memory; the reserve is part of it. RESOURCE_EXHAUSTED when that is more than there is.
absl::StatusOr<int64_t> GpuBytesOfRank(const GpuMemoryLimit& limit, int64_t total_bytes,
                                       int64_t sharers);

struct GpuRoom {
  int64_t kv_bytes = 0;  // on the rank that holds most of a token
  bool host_embedding = false;
};

// What is left for KV memory where every rank may take `rank_bytes` of its GPU, and whether the
// embedding has to lie in host memory for that. RESOURCE_EXHAUSTED, with the bytes, when there is
// no room for a block.
absl::StatusOr<GpuRoom> FindGpuRoom(const ServeOptions& options, const ModelConfig& config,
                                    DType dtype, int64_t rank_bytes);

}  // namespace cohort

#endif  // COHORT_LAUNCHER_GPU_MEMORY_H_
