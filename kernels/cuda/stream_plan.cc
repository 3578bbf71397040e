#include "kernels/cuda/stream_plan.h"

#include <algorithm>

namespace cohort::cuda {
namespace {

// Four times the chunks of the slowest block. Where tiles are cut, adding up is taken to cost a
// quarter of a chunk per item: most of it hides behind the copies under way.
int Cost(const StreamPlan& plan) {
  int longest = 0;
  for (int block = 0; block < plan.blocks; ++block) {
    longest = std::max(longest, plan.ChunksBefore(plan.FirstItem(block + 1)) -
                                    plan.ChunksBefore(plan.FirstItem(block)));
  }
  const int items_of_block = (plan.items() + plan.blocks - 1) / plan.blocks;
  return 4 * longest + (plan.slices > 1 ? items_of_block : 0);
}

}  // namespace

StreamPlan PlanStream(int units, int columns, int multiprocessors, int max_items) {
  StreamPlan plan;
  plan.tiles = (units + kStreamTileUnits - 1) / kStreamTileUnits;
  plan.chunks = (columns + kStreamChunkColumns - 1) / kStreamChunkColumns;
  StreamPlan best;
  for (plan.slices = 1; plan.slices <= std::min(plan.chunks, kStreamMaxSlices); ++plan.slices) {
    if (plan.slices > 1 && plan.items() > max_items) {
      break;
    }
    plan.blocks = std::min(plan.items(), multiprocessors);
    if (best.slices == 0 || Cost(plan) < Cost(best)) {
      best = plan;
    }
  }
  return best;
}

}  // namespace cohort::cuda
