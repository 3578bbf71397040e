// Choosing a token. One block handles one row of logits.
//
// Probability masses are integers: exp((logit - largest) / temperature) * 2^44, rounded. Integer
// sums do not depend on their order, so atomics and any cut over threads give the same bits, and
// 2^19 ids still fit in 64 bits. What rounds to 0 is below 2^-44 of the likeliest id.
#include <algorithm>
#include <cmath>

#include "kernels/cuda/device.h"
#include "kernels/cuda/entries.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/rows.cuh"
#include "kernels/philox.h"

namespace cohort::cuda {
namespace {

constexpr int kThreads = 1024;
constexpr int kRowsPerLaunch = 128;  // their settings travel in the kernel's parameters
constexpr int64_t kMaxIds = int64_t{1} << 19;
constexpr double kMassOfLargest = 17592186044416.0;  // 2^44

struct Choice {
  float temperature;
  float top_p;
  int32_t top_k;
  uint32_t uniform;  // 24 bits
};
struct Choices {
  Choice row[kRowsPerLaunch];
};

// Unique per id, ascending with the logit and, among equal logits, descending with the id.
__device__ uint64_t KeyOf(float logit, int64_t id) {
  const uint32_t bits = __float_as_uint(logit == 0 ? 0.0f : logit);
  const uint32_t ordered = (bits & 0x80000000u) != 0 ? ~bits : bits | 0x80000000u;
  return (uint64_t{ordered} << 32) | (0xffffffffu - static_cast<uint32_t>(id));
}
__device__ int32_t IdOf(uint64_t key) {
  return static_cast<int32_t>(0xffffffffu - static_cast<uint32_t>(key));
}

// The valid part of one row and how it is sampled.
struct RowView {
  const float* logits;
  int64_t ids;
  float largest;
  float temperature;

