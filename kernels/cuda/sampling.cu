// Sample, SampleUndecided: a token of a whole row of logits. The way of rows that the records of
// candidates do not decide: top-k beyond them, or a flat top-p. The first has the rows' settings in
// its parameters, the second finds them in device memory and leaves rows alone that have a token.
//
// One block handles one row, with a thread per id but 1024 at most, and goes over it several times:
// for the largest logit; for the key from which on top-k, then top-p keep the ids, by a radix
// selection (a histogram of counts or of masses over eight bits of the keys a pass, the highest
// first); and for the inverse CDF, in which each thread owns a stretch of neighbouring ids. Masses
// are integers (mass_rule.h), so atomics and any cut over threads give the same bits.
//
// Shared memory: a histogram of 256 words.
#include <algorithm>

#include "kernels/choice_rules.h"
#include "kernels/cuda/candidates.cuh"
#include "kernels/cuda/entries.h"
#include "kernels/cuda/launch.h"

namespace cohort::cuda {
namespace {

constexpr int kMaxThreads = 1024;
constexpr int kRowsPerLaunch = 64;  // their settings travel in the kernel's parameters

struct Settings {
  SamplingRow row[kRowsPerLaunch];
};

// The valid part of one row.
struct RowView {
  const float* logits;
  int32_t ids;

