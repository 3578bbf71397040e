// The router's choice, the counts of its choices, and the gate of the shared expert.
#include <climits>
#include <cmath>

#include "kernels/cuda/device.h"
#include "kernels/cuda/entries.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/ptx.cuh"
#include "kernels/cuda/rows.cuh"

namespace cohort::cuda {
namespace {

constexpr int kRouteWarps = 4;
constexpr int kThreads = 256;

struct Choice {
  float logit;
  int id;
  // Before the other one in the order of choice; never with a NaN.
  __device__ bool Precedes(const Choice& other) const {
    return logit > other.logit || (logit == other.logit && id < other.id);
  }
};

// The first choice of the row behind `previous`, in every lane.
template <class T>
__device__ Choice NextChoice(const T* logits, int experts, const Choice& previous) {
  Choice best = {-INFINITY, INT_MAX};
  for (int id = static_cast<int>(threadIdx.x) % 32; id < experts; id += 32) {
    const Choice choice = {ToFloat(logits[id]), id};
    if (previous.Precedes(choice) && choice.Precedes(best)) {
      best = choice;
    }
  }
  for (int offset = 16; offset > 0; offset /= 2) {
    const Choice other = {__shfl_xor_sync(0xffffffffu, best.logit, offset),
                          __shfl_xor_sync(0xffffffffu, best.id, offset)};
    if (other.Precedes(best)) {
      best = other;
    }
  }
  return best;
}

template <class T>
__device__ float SumOfExponentials(const T* logits, int experts, float largest) {
  float sum = 0;
  for (int id = static_cast<int>(threadIdx.x) % 32; id < experts; id += 32) {
    sum += expf(ToFloat(logits[id]) - largest);
  }
  return WarpSum(sum);
}

// A warp routes a row: `choices` passes over its logits, each for the next in order, so that
// nothing has to be remembered of the earlier ones. Lane i keeps choices i, i + 32, ...
template <class T>
__global__ void RouteTopKKernel(Rows<const T> logits, int64_t rows, int experts, int choices,
                                bool normalize, Rows<int32_t> ids, Rows<float> weights) {
  WaitForPredecessor();
  LaunchSuccessor();
  const int64_t row = int64_t{blockIdx.x} * kRouteWarps + threadIdx.x / 32;
  if (row >= rows) {
    return;
  }
  const int lane = static_cast<int>(threadIdx.x) % 32;
  Choice choice = NextChoice(logits[row], experts, {INFINITY, -1});
  const float largest = choice.logit;
  const float sum = SumOfExponentials(logits[row], experts, largest);
  float chosen = 0;
  for (int i = 0; i < choices; ++i) {
    const float weight = expf(choice.logit - largest) / sum;
    chosen += weight;
    if (lane == i % 32) {
      ids[row][i] = isnan(sum) ? i : choice.id;
      weights[row][i] = isnan(sum) ? NAN : weight;
    }
    if (i + 1 < choices) {
      choice = NextChoice(logits[row], experts, choice);
    }
  }
  for (int i = lane; i < choices; i += 32) {
    const float weight = weights[row][i];
    weights[row][i] = Rounded<T>(normalize ? weight / chosen : weight);
  }
}

// A thread counts one id.
__global__ void CountIdsKernel(Rows<const int32_t> ids, int64_t total, int64_t columns,
                               unsigned* counts, int64_t places) {
  WaitForPredecessor();
  LaunchSuccessor();
  const int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (i >= total) {
    return;
  }
  const int32_t id = ids[i / columns][i % columns];
  if (id >= 0 && id < places) {
    atomicAdd(counts + id, 1u);
  }
}

// blockIdx.x is the row, blockIdx.y a stretch of kThreads packs; a thread adds one pack.
template <class T, int kVec>
__global__ void AddGatedKernel(Rows<const float> x, Rows<const T> gate, int64_t columns,
                               Rows<float> out) {
  WaitForPredecessor();
  LaunchSuccessor();
  const int64_t column = (int64_t{blockIdx.y} * kThreads + threadIdx.x) * kVec;
  if (column >= columns) {
    return;
  }
  const float factor = Rounded<T>(1.0f / (1.0f + expf(-ToFloat(gate[blockIdx.x][0]))));
  const auto added = LoadPack<kVec>(x[blockIdx.x] + column);
  auto values = LoadPack<kVec>(out[blockIdx.x] + column);
#pragma unroll
  for (int i = 0; i < kVec; ++i) {
    values.item[i] += factor * added.item[i];
  }
  StorePack<kVec>(out[blockIdx.x] + column, values);
}

template <class T, int kVec>
void LaunchAddGated(CohortCudaDevice* device, const CohortCudaTensor& x,
                    const CohortCudaTensor& gate, const CohortCudaTensor& out) {
  const int64_t stretch = int64_t{kThreads} * kVec;
  const dim3 grid(static_cast<unsigned>(out.dims[0]),
                  static_cast<unsigned>((out.dims[1] + stretch - 1) / stretch));
  Launch(device, "AddGated", {.grid = grid, .block = kThreads, .programmatic = true},
         AddGatedKernel<T, kVec>, RowsOf<const float>(x), RowsOf<const T>(gate), out.dims[1],
         RowsOf<float>(out));
}

unsigned Blocks(int64_t work, int per_block) {
  return static_cast<unsigned>((work + per_block - 1) / per_block);
}

}  // namespace

void RouteTopK(CohortCudaDevice* device, const CohortCudaTensor* logits, int32_t normalize,
               const CohortCudaRouting* routing) noexcept {
  const int64_t rows = logits->dims[0];
  if (rows == 0) {
    return;
  }
  Activate(device);
  WithActivation(logits->dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    Launch(device, "RouteTopK",
           {.grid = Blocks(rows, kRouteWarps), .block = kRouteWarps * 32, .programmatic = true},
           RouteTopKKernel<T>, RowsOf<const T>(*logits), rows, static_cast<int>(logits->dims[1]),
           static_cast<int>(routing->ids.dims[1]), normalize != 0, RowsOf<int32_t>(routing->ids),
           RowsOf<float>(routing->weights));
  });
}

void CountIds(CohortCudaDevice* device, const CohortCudaTensor* ids,
              const CohortCudaTensor* counts) noexcept {
  const int64_t total = ids->dims[0] * ids->dims[1];
  if (total == 0) {
    return;
  }
  Activate(device);
  Launch(device, "CountIds",
         {.grid = Blocks(total, kThreads), .block = kThreads, .programmatic = true}, CountIdsKernel,
         RowsOf<const int32_t>(*ids), total, ids->dims[1], static_cast<unsigned*>(counts->data),
         counts->dims[0]);
}

void AddGated(CohortCudaDevice* device, const CohortCudaTensor* x, const CohortCudaTensor* gate,
              const CohortCudaTensor* out) noexcept {
  if (out->dims[0] == 0 || out->dims[1] == 0) {
    return;
  }
  Activate(device);
  WithActivation(gate->dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    if (CutsIntoPacks(out->dims[1], 4, {x, out})) {
      LaunchAddGated<T, 4>(device, *x, *gate, *out);
    } else {
      LaunchAddGated<T, 1>(device, *x, *gate, *out);
    }
  });
}

}  // namespace cohort::cuda
