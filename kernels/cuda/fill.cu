// Random weights. blockIdx.x goes over the rows, blockIdx.y over stretches of kThreads packs of 16
// bytes (elements where rows do not cut into packs); one thread makes one pack. Bound by the
// writes: about twenty integer operations an element. Nothing is shared.
#include "kernels/cuda/device.h"
#include "kernels/cuda/entries.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/rows.cuh"
#include "kernels/random_fill.h"

namespace cohort::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int64_t kMaxGridRows = 1 << 16;

template <class T, int kVec>
__global__ void FillRandomKernel(RandomFill fill, int64_t rows, int64_t columns, Rows<T> out) {
  const int64_t column = (int64_t{blockIdx.y} * kThreads + threadIdx.x) * kVec;
  if (column >= columns) {
    return;
  }
  for (int64_t row = blockIdx.x; row < rows; row += gridDim.x) {
    Pack<T, kVec> pack;
#pragma unroll
    for (int i = 0; i < kVec; ++i) {
      pack.item[i] = FromFloat<T>(RandomFillAt(fill, row, column + i));
    }
    StorePack<kVec>(out[row] + column, pack);
  }
}

template <class T, int kVec>
void LaunchFillRandom(CohortCudaDevice* device, const RandomFill& fill,
                      const CohortCudaTensor& out) {
  const int64_t stretch = int64_t{kThreads} * kVec;
  const dim3 grid(static_cast<unsigned>(out.dims[0] < kMaxGridRows ? out.dims[0] : kMaxGridRows),
                  static_cast<unsigned>((out.dims[1] + stretch - 1) / stretch));
  Launch(device, "FillRandom", {grid, kThreads}, FillRandomKernel<T, kVec>, fill, out.dims[0],
         out.dims[1], RowsOf<T>(out));
}

}  // namespace

void FillRandom(CohortCudaDevice* device, const CohortCudaRandomFill* fill,
                const CohortCudaTensor* out) noexcept {
  if (out->dims[0] == 0 || out->dims[1] == 0) {
    return;
  }
  Activate(device);
  const RandomFill part = {fill->key,          fill->stored_columns, fill->first_row,
                           fill->first_column, fill->center,         fill->width};
  WithActivation(out->dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    constexpr int kVec = 16 / sizeof(T);
    if (CutsIntoPacks(out->dims[1], kVec, {out})) {
      LaunchFillRandom<T, kVec>(device, part, *out);
    } else {
      LaunchFillRandom<T, 1>(device, part, *out);
    }
  });
}

}  // namespace cohort::cuda
