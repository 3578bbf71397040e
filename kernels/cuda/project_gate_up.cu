// The product with gate and up rows, and SiLU(gate) * up in its epilogue where the product streams
// (stream.cuh, stream_wide.cuh): a unit is 8 gate rows and the up rows of the same columns, so that
// both sums of an output meet in one thread.
#include "kernels/cuda/device.h"
#include "kernels/cuda/entries.h"
#include "kernels/cuda/rows.cuh"
#include "kernels/cuda/stream.cuh"
#include "kernels/cuda/stream_epilogues.cuh"
#include "kernels/cuda/stream_wide.cuh"

namespace cohort::cuda {

void ProjectGateUp(CohortCudaDevice* device, const CohortCudaTensor* x,
                   const CohortCudaTensor* weight, const CohortCudaTensor* gate_up,
                   const CohortCudaTensor* out) noexcept {
  const int64_t columns = out->dims[1];
  if (columns > 0 && columns % 8 == 0 && CanStreamAny(*device, *x, *weight)) {
    Activate(device);
    LaunchAnyStream(
        device, "ProjectGateUp",
        MakeStreamOperands(device, *x, *weight, columns / 8, GateUpRows(static_cast<int>(columns))),
        GateUpEpilogue{RowsOf<BFloat16>(*out)});
    return;
  }
  MatMul(device, x, weight, nullptr, gate_up);
  SiluMultiply(device, gate_up, out);
}

}  // namespace cohort::cuda
