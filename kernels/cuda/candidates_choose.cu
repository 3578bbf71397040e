// ChooseRecorded: CandidateChooser (kernels/candidate_choice.h) on the device, with the same rules
// (kernels/choice_rules.h), so that the token of a recorded step is the host's to the bit.
//
// A block handles one row. Each candidate of each rank finds its place among all by a binary search
// in the ranks' sorted lists; top-k, top-p and min-p then cut the merged list to a length; and the
// one candidate at which the cumulative mass in the order of ids exceeds the wanted part writes the
// token. A greedy row ends after a maximum over the ranks. TakePicks: a thread handles one row.
//
// Dynamic shared memory: for all ranks' candidates their keys by rank, which their masses replace
// once they are merged, and their keys merged.
#include <algorithm>

#include "kernels/candidates.h"
#include "kernels/choice_rules.h"
#include "kernels/cuda/candidates.cuh"
#include "kernels/cuda/entries.h"
#include "kernels/cuda/launch.h"

namespace cohort::cuda {
namespace {

constexpr int kThreads = 256;                       // at most
constexpr std::size_t kMaxSharedBytes = 96 * 1024;  // what every device has

struct Records {
  const int32_t* words;
  int32_t ranks;
  int32_t words_of_rank;

  __device__ CandidateRecord Of(int32_t rank) const {
    return CandidateRecord(words + rank * words_of_rank);
  }
  __device__ int32_t asked() const {
    return static_cast<int32_t>(CandidateRecord::Candidates(words_of_rank));
  }
};

// What all records tell together; the same in every thread.
struct Whole {
  unsigned flags;
  bool has_all;  // ids that are not listed have no mass
  Word bound;    // unlisted ids lie below it
};

// Fills `lists` [ranks, asked] with the candidates' keys, 0 behind the last of a rank.
__device__ Whole ReadRecords(const Records& records, Word* lists) {
  __shared__ Whole whole;
  const int32_t asked = records.asked();
  const int32_t threads = static_cast<int32_t>(blockDim.x);
  const int32_t thread = static_cast<int32_t>(threadIdx.x);
  if (thread == 0) {
    whole = {0, true, 0};
  }
  __syncthreads();
  for (int32_t place = thread; place < records.ranks * asked; place += threads) {
    const CandidateRecord record = records.Of(place / asked);
    const int32_t i = place % asked;
    lists[place] = 0;
    if (i < record.count()) {
      const Candidate candidate = record.candidate(i);
      lists[place] = KeyOf(candidate.logit, candidate.id);
      if (i == asked - 1) {
        atomicMax(&whole.bound, lists[place]);
        whole.has_all = false;
      }
    }
    if (i == 0) {
      atomicOr(&whole.flags,
               static_cast<unsigned>((record.has_nan() ? CandidateRecord::kNan : 0) |
                                     (record.has_finite() ? CandidateRecord::kFinite : 0)));
    }
  }
  __syncthreads();
  return whole;
}

__device__ Word LargestOf(const Word* lists, const Records& records) {
  Word largest = 0;
  for (int32_t rank = 0; rank < records.ranks; ++rank) {
    const Word first = lists[rank * records.asked()];
    largest = first > largest ? first : largest;
  }
  return largest;
}

// How many keys of a descending list are larger.
__device__ int32_t CountLarger(const Word* list, int32_t length, Word key) {
  int32_t begin = 0;
  while (begin < length) {
    const int32_t middle = (begin + length) / 2;
    if (list[middle] > key) {
      begin = middle + 1;
    } else {
      length = middle;
    }
  }
  return begin;
}

// Fills `merged` with all keys from the bound on, descending; how many they are.
__device__ int32_t Merge(const Word* lists, const Records& records, Word bound, Word* merged) {
  const int32_t asked = records.asked();
  Word mine = 0;
  for (int32_t place = static_cast<int32_t>(threadIdx.x); place < records.ranks * asked;
       place += static_cast<int32_t>(blockDim.x)) {
    const Word key = lists[place];
    if (key == 0 || key < bound) {
      continue;
    }
    int32_t larger = 0;
    for (int32_t rank = 0; rank < records.ranks; ++rank) {
      larger += CountLarger(lists + rank * asked, asked, key);
    }
    merged[larger] = key;
    ++mine;
  }
  return static_cast<int32_t>(SumOverBlock(mine).total);
}

// The merged candidates and their masses.
struct Candidates {
  const Word* keys;
  Word* masses;
  int32_t length;