  __device__ uint64_t Key(int64_t id) const { return KeyOf(logits[id], id); }
  // An infinite largest logit has the mass of 1 too.
  __device__ uint64_t Mass(int64_t id) const {
    const float logit = logits[id];
    return static_cast<uint64_t>(__double2ull_rn(
        kMassOfLargest *
        (logit == largest ? 1.0 : exp((double{logit} - double{largest}) / double{temperature}))));
  }
};

using Word = unsigned long long;  // what atomicAdd takes for 64 bits

// The sum over the block, in every thread.
__device__ uint64_t BlockSumOfWords(uint64_t value) {
  __shared__ Word total;
  __syncthreads();
  if (threadIdx.x == 0) {
    total = 0;
  }
  __syncthreads();
  atomicAdd(&total, static_cast<Word>(value));
  __syncthreads();
  return total;
}

// The largest key of the row; 0 when a logit is NaN or none is finite.
__device__ uint64_t LargestKey(const float* logits, int64_t ids) {
  __shared__ Word largest;
  Word mine = 0;
  bool has_nan = false;
  bool has_finite = false;
  for (int64_t id = threadIdx.x; id < ids; id += kThreads) {
    const float logit = logits[id];
    has_nan = has_nan || isnan(logit);
    has_finite = has_finite || isfinite(logit);
    const Word key = KeyOf(logit, id);
    mine = key > mine ? key : mine;
  }
  if (threadIdx.x == 0) {
    largest = 0;
  }
  const bool any_nan = __syncthreads_or(has_nan) != 0;
  const bool any_finite = __syncthreads_or(has_finite) != 0;
  atomicMax(&largest, mine);
  __syncthreads();
  return any_nan || !any_finite ? 0 : largest;
}

// The largest key k with: the weights of the keys in [k, infinity) reach `wanted`. Only keys from
// `lowest` on count; their weights reach `wanted` together. Goes over the row once per byte of the
// key, the highest first, with a histogram of weights over that byte's values.
template <class Weight>
__device__ uint64_t KeyReaching(const RowView& row, uint64_t lowest, uint64_t wanted,
                                Weight weight) {
  __shared__ Word histogram[256];
  __shared__ Word above;  // weight of the keys above those that start with `prefix`
  __shared__ Word prefix;
  __syncthreads();
  if (threadIdx.x == 0) {
    above = 0;
    prefix = 0;
  }
  for (int shift = 56; shift >= 0; shift -= 8) {
    if (threadIdx.x < 256) {
      histogram[threadIdx.x] = 0;
    }
    __syncthreads();
    for (int64_t id = threadIdx.x; id < row.ids; id += kThreads) {
      const uint64_t key = row.Key(id);
      const bool fits = shift == 56 || (key >> (shift + 8)) == prefix;
      if (fits && key >= lowest) {
        atomicAdd(&histogram[(key >> shift) & 0xff], static_cast<Word>(weight(id)));
      }
    }
    __syncthreads();
    if (threadIdx.x == 0) {
      int byte = 255;
      while (byte > 0 && above + histogram[byte] < wanted) {
        above += histogram[byte];
        --byte;
      }
      prefix = (prefix << 8) | static_cast<Word>(byte);
    }
    __syncthreads();
  }
  return prefix;
}

// The first id, ascending, at which the cumulative mass of the kept ids exceeds uniform / 2^24 of
// their total. Each thread owns a stretch of neighbouring ids.
__device__ int32_t InverseCdf(const RowView& row, uint64_t lowest, uint32_t uniform) {
  __shared__ Word mass_of_thread[kThreads];
  __shared__ int32_t chosen;
  const int64_t stretch = (row.ids + kThreads - 1) / kThreads;
  const int64_t begin = min(static_cast<int64_t>(threadIdx.x) * stretch, row.ids);
  const int64_t end = min(begin + stretch, row.ids);
  const auto mass_of = [&](int64_t id) { return row.Key(id) >= lowest ? row.Mass(id) : 0; };
  uint64_t mine = 0;
  for (int64_t id = begin; id < end; ++id) {
    mine += mass_of(id);
  }
  mass_of_thread[threadIdx.x] = mine;
  const uint64_t total = BlockSumOfWords(mine);
  // floor(total * uniform / 2^24), below total.
  const uint64_t wanted = __umul64hi(total, uint64_t{uniform} << 40);
  uint64_t before = 0;
  for (unsigned thread = 0; thread < threadIdx.x; ++thread) {
    before += mass_of_thread[thread];
  }
  if (before <= wanted && wanted < before + mine) {  // one thread only
    int64_t id = begin;
    for (uint64_t mass = before + mass_of(id); mass <= wanted; mass += mass_of(id)) {
      ++id;
    }
    chosen = static_cast<int32_t>(id);
  }
  __syncthreads();
  return chosen;
}

__global__ void __launch_bounds__(kThreads, 1)
    SampleKernel(Rows<const float> logits, Choices choices, int64_t ids, int32_t* out) {
  const Choice choice = choices.row[blockIdx.x];
  const uint64_t best = LargestKey(logits[blockIdx.x], ids);
  int32_t chosen = best == 0 ? -1 : IdOf(best);
  if (best != 0 && choice.temperature != 0) {
    const RowView row = {logits[blockIdx.x], ids, logits[blockIdx.x][chosen], choice.temperature};
    uint64_t lowest = 0;
    if (choice.top_k > 0 && choice.top_k < ids) {
      lowest = KeyReaching(row, 0, static_cast<uint64_t>(choice.top_k),
                           [](int64_t) { return uint64_t{1}; });
    }
    if (choice.top_p < 1) {
      uint64_t mine = 0;
      for (int64_t id = threadIdx.x; id < ids; id += kThreads) {
        mine += row.Key(id) >= lowest ? row.Mass(id) : 0;
      }
      const double total = static_cast<double>(BlockSumOfWords(mine));
      const uint64_t wanted = static_cast<uint64_t>(ceil(double{choice.top_p} * total));
      lowest = KeyReaching(row, lowest, wanted, [&](int64_t id) { return row.Mass(id); });
    }
    chosen = InverseCdf(row, lowest, choice.uniform);
  }
  if (threadIdx.x == 0) {
    out[blockIdx.x] = chosen;
  }
}

}  // namespace

void Sample(CohortCudaDevice* device, const CohortCudaTensor* logits,
            const CohortCudaSamplingRow* rows, int64_t valid_ids,
            const CohortCudaTensor* out) noexcept {
  if (valid_ids > kMaxIds) {
    Stick(device, MakeError(kCohortCudaInvalidArgument,
                            "Sample: %lld ids, at most %lld are supported on CUDA",
                            static_cast<long long>(valid_ids), static_cast<long long>(kMaxIds)));
    return;
  }
  Activate(device);
  const int64_t count = logits->dims[0];
  for (int64_t begin = 0; begin < count; begin += kRowsPerLaunch) {
    const int64_t here = std::min<int64_t>(count - begin, kRowsPerLaunch);
    Choices choices{};
    for (int64_t i = 0; i < here; ++i) {
      const CohortCudaSamplingRow& row = rows[begin + i];
      const float uniform = PhiloxUniform(row.seed, row.sequence_index, row.position);
      choices.row[i] = {row.temperature, row.top_p, row.top_k,
                        static_cast<uint32_t>(uniform * 0x1p24f)};
    }
    Rows<const float> from = RowsOf<const float>(*logits);
    from.data += begin * from.stride;
    Launch(device, "Sample", {static_cast<unsigned>(here), kThreads}, SampleKernel, from, choices,
           valid_ids, static_cast<int32_t*>(out->data) + begin);
  }
}

}  // namespace cohort::cuda
