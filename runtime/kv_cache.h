// The paged key-value memory of one rank: one pair of tensors per layer.
#ifndef COHORT_RUNTIME_KV_CACHE_H_
#define COHORT_RUNTIME_KV_CACHE_H_

#include <cstdint>
#include <vector>

#include "kernels/device.h"
#include "kernels/ops.h"
#include "parallel/shard_plan.h"

namespace cohort {

class KvCache {
 public:
  // Uninitialised; RESOURCE_EXHAUSTED from the device.
  static absl::StatusOr<KvCache> Create(const ShardPlan& plan, int64_t blocks, int64_t block_size,
                                        DType act, Device& device);

  KvView layer(size_t index) const {
    return {layers_[index].keys.view(), layers_[index].values.view()};
  }
  int64_t bytes() const;

 private:
  struct Layer {
    Tensor keys;    // [blocks, kv_heads, block_size, head_dim]
    Tensor values;  // [blocks, kv_heads, block_size, head_dim]
  };
  std::vector<Layer> layers_;
};

}  // namespace cohort

#endif  // COHORT_RUNTIME_KV_CACHE_H_