  __device__ Word Key(int32_t id) const { return KeyOf(logits[id], id); }
};

struct Largest {
  Word key;      // 0: no token can be chosen
  Word choices;  // ids that are not minus infinity
};

__device__ Largest FindLargest(const RowView& row) {
  __shared__ Word largest;
  Word mine = 0;
  Word choices = 0;
  bool has_nan = false;
  bool has_finite = false;
  for (int32_t id = static_cast<int32_t>(threadIdx.x); id < row.ids;
       id += static_cast<int32_t>(blockDim.x)) {
    const float logit = row.logits[id];
    has_nan = has_nan || logit != logit;
    has_finite = has_finite || logit - logit == 0;
    const Word key = KeyOf(logit, id);
    choices += key != 0;
    mine = key > mine ? key : mine;
  }
  if (threadIdx.x == 0) {
    largest = 0;
  }
  const bool any_nan = __syncthreads_or(has_nan) != 0;
  const bool any_finite = __syncthreads_or(has_finite) != 0;
  atomicMax(&largest, mine);
  choices = SumOverBlock(choices).total;  // a barrier too
  return {any_nan || !any_finite ? 0 : largest, choices};
}

// The largest key k with: the weights of the keys in [k, infinity) reach `wanted`. Only keys from
// `lowest` on count; their weights reach `wanted`, which is above 0, together.
template <class Weight>
__device__ Word KeyReaching(const RowView& row, Word lowest, Word wanted, Weight weight) {
  __shared__ Word histogram[256];
  __shared__ Bin<Word> bin;
  Word prefix = 0;
  for (int shift = 56;; shift -= 8) {
    for (int i = static_cast<int>(threadIdx.x); i < 256; i += static_cast<int>(blockDim.x)) {
      histogram[i] = 0;
    }
    __syncthreads();
    for (int32_t id = static_cast<int32_t>(threadIdx.x); id < row.ids;
         id += static_cast<int32_t>(blockDim.x)) {
      const Word key = row.Key(id);
      if ((shift == 56 || key >> (shift + 8) == prefix) && key >= lowest && key != 0) {
        atomicAdd(&histogram[key >> shift & 0xff], weight(id));
      }
    }
    __syncthreads();
    if (threadIdx.x < 32) {
      FindBin(histogram, wanted, &bin);
    }
    __syncthreads();
    prefix = prefix << 8 | bin.digit;
    wanted -= bin.above;
    if (bin.inside == wanted || shift == 0) {  // the wanted sum ends with this bin
      const Word bound = prefix << shift;
      __syncthreads();  // all have read the bin
      return bound > lowest ? bound : lowest;
    }
  }
}

// The first id, ascending, at which the cumulative mass of the kept ids exceeds the row's part of
// all their masses.
__device__ int32_t InverseCdf(const RowView& row, const MassRule& rule, Word lowest,
                              uint32_t uniform) {
  __shared__ int32_t chosen;
  const int32_t threads = static_cast<int32_t>(blockDim.x);
  const int32_t stretch = (row.ids + threads - 1) / threads;
  const int32_t begin = min(static_cast<int32_t>(threadIdx.x) * stretch, row.ids);
  const int32_t end = min(begin + stretch, row.ids);
  const auto mass_of = [&](int32_t id) {
    return row.Key(id) >= lowest ? MassOfLogit(rule, row.logits[id]) : 0;
  };
  Word mine = 0;
  for (int32_t id = begin; id < end; ++id) {
    mine += mass_of(id);
  }
  const BlockSums sums = SumOverBlock(mine);
  const Word wanted = PartOfMass(sums.total, uniform);
  if (sums.before <= wanted && wanted - sums.before < mine) {  // one thread only
    int32_t id = begin;
    for (Word mass = sums.before + mass_of(id); mass <= wanted; mass += mass_of(id)) {
      ++id;
    }
    chosen = id;
  }
  __syncthreads();
  return chosen;
}

// By the whole block; every thread gets the token.
__device__ int32_t ChooseFrom(const RowView& row, const SamplingRow& choice) {
  const int32_t ids = row.ids;
  const Largest largest = FindLargest(row);
  int32_t chosen = largest.key == 0 ? kNoToken : IndexOf(largest.key);
  if (largest.key != 0 && choice.temperature != 0) {
    const float logit = LogitOf(largest.key);
    const MassRule rule(logit, choice.temperature, -INFINITY);
    const auto mass_of = [&](int32_t id) { return Word{MassOfLogit(rule, row.logits[id])}; };
    Word lowest = 1;
    if (HasTopK(choice, ids) && static_cast<Word>(choice.top_k) < largest.choices) {
      lowest = KeyReaching(row, lowest, static_cast<Word>(choice.top_k),
                           [](int32_t) { return Word{1}; });
    }
    if (choice.top_p < 1) {
      Word mine = 0;
      for (int32_t id = static_cast<int32_t>(threadIdx.x); id < ids;
           id += static_cast<int32_t>(blockDim.x)) {
        mine += row.Key(id) >= lowest ? mass_of(id) : 0;
      }
      const Word total = SumOverBlock(mine).total;
      lowest = KeyReaching(row, lowest, WantedByTopP(choice.top_p, total), mass_of);
    }
    const MassRule kept(logit, choice.temperature, LowestByMinP(choice, logit));
    chosen = InverseCdf(row, kept, lowest, UniformOf(choice));
  }
  return chosen;
}

__global__ void __launch_bounds__(kMaxThreads, 1)
    SampleKernel(Rows<const float> logits, const __grid_constant__ Settings settings, int32_t ids,
                 int32_t* out) {
  WaitForPredecessor();
  const int32_t chosen = ChooseFrom({logits[blockIdx.x], ids}, settings.row[blockIdx.x]);
  if (threadIdx.x == 0) {
    out[blockIdx.x] = chosen;
  }
}

__global__ void __launch_bounds__(kMaxThreads, 1)
    SampleUndecidedKernel(Rows<const float> logits, Rows<const int32_t> sampling, int32_t ids,
                          int32_t* tokens) {
  WaitForPredecessor();
  LaunchSuccessor();
  // All threads have read before one writes: ChooseFrom begins with a barrier.
  if (tokens[blockIdx.x] != kUndecided) {
    return;
  }
  const SamplingRow choice = ReadSamplingRow(sampling[blockIdx.x]);
  const int32_t chosen = ChooseFrom({logits[blockIdx.x], ids}, choice);
  if (threadIdx.x == 0) {
    tokens[blockIdx.x] = chosen;
  }
}

unsigned ThreadsFor(int64_t ids) {
  return static_cast<unsigned>(std::clamp<int64_t>((ids + 31) / 32 * 32, 32, kMaxThreads));
}

}  // namespace

void Sample(CohortCudaDevice* device, const CohortCudaTensor* logits,
            const CohortCudaSamplingRow* rows, int64_t valid_ids,
            const CohortCudaTensor* out) noexcept {
  Activate(device);
  const int64_t count = logits->dims[0];
  const unsigned threads = ThreadsFor(valid_ids);
  for (int64_t begin = 0; begin < count; begin += kRowsPerLaunch) {
    const int64_t here = std::min<int64_t>(count - begin, kRowsPerLaunch);
    Settings settings{};
    for (int64_t i = 0; i < here; ++i) {
      const CohortCudaSamplingRow& row = rows[begin + i];
      settings.row[i] = {row.temperature, row.top_p,          row.top_k,   row.min_p,
                         row.seed,        row.sequence_index, row.position};
    }
    Rows<const float> from = RowsOf<const float>(*logits);
    from.data += begin * from.stride;
    Launch(device, "Sample", {static_cast<unsigned>(here), threads}, SampleKernel, from, settings,
           static_cast<int32_t>(valid_ids), static_cast<int32_t*>(out->data) + begin);
  }
}

void SampleUndecided(CohortCudaDevice* device, const CohortCudaTensor* logits,
                     const CohortCudaTensor* sampling, int64_t valid_ids,
                     const CohortCudaTensor* tokens) noexcept {
  Activate(device);
  Launch(device, "SampleUndecided",
         {static_cast<unsigned>(logits->dims[0]), ThreadsFor(valid_ids), 0, true},
         SampleUndecidedKernel, RowsOf<const float>(*logits), RowsOf<const int32_t>(*sampling),
         static_cast<int32_t>(valid_ids), static_cast<int32_t*>(tokens->data));
}

}  // namespace cohort::cuda
