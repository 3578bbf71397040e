#include "kernels/cuda/stream_wide_plan.h"

#include <algorithm>

namespace cohort::cuda {
namespace {

// In the time that a chunk takes when all multiprocessors read at once. A multiprocessor alone may
// read 1.4 times as fast; the last block of a tile takes about one such time per block that shares
// it, all blocks having come to their ends together.
float Cost(const WidePlan& plan, int multiprocessors) {
  const int chunks = plan.tiles * plan.chunks;
  const int longest = (chunks + plan.blocks - 1) / plan.blocks;
  int sharing = 1;
  for (int tile = 0; tile < plan.tiles; ++tile) {
    sharing = std::max(sharing, plan.LastBlock(tile) - plan.FirstBlock(tile) + 1);
  }
  const float of_all = static_cast<float>(chunks) / static_cast<float>(multiprocessors);
  const float of_longest = static_cast<float>(longest) / 1.4F;
  return std::max(of_all, of_longest) + (sharing > 1 ? static_cast<float>(sharing) : 0.0F);
}

}  // namespace

WidePlan PlanWide(int units, int columns, int multiprocessors) {
  WidePlan plan = {(units + kWideTileUnits - 1) / kWideTileUnits,
                   (columns + kWideChunkColumns - 1) / kWideChunkColumns, 1};
  WidePlan best = plan;
  // Of equals the one with the most blocks.
  for (; plan.blocks <= std::min(multiprocessors, plan.tiles * plan.chunks); ++plan.blocks) {
    if (Cost(plan, multiprocessors) <= Cost(best, multiprocessors)) {
      best = plan;
    }
  }
  return best;
}

}  // namespace cohort::cuda
