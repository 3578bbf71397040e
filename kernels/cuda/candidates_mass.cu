// LocalMasses and LocalPick, and their twins of recorded steps: choosing among all columns of all
// ranks by probability mass.
//
// A block sums the masses of kBlockColumns columns of one request's row (blockIdx.y). In Masses
// the sums meet in an atomic (integers: any order gives the same bits) and the last block of the
// row writes it. In Pick they are kept apart; the last block of the row finds by them the block
// whose columns hold the wanted mass, computes that block's masses again, eight neighbouring
// columns a thread, and the one thread in whose columns the wanted mass lies walks to the id.
#include <algorithm>

#include "kernels/candidates.h"
#include "kernels/choice_rules.h"
#include "kernels/cuda/candidates.cuh"
#include "kernels/cuda/entries.h"
#include "kernels/cuda/launch.h"

namespace cohort::cuda {
namespace {

constexpr int kThreadColumns = kBlockColumns / kBlockThreads;

// Rows of recorded steps: what is asked of them lies in device memory. A row that is not chosen by
// mass has the temperature 0.
struct RecordedMassRequests {
  const int32_t* records;
  const int32_t* sampling;
  const int32_t* tokens;
  const int32_t* masses;  // of all ranks; null before they are known
  int32_t ranks;
  int32_t rank;
  int32_t words_of_rank;
  int64_t valid_ids;

