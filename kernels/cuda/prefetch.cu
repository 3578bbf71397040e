// Which part of the next weights attention brings into L2.
#include <algorithm>
#include <cstddef>
#include <utility>

#include "kernels/cuda/device.h"
#include "kernels/cuda/entries.h"
#include "kernels/cuda/prefetch.cuh"

namespace cohort::cuda {
namespace {

// Of one attention: what memory can bring in the 4 us that a short one takes, and what stays in L2
// beside keys, values and activations.
constexpr std::size_t kPrefetchBytes = std::size_t{16} << 20;
constexpr std::size_t kChunkBytes =
    std::size_t{kStreamTileUnits} * kStreamUnitRows * kStreamChunkColumns * 2;

// `weight`'s part of `*bytes`, which it takes.
StreamPrefetch PrefetchOf(CohortCudaDevice* device, const CohortCudaTensor& weight, int64_t tokens,
                          int64_t units, const UnitRows& unit_rows, std::size_t* bytes) {
  CohortCudaTensor x = weight;  // of which only the shape and the dtype are asked for
  x.dims[0] = tokens;
  if (!CanStream(*device, x, weight)) {
    return {};
  }
  StreamPrefetch prefetch = {MakeStreamOperands(device, x, weight, units, unit_rows), 0};
  const StreamPlan& plan = prefetch.operands.plan;
  const auto chunks = static_cast<std::size_t>(plan.tiles) * static_cast<std::size_t>(plan.chunks);
  const auto blocks = static_cast<std::size_t>(plan.blocks);
  const std::size_t of_block = std::min(*bytes / (blocks * kChunkBytes), chunks / blocks + 1);
  *bytes -= std::min(*bytes, std::min(chunks, of_block * blocks) * kChunkBytes);
  prefetch.chunks_of_block = static_cast<int>(of_block);
  return prefetch;
}

}  // namespace

NextPrefetches TakeNextPrefetches(CohortCudaDevice* device, int64_t tokens) {
  const CohortCudaNextWeights next = std::exchange(device->next_weights, {});
  NextPrefetches prefetches = {};
  std::size_t bytes = kPrefetchBytes;
  if (next.product.data != nullptr) {
    const int64_t units = (next.product.dims[0] + kStreamUnitRows - 1) / kStreamUnitRows;
    prefetches.item[0] = PrefetchOf(device, next.product, tokens, units, kPlainRows, &bytes);
  }
  const int64_t columns = next.gate_up.data != nullptr ? next.gate_up.dims[0] / 2 : 0;
  if (columns > 0 && columns % 8 == 0) {
    prefetches.item[1] = PrefetchOf(device, next.gate_up, tokens, columns / 8,
                                    GateUpRows(static_cast<int>(columns)), &bytes);
  }
  return prefetches;
}

void PrefetchWeights(CohortCudaDevice* device, const CohortCudaNextWeights* next) noexcept {
  device->next_weights = *next;
}

}  // namespace cohort::cuda