  __device__ void SetMasses(float temperature) {
    const MassRule rule(LogitOf(keys[0]), temperature, -INFINITY);
    for (int32_t i = static_cast<int32_t>(threadIdx.x); i < length;
         i += static_cast<int32_t>(blockDim.x)) {
      masses[i] = MassOfLogit(rule, LogitOf(keys[i]));
    }
    __syncthreads();
  }
  __device__ Word Mass() const {
    Word mine = 0;
    for (int32_t i = static_cast<int32_t>(threadIdx.x); i < length;
         i += static_cast<int32_t>(blockDim.x)) {
      mine += masses[i];
    }
    return SumOverBlock(mine).total;
  }
  // The shortest prefix whose mass reaches `wanted`; all when it does not. Each thread adds up some
  // neighbours.
  __device__ int32_t PrefixReaching(Word wanted) const {
    __shared__ int32_t reached;
    wanted = wanted == 0 ? 1 : wanted;
    const int32_t threads = static_cast<int32_t>(blockDim.x);
    const int32_t some = (length + threads - 1) / threads;
    const int32_t begin = min(static_cast<int32_t>(threadIdx.x) * some, length);
    const int32_t end = min(begin + some, length);
    Word mine = 0;
    for (int32_t i = begin; i < end; ++i) {
      mine += masses[i];
    }
    __syncthreads();  // `reached` may still be read from the call before
    if (threadIdx.x == 0) {
      reached = length;
    }
    Word mass = SumOverBlock(mine).before;
    if (mass < wanted && wanted - mass <= mine) {
      int32_t i = begin;
      for (mass += masses[i]; mass < wanted; mass += masses[i]) {
        ++i;
      }
      reached = i + 1;
    }
    __syncthreads();
    return reached;
  }
  __device__ int32_t CountFrom(float lowest) const {
    Word mine = 0;
    for (int32_t i = static_cast<int32_t>(threadIdx.x); i < length;
         i += static_cast<int32_t>(blockDim.x)) {
      mine += LogitOf(keys[i]) >= lowest;
    }
    return static_cast<int32_t>(SumOverBlock(mine).total);
  }
};

// Cuts the candidates to what top-p keeps of the row; false where that cannot be told.
__device__ bool CutByTopP(const Records& records, const SamplingRow& row, bool has_all,
                          int64_t valid_ids, Candidates* candidates) {
  if (has_all) {
    candidates->length = candidates->PrefixReaching(WantedByTopP(row.top_p, candidates->Mass()));
    return true;
  }
  TotalMass total(LogitOf(candidates->keys[0]), row.temperature);
  for (int32_t rank = 0; rank < records.ranks; ++rank) {
    const CandidateRecord record = records.Of(rank);
    if (record.count() > 0) {
      total.Add(record.mass(), record.candidate(0).logit);
    }
  }
  const MassBounds bounds = total.Bounds(valid_ids);
  const Word wanted = WantedByTopP(row.top_p, bounds.most);
  const int32_t shortest = candidates->PrefixReaching(WantedByTopP(row.top_p, bounds.least));
  candidates->length = candidates->PrefixReaching(wanted);
  return shortest == candidates->length && candidates->Mass() >= wanted;
}

// Leaves the candidates among which the token is drawn; false where the records do not tell them.
__device__ bool Filter(const Records& records, const SamplingRow& row, bool has_all,
                       int64_t valid_ids, Candidates* candidates) {
  const float lowest = LowestByMinP(row, LogitOf(candidates->keys[0]));
  if (HasTopK(row, valid_ids)) {
    if (row.top_k > records.asked()) {
      return false;
    }
    candidates->length = min(candidates->length, row.top_k);
    has_all = true;
  } else if (IsByMass(row, valid_ids) && !has_all &&
             !(LogitOf(candidates->keys[candidates->length - 1]) < lowest)) {
    return false;
  }
  candidates->SetMasses(row.temperature);
  if (row.top_p < 1 && !CutByTopP(records, row, has_all, valid_ids, candidates)) {
    return false;
  }
  candidates->length = candidates->CountFrom(lowest);
  return true;
}

// One thread writes the id at which the cumulative mass, in the order of ids, exceeds the row's
// part.
__device__ void Pick(const Candidates& candidates, const SamplingRow& row, int32_t* token) {
  const Word wanted = PartOfMass(candidates.Mass(), UniformOf(row));
  for (int32_t i = static_cast<int32_t>(threadIdx.x); i < candidates.length;
       i += static_cast<int32_t>(blockDim.x)) {
    const int32_t id = IndexOf(candidates.keys[i]);
    Word before = 0;
    for (int32_t j = 0; j < candidates.length; ++j) {
      before += IndexOf(candidates.keys[j]) < id ? candidates.masses[j] : 0;
    }
    if (before <= wanted && wanted - before < candidates.masses[i]) {
      *token = id;
    }
  }
}

__global__ void __launch_bounds__(kThreads)
    ChooseKernel(const int32_t* words, int32_t ranks, int32_t words_of_rank,
                 const int32_t* sampling, int64_t valid_ids, int32_t* tokens) {
  WaitForPredecessor();
  LaunchSuccessor();
  const Records records = {words + int64_t{blockIdx.x} * ranks * words_of_rank, ranks,
                           words_of_rank};
  const SamplingRow row = ReadSamplingRow(sampling + blockIdx.x * kSamplingWords);
  int32_t* token = tokens + blockIdx.x;
  Word* lists = reinterpret_cast<Word*>(DynamicShared());
  Word* merged = lists + ranks * records.asked();
  const Whole whole = ReadRecords(records, lists);
  const bool has_token =
      (whole.flags & CandidateRecord::kNan) == 0 && (whole.flags & CandidateRecord::kFinite) != 0;
  if (!has_token || row.temperature == 0) {
    if (threadIdx.x == 0) {
      *token = has_token ? IndexOf(LargestOf(lists, records)) : kNoToken;
    }
    return;
  }
  const int32_t length = Merge(lists, records, whole.bound, merged);
  Candidates candidates = {merged, lists, length};
  if (!Filter(records, row, whole.has_all, valid_ids, &candidates)) {
    if (threadIdx.x == 0) {
      *token = kUndecided;
    }
    return;
  }
  Pick(candidates, row, token);
}

__global__ void TakePicksKernel(const int32_t* picks, int32_t ranks, int32_t rows,
                                int32_t* tokens) {
  WaitForPredecessor();
  LaunchSuccessor();
  const int32_t row = static_cast<int32_t>(blockIdx.x * blockDim.x + threadIdx.x);
  if (row >= rows || tokens[row] != kUndecided) {
    return;
  }
  for (int32_t rank = 0; rank < ranks; ++rank) {
    const int32_t pick = picks[(row * ranks + rank) * 2];
    if (pick >= 0) {
      tokens[row] = pick;
    }
  }
}

}  // namespace

void TakePicks(CohortCudaDevice* device, const CohortCudaTensor* picks,
               const CohortCudaTensor* tokens) noexcept {
  Activate(device);
  const int32_t rows = static_cast<int32_t>(picks->dims[0]);
  const unsigned blocks = static_cast<unsigned>((rows + kThreads - 1) / kThreads);
  Launch(device, "TakePicks", {blocks, kThreads, 0, true}, TakePicksKernel,
         static_cast<const int32_t*>(picks->data), static_cast<int32_t>(picks->dims[1] / 2), rows,
         static_cast<int32_t*>(tokens->data));
}

void ChooseRecorded(CohortCudaDevice* device, const CohortCudaTensor* records, int64_t ranks,
                    const CohortCudaTensor* sampling, int64_t valid_ids,
                    const CohortCudaTensor* tokens) noexcept {
  Activate(device);
  const int32_t words = static_cast<int32_t>(records->dims[1] / ranks);
  const int64_t asked = CandidateRecord::Candidates(words);
  const std::size_t shared_bytes = static_cast<std::size_t>(2 * ranks * asked) * sizeof(Word);
  if (shared_bytes > kMaxSharedBytes) {
    Stick(device, MakeError(kCohortCudaInvalidArgument,
                            "ChooseRecorded: %lld candidates of each of %lld ranks, at most %lld "
                            "together are supported on CUDA",
                            static_cast<long long>(asked), static_cast<long long>(ranks),
                            static_cast<long long>(kMaxSharedBytes / (2 * sizeof(Word)))));
    return;
  }
  const unsigned threads =
      static_cast<unsigned>(std::clamp<int64_t>((ranks * asked + 31) / 32 * 32, 32, kThreads));
  Launch(device, "ChooseRecorded",
         {static_cast<unsigned>(records->dims[0]), threads, shared_bytes, true}, ChooseKernel,
         static_cast<const int32_t*>(records->data), static_cast<int32_t>(ranks), words,
         static_cast<const int32_t*>(sampling->data), valid_ids,
         static_cast<int32_t*>(tokens->data));
}

}  // namespace cohort::cuda