  __device__ RowRequest operator[](unsigned i) const {
    RowRequest request;
    request.row = static_cast<int32_t>(i);
    request.wanted = kOtherRankPicks;
    const SamplingRow row = ReadSamplingRow(sampling + i * kSamplingWords);
    if (tokens[i] != kUndecided || !IsByMass(row, valid_ids)) {
      return request;
    }
    request.temperature = row.temperature;
    request.largest =
        LargestOfRecords(records + int64_t{i} * ranks * words_of_rank, ranks, words_of_rank);
    request.lowest = LowestByMinP(row, request.largest);
    if (masses != nullptr) {
      request.wanted = WantedOfRank(masses + int64_t{i} * ranks * 2, ranks, rank, row);
    }
    return request;
  }
};

__device__ MassRule RuleOf(const RowRequest& request) {
  return MassRule(request.largest, request.temperature, request.lowest);
}

// Of the block's columns, in every thread.
__device__ Word BlockMass(const RowReader& row, const MassRule& rule) {
  Word mass = 0;
  for (int half = 0; half < 2; ++half) {
    const Four four = row.Load(ColumnOfHalf(half));
    for (int i = 0; i < 4; ++i) {
      mass += MassOfLogit(rule, four.at[i]);
    }
  }
  return SumOverBlock(mass).total;
}

template <class Requests>
__global__ void __launch_bounds__(kBlockThreads, 2)
    MassKernel(Rows<const float> logits, const __grid_constant__ Requests requests, Columns columns,
               SamplingScratch scratch, Rows<int32_t> out) {
  WaitForPredecessor();
  LaunchSuccessor();
  const RowRequest request = requests[blockIdx.y];
  if (request.temperature == 0) {
    if (blockIdx.x == 0 && threadIdx.x == 0) {
      WriteWords(0, out[blockIdx.y]);
    }
    return;
  }
  const Word mass = BlockMass(ReaderOf(logits, request, scratch, columns.valid), RuleOf(request));
  RowState* state = scratch.states + blockIdx.y;
  if (threadIdx.x == 0) {
    atomicAdd(&state->mass, mass);
  }
  if (IsLastOfRow(state) && threadIdx.x == 0) {
    WriteWords(__ldcg(&state->mass), out[blockIdx.y]);
    *state = {};
  }
}

// The part of a cumulative mass that remains inside one of some neighbours, and which that is.
struct Place {
  int32_t index;  // -1: the masses end before
  Word wanted;
};

// Among the blocks of a row; one thread of the block finds it.
__device__ Place FindBlock(const Word* block_masses, Word wanted) {
  __shared__ Place found;
  const int32_t thread = static_cast<int32_t>(threadIdx.x);
  if (thread == 0) {
    found = {-1, 0};
  }
  static_assert(kMaxBlocks <= kBlockThreads);
  const Word mine = thread < static_cast<int32_t>(gridDim.x) ? __ldcg(&block_masses[thread]) : 0;
  const Word before = SumOverBlock(mine).before;
  if (before <= wanted && wanted - before < mine) {
    found = {thread, wanted - before};
  }
  __syncthreads();
  return found;
}

// The column of block `place` at which the cumulative mass exceeds the wanted one; one thread
// writes it.
__device__ void WriteColumn(const RowReader& row, const MassRule& rule, const Place& place,
                            int64_t first_id, int32_t* words) {
  const int32_t begin =
      place.index * kBlockColumns + static_cast<int32_t>(threadIdx.x) * kThreadColumns;
  Word masses[kThreadColumns];
  Word mine = 0;
  for (int i = 0; i < kThreadColumns; ++i) {
    masses[i] = MassOfLogit(rule, row[begin + i]);
    mine += masses[i];
  }
  const Word before = SumOverBlock(mine).before;
  if (before > place.wanted || place.wanted - before >= mine) {
    return;
  }
  Word wanted = place.wanted - before;
  int32_t column = begin;
#pragma unroll
  for (int i = 0; i < kThreadColumns; ++i) {
    if (column == begin + i && masses[i] <= wanted) {
      wanted -= masses[i];
      ++column;
    }
  }
  words[0] = static_cast<int32_t>(first_id + column);
  words[1] = __float_as_int(row.logits[column]);
}

template <class Requests>
__global__ void __launch_bounds__(kBlockThreads, 2)
    PickKernel(Rows<const float> logits, const __grid_constant__ Requests requests, Columns columns,
               SamplingScratch scratch, Rows<int32_t> out) {
  WaitForPredecessor();
  LaunchSuccessor();
  const RowRequest request = requests[blockIdx.y];
  int32_t* words = out[blockIdx.y];
  if (request.wanted == kOtherRankPicks) {
    if (blockIdx.x == 0 && threadIdx.x == 0) {
      words[0] = kNoToken;
      words[1] = 0;
    }
    return;
  }
  const RowReader row = ReaderOf(logits, request, scratch, columns.valid);
  const MassRule rule = RuleOf(request);
  const Word mass = BlockMass(row, rule);
  Word* block_masses = scratch.block_masses + blockIdx.y * kMaxBlocks;
  RowState* state = scratch.states + blockIdx.y;
  if (threadIdx.x == 0) {
    block_masses[blockIdx.x] = mass;
  }
  if (!IsLastOfRow(state)) {
    return;
  }
  if (threadIdx.x == 0) {
    *state = {};
  }
  const Place place = FindBlock(block_masses, request.wanted);
  if (place.index >= 0) {
    WriteColumn(row, rule, place, columns.first_id, words);
  } else if (threadIdx.x == 0) {  // the caller asked for more than there is
    words[0] = kNoToken;
    words[1] = 0;
  }
}

template <class Requests>
using KernelOf = void (*)(Rows<const float>, Requests, Columns, SamplingScratch, Rows<int32_t>);

void RunOverRequests(CohortCudaDevice* device, const char* name, KernelOf<RowRequests> kernel,
                     const CohortCudaTensor& logits, const CohortCudaMassRequest* requests,
                     const CohortCudaVocabularySlice& slice, const CohortCudaTensor& out,
                     RawValues raw) {
  Activate(device);
  const Columns columns = ColumnsOf(logits, slice.first_id, slice.valid_ids);
  const int64_t count = out.dims[0];
  Rows<int32_t> words = RowsOf<int32_t>(out);
  for (int64_t begin = 0; begin < count;) {
    RowBatch batch(device, columns);
    for (int64_t i = begin; i < count && batch.Fits(requests[i].row, requests[i].edits); ++i) {
      RowRequest& request = batch.Add(requests[i].row, requests[i].edits);
      request.temperature = requests[i].temperature;
      request.largest = requests[i].largest;
      request.lowest = requests[i].lowest;
      request.wanted = requests[i].wanted;
    }
    batch.Upload();
    ApplyEdits(device, RowsOf<float>(logits), batch);
    Launch(device, name, {{batch.blocks(), static_cast<unsigned>(batch.count())}, kBlockThreads},
           kernel, RowsOf<const float>(logits), batch.requests(), columns,
           device->sampling->scratch(), words);
    RestoreEdits(device, RowsOf<float>(logits), columns, batch, raw, words);
    begin += batch.count();
    words.data += batch.count() * words.stride;
  }
}

void RunOverRecorded(CohortCudaDevice* device, const char* name,
                     KernelOf<RecordedMassRequests> kernel, const CohortCudaTensor& logits,
                     RecordedMassRequests requests, const CohortCudaVocabularySlice& slice,
                     const CohortCudaTensor& out) {
  Activate(device);
  const Columns columns = ColumnsOf(logits, slice.first_id, slice.valid_ids);
  const unsigned blocks = BlocksOf(columns);
  Rows<const float> from = RowsOf<const float>(logits);
  Rows<int32_t> words = RowsOf<int32_t>(out);
  for (int64_t left = logits.dims[0]; left > 0; left -= kMaxLaunchRows) {
    const unsigned rows = static_cast<unsigned>(std::min<int64_t>(left, kMaxLaunchRows));
    Launch(device, name, {{blocks, rows}, kBlockThreads, 0, true}, kernel, from, requests, columns,
           device->sampling->scratch(), words);
    from.data += kMaxLaunchRows * from.stride;
    words.data += kMaxLaunchRows * words.stride;
    requests.records += int64_t{kMaxLaunchRows} * requests.ranks * requests.words_of_rank;
    requests.sampling += kMaxLaunchRows * kSamplingWords;
    requests.tokens += kMaxLaunchRows;
    if (requests.masses != nullptr) {
      requests.masses += int64_t{kMaxLaunchRows} * requests.ranks * 2;
    }
  }
}

RecordedMassRequests RequestsOf(const CohortCudaRecordedRows& rows,
                                const CohortCudaVocabularySlice& slice) {
  return {static_cast<const int32_t*>(rows.records.data),
          static_cast<const int32_t*>(rows.sampling.data),
          static_cast<const int32_t*>(rows.tokens.data),
          nullptr,
          static_cast<int32_t>(rows.ranks),
          0,
          static_cast<int32_t>(rows.records.dims[1] / rows.ranks),
          slice.valid_ids};
}

}  // namespace

void RecordedMasses(CohortCudaDevice* device, const CohortCudaTensor* logits,
                    const CohortCudaRecordedRows* rows, const CohortCudaVocabularySlice* slice,
                    const CohortCudaTensor* out) noexcept {
  RunOverRecorded(device, "RecordedMasses", MassKernel<RecordedMassRequests>, *logits,
                  RequestsOf(*rows, *slice), *slice, *out);
}

void RecordedPicks(CohortCudaDevice* device, const CohortCudaTensor* logits,
                   const CohortCudaRecordedRows* rows, const CohortCudaTensor* masses, int64_t rank,
                   const CohortCudaVocabularySlice* slice, const CohortCudaTensor* out) noexcept {
  RecordedMassRequests requests = RequestsOf(*rows, *slice);
  requests.masses = static_cast<const int32_t*>(masses->data);
  requests.rank = static_cast<int32_t>(rank);
  RunOverRecorded(device, "RecordedPicks", PickKernel<RecordedMassRequests>, *logits, requests,
                  *slice, *out);
}

void LocalMasses(CohortCudaDevice* device, const CohortCudaTensor* logits,
                 const CohortCudaMassRequest* requests, const CohortCudaVocabularySlice* slice,
                 const CohortCudaTensor* out) noexcept {
  RunOverRequests(device, "LocalMasses", MassKernel<RowRequests>, *logits, requests, *slice, *out,
                  RawValues::kNone);
}

void LocalPick(CohortCudaDevice* device, const CohortCudaTensor* logits,
               const CohortCudaMassRequest* requests, const CohortCudaVocabularySlice* slice,
               const CohortCudaTensor* out) noexcept {
  RunOverRequests(device, "LocalPick", PickKernel<RowRequests>, *logits, requests, *slice, *out,
                  RawValues::kOfPicks);
}

}  // namespace cohort::cuda
