#include "runtime/kv_cache.h"

#include <utility>

namespace cohort {

absl::StatusOr<KvCache> KvCache::Create(const ShardPlan& plan, int64_t blocks, int64_t block_size,
                                        DType act, Device& device) {
  const Shape shape = {blocks, plan.kv_heads().size(), block_size, plan.dims().head_dim};
  KvCache cache;
  for (int64_t i = 0; i < plan.dims().layers; ++i) {
    Layer layer;
    ASSIGN_OR_RETURN(layer.keys, device.Allocate(shape, act));
    ASSIGN_OR_RETURN(layer.values, device.Allocate(shape, act));
    cache.layers_.push_back(std::move(layer));
  }
  return cache;
}

int64_t KvCache::bytes() const {
  int64_t bytes = 0;
  for (const Layer& layer : layers_) {
    bytes += layer.keys.bytes() + layer.values.bytes();
  }
  return bytes;
}

}  // namespace cohort
