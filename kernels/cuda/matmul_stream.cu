// The weight-streaming product by itself, with its bias. What a block does stands in stream.cuh.
#include <algorithm>

#include "kernels/cuda/device.h"
#include "kernels/cuda/matmul.h"
#include "kernels/cuda/rows.cuh"
#include "kernels/cuda/stream.cuh"
#include "kernels/cuda/stream_epilogues.cuh"
#include "kernels/cuda/stream_wide.cuh"

namespace cohort::cuda {
namespace {

// Bytes of an item's sums in the workspace.
constexpr int kItemBytes =
    kStreamMaxTokens * kStreamTileUnits * kStreamUnitRows * static_cast<int>(sizeof(float));
constexpr int kMaxItems = static_cast<int>(kWorkspaceBytes / kItemBytes);
// Only tiles of two slices and more count their blocks.
static_assert(kMaxItems / 2 <= kStreamArrivals);

// A block of the wide kernel has two places for the sums of a tile.
constexpr int kWidePlaceBytes = kWideMaxTokens * kWideTileUnits * kStreamUnitRows * 4;
constexpr int kMostWideBlocks = static_cast<int>(kWorkspaceBytes / (2 * kWidePlaceBytes));
constexpr int64_t kMostWideRows = int64_t{kStreamArrivals} * kWideTileUnits * kStreamUnitRows;

template <class Out>
void Multiply(CohortCudaDevice* device, const StreamOperands& operands,
              const CohortCudaTensor* bias, const CohortCudaTensor& out) {
  const auto* addend = bias != nullptr ? static_cast<const BFloat16*>(bias->data) : nullptr;
  LaunchAnyStream(device, "StreamMatMul", operands,
                  BiasEpilogue<Out>{addend, RowsOf<Out>(out), operands.rows});
}

}  // namespace

bool CanStream(const CohortCudaDevice& device, const CohortCudaTensor& x,
               const CohortCudaTensor& weight) {
  return device.compute >= 90 && x.dtype == kCohortCudaBF16 && x.dims[0] >= 1 &&
         x.dims[0] <= kStreamMaxTokens && x.dims[1] > 0 &&
         CutsIntoPacks(x.dims[1], 8, {&x, &weight});
}

bool CanStreamAny(const CohortCudaDevice& device, const CohortCudaTensor& x,
                  const CohortCudaTensor& weight) {
  if (x.dims[0] <= kStreamMaxTokens) {
    return CanStream(device, x, weight);
  }
  return device.has_wgmma && x.dtype == kCohortCudaBF16 && x.dims[0] <= kWideMaxTokens &&
         x.dims[1] > 0 && weight.dims[0] <= kMostWideRows &&
         CutsIntoPacks(x.dims[1], 8, {&x, &weight});
}

WidePlan WidePlanOf(CohortCudaDevice* device, const StreamOperands& operands) {
  WidePlan& plan = device->wide_plans[{operands.units, operands.columns}];
  if (plan.blocks == 0) {
    plan = PlanWide(operands.units, operands.columns,
                    std::min(device->multiprocessors, kMostWideBlocks));
  }
  return plan;
}

StreamOperands MakeStreamOperands(CohortCudaDevice* device, const CohortCudaTensor& x,
                                  const CohortCudaTensor& weight, int64_t units,
                                  const UnitRows& unit_rows) {
  StreamOperands operands = {};
  operands.weight = RowsOf<const BFloat16>(weight);
  operands.x = RowsOf<const BFloat16>(x);
  operands.rows = static_cast<int>(weight.dims[0]);
  operands.columns = static_cast<int>(x.dims[1]);
  operands.tokens = static_cast<int>(x.dims[0]);
  operands.units = static_cast<int>(units);
  operands.unit_rows = unit_rows;
  StreamPlan& plan = device->stream_plans[{operands.units, operands.columns}];
  if (plan.slices == 0) {
    plan = PlanStream(operands.units, operands.columns, device->multiprocessors, kMaxItems);
  }
  operands.plan = plan;
  operands.partials = static_cast<float2*>(device->workspace);
  operands.arrivals = device->stream_arrivals;
  return operands;
}

bool StreamMatMul(CohortCudaDevice* device, const CohortCudaTensor& x,
                  const CohortCudaTensor& weight, const CohortCudaTensor* bias,
                  const CohortCudaTensor& out) {
  if (!CanStreamAny(*device, x, weight)) {
    return false;
  }
  const int64_t units = (weight.dims[0] + kStreamUnitRows - 1) / kStreamUnitRows;
  const StreamOperands operands = MakeStreamOperands(device, x, weight, units, kPlainRows);
  if (out.dtype == kCohortCudaF32) {
    Multiply<float>(device, operands, bias, out);
  } else {
    Multiply<BFloat16>(device, operands, bias, out);
  }
  return true;
}

}  // namespace cohort::cuda
