// LocalCandidates and RecordedCandidates: what one rank tells of rows of logits.
//
// Summarise: a block goes over kBlockColumns columns of one row (blockIdx.y) and leaves, of every
// stretch of 64, the key of the largest logit. The last block of a row to finish selects from
// these keys a bound that as many stretches reach as candidates are wanted; only those stretches
// are read again, so the whole selection fits the registers of one block: 16 keys a thread, of the
// stretches, then of the logits in them. A radix selection (Alabi et al., "Fast k-selection
// algorithms for graphics processors", 2012) leaves exactly the wanted ones, each of which finds
// its place by counting the likelier ones. For one candidate a maximum over the blocks is all.
//
// Masses: a block sums the masses of kBlockColumns columns; integers, so atomics give the same bits
// in any order. The last block of a row writes the sum.
//
// Shared memory: a histogram of 256 words, 128 keys and 128 stretches.
#include <algorithm>

#include "kernels/candidates.h"
#include "kernels/cuda/candidates.cuh"
#include "kernels/cuda/entries.h"
#include "kernels/cuda/launch.h"

namespace cohort::cuda {
namespace {

constexpr int kKeys = kMaxStretches / kBlockThreads;  // of a thread
static_assert(kKeys * kBlockThreads == kMaxCandidates * kStretch);

// The settings of recorded steps lie in device memory.
struct RecordedRequests {
  const int32_t* sampling;  // [rows, kSamplingWords]
  int32_t candidates;
  __device__ RowRequest operator[](unsigned i) const {
    RowRequest request;
    request.row = static_cast<int32_t>(i);
    request.candidates = candidates;
    request.temperature = ReadSamplingRow(sampling + i * kSamplingWords).temperature;
    return request;
  }
};

// Leaves the keys of this block's stretches in `stretches` where it is not null, and merges its
// flags and its largest key into the row's state.
__device__ void ReadBlock(const RowReader& row, Word* stretches, RowState* state) {
  __shared__ Word largest;
  __shared__ unsigned flags;
  if (threadIdx.x == 0) {
    largest = 0;
    flags = 0;
  }
  __syncthreads();
  float best = -INFINITY;
  int32_t index = 0;
  unsigned mine = 0;
  for (int half = 0; half < 2; ++half) {
    const int32_t column = ColumnOfHalf(half);
    const Four four = row.Load(column);
    for (int i = 0; i < 4; ++i) {
      const float logit = four.at[i];
      mine |= logit != logit ? CandidateRecord::kNan : 0;
      mine |= logit - logit == 0 ? CandidateRecord::kFinite : 0;
      if (logit > best) {
        best = logit;
        index = column + i;
      }
    }
  }
  Word key = KeyOf(best, index);
  for (int lanes = 1; lanes < 8; lanes *= 2) {
    const Word other = __shfl_xor_sync(kAllLanes, key, lanes);
    key = other > key ? other : key;
  }
  if (stretches != nullptr && threadIdx.x % 8 == 0) {
    stretches[blockIdx.x * (kBlockColumns / kStretch) + threadIdx.x / 8] = key;
  }
  for (int lanes = 8; lanes < 32; lanes *= 2) {
    const Word other = __shfl_xor_sync(kAllLanes, key, lanes);
    key = other > key ? other : key;
  }
  mine = __reduce_or_sync(kAllLanes, mine);
  if (threadIdx.x % 32 == 0) {
    atomicMax(&largest, key);
    atomicOr(&flags, mine);
  }
  __syncthreads();
  if (threadIdx.x == 0) {
    atomicMax(&state->best, largest);
    atomicOr(&state->flags, flags);
  }
}

struct RecordWriter {
  const RowReader& row;
  int64_t first_id;
  int32_t* record;

  // The logit itself, not its key's: 0 and -0 have one key.
  __device__ void Write(unsigned place, Word key) const {
    const int32_t column = IndexOf(key);
    int32_t* words = record + CandidateRecord::Words(static_cast<int32_t>(place));
    words[0] = static_cast<int32_t>(first_id + column);
    words[1] = __float_as_int(row.logits[column]);
    words[2] = words[1];
  }
};

// Writes the `wanted` likeliest candidates, sorted; how many there are.
__device__ unsigned WriteLikeliest(const Word* stretches, unsigned wanted,
                                   const RecordWriter& writer) {
  __shared__ int32_t listed[kMaxCandidates];  // stretches that reach the bound
  __shared__ Word kept[kMaxCandidates];
  __shared__ unsigned listed_count;
  __shared__ unsigned kept_count;
  if (threadIdx.x == 0) {
    listed_count = 0;
    kept_count = 0;
  }
  Word keys[kKeys];
  const int32_t stretch_count = (writer.row.columns + kStretch - 1) / kStretch;
#pragma unroll
  for (int i = 0; i < kKeys; ++i) {
    const int32_t stretch = i * kBlockThreads + static_cast<int32_t>(threadIdx.x);
    keys[i] = stretch < stretch_count ? __ldcg(&stretches[stretch]) : 0;
  }
  Word bound = BoundOfLargest(keys, wanted);
#pragma unroll
  for (int i = 0; i < kKeys; ++i) {
    if (keys[i] >= bound) {
      listed[atomicAdd(&listed_count, 1u)] = i * kBlockThreads + static_cast<int32_t>(threadIdx.x);
    }
  }
  __syncthreads();
#pragma unroll
  for (int i = 0; i < kKeys; ++i) {
    const unsigned place = i * kBlockThreads + threadIdx.x;
    keys[i] = 0;
    if (place < listed_count * kStretch) {
      const int32_t column = listed[place / kStretch] * kStretch + place % kStretch;
      const Word key = KeyOf(writer.row[column], column);
      keys[i] = key >= bound ? key : 0;
    }
  }
  bound = BoundOfLargest(keys, wanted);
#pragma unroll
  for (int i = 0; i < kKeys; ++i) {
    if (keys[i] >= bound) {
      kept[atomicAdd(&kept_count, 1u)] = keys[i];
    }
  }
  __syncthreads();
  if (threadIdx.x < kept_count) {
    unsigned place = 0;
    for (unsigned i = 0; i < kept_count; ++i) {
      place += kept[i] > kept[threadIdx.x];
    }
    writer.Write(place, kept[threadIdx.x]);
  }
  return kept_count;
}

template <class Requests>
__global__ void __launch_bounds__(kBlockThreads, 2)
    SummariseKernel(Rows<const float> logits, const __grid_constant__ Requests requests,
                    Columns columns, SamplingScratch scratch, Rows<int32_t> out) {
  WaitForPredecessor();
  LaunchSuccessor();
  const RowRequest request = requests[blockIdx.y];
  int32_t* record = out[blockIdx.y];
  if (request.candidates == 0) {
    if (blockIdx.x == 0 && threadIdx.x < CandidateRecord::Words(0)) {
      record[threadIdx.x] = 0;
    }
    return;
  }
  const RowReader row = ReaderOf(logits, request, scratch, columns.valid);
  Word* stretches = scratch.stretches + blockIdx.y * kMaxStretches;
  RowState* state = scratch.states + blockIdx.y;
  ReadBlock(row, request.candidates > 1 ? stretches : nullptr, state);
  if (!IsLastOfRow(state)) {
    return;
  }
  const Word best = __ldcg(&state->best);
  const unsigned flags = __ldcg(&state->flags);
  const RecordWriter writer = {row, columns.first_id, record};
  unsigned count = 0;
  if ((flags & CandidateRecord::kNan) == 0 && best != 0) {
    count = request.candidates == 1
                ? 1
                : WriteLikeliest(stretches, static_cast<unsigned>(request.candidates), writer);
  }
  __syncthreads();  // every thread has read the state
  if (threadIdx.x == 0) {
    *state = {};
    if (count == 1 && request.candidates == 1) {
      writer.Write(0, best);
    }
    const bool has_target = request.target >= 0;
    record[0] = static_cast<int32_t>(flags) | (has_target ? CandidateRecord::kTarget : 0);
    record[1] = static_cast<int32_t>(count);
    record[2] = 0;
    record[3] = 0;
    record[4] = has_target ? __float_as_int(row.logits[request.target]) : 0;
  }
}

// Words 2 and 3 of the records that Summarise wrote, where a temperature asks for them.
template <class Requests>
__global__ void __launch_bounds__(kBlockThreads, 2)
    MassesKernel(Rows<const float> logits, const __grid_constant__ Requests requests,
                 Columns columns, SamplingScratch scratch, Rows<int32_t> out) {
  WaitForPredecessor();
  LaunchSuccessor();
  const RowRequest request = requests[blockIdx.y];
  int32_t* record = out[blockIdx.y];
  const CandidateRecord read(record);
  if (request.candidates == 0 || request.temperature == 0 || read.count() == 0) {
    return;
  }
  const RowReader row = ReaderOf(logits, request, scratch, columns.valid);
  const MassRule rule(read.candidate(0).logit, request.temperature, -INFINITY);
  Word mass = 0;
  for (int half = 0; half < 2; ++half) {
    const Four four = row.Load(ColumnOfHalf(half));
    for (int i = 0; i < 4; ++i) {
      mass += MassOfLogit(rule, four.at[i]);
    }
  }
  const Word total = SumOverBlock(mass).total;
  RowState* state = scratch.states + blockIdx.y;
  if (threadIdx.x == 0) {
    atomicAdd(&state->mass, total);
  }
  if (IsLastOfRow(state) && threadIdx.x == 0) {
    WriteWords(__ldcg(&state->mass), record + 2);
    *state = {};
  }
}

template <class Requests>
void Summarise(CohortCudaDevice* device, const Rows<const float>& logits, const Requests& requests,
               const Columns& columns, dim3 grid, bool with_masses, const Rows<int32_t>& out) {
  const LaunchShape shape = {grid, kBlockThreads, 0, true};
  const SamplingScratch& scratch = device->sampling->scratch();
  Launch(device, "Summarise", shape, SummariseKernel<Requests>, logits, requests, columns, scratch,
         out);
  if (with_masses) {
    Launch(device, "Masses", shape, MassesKernel<Requests>, logits, requests, columns, scratch,
           out);
  }
}

int32_t TargetColumn(const Columns& columns, int32_t target) {
  const int64_t column = target - columns.first_id;
  return target >= 0 && column >= 0 && column < columns.count ? static_cast<int32_t>(column) : -1;
}

}  // namespace

void LocalCandidates(CohortCudaDevice* device, const CohortCudaTensor* logits,
                     const CohortCudaCandidateRequest* requests,
                     const CohortCudaVocabularySlice* slice, const CohortCudaTensor* out) noexcept {
  Activate(device);
  const Columns columns = ColumnsOf(*logits, slice->first_id, slice->valid_ids);
  const int64_t rows = logits->dims[0];
  Rows<int32_t> records = RowsOf<int32_t>(*out);
  for (int64_t begin = 0; begin < rows;) {
    RowBatch batch(device, columns);
    bool with_masses = false;
    while (begin + batch.count() < rows &&
           batch.Fits(begin + batch.count(), requests[begin + batch.count()].edits)) {
      const int64_t row = begin + batch.count();
      RowRequest& request = batch.Add(row, requests[row].edits);
      request.candidates = requests[row].candidates;
      request.temperature = requests[row].temperature;
      request.target = TargetColumn(columns, requests[row].target);
      with_masses = with_masses || (request.candidates > 0 && request.temperature > 0);
    }
    batch.Upload();
    ApplyEdits(device, RowsOf<float>(*logits), batch);
    Summarise(device, RowsOf<const float>(*logits), batch.requests(), columns,
              {batch.blocks(), static_cast<unsigned>(batch.count())}, with_masses, records);
    RestoreEdits(device, RowsOf<float>(*logits), columns, batch, RawValues::kOfRecords, records);
    begin += batch.count();
    records.data += batch.count() * records.stride;
  }
}

void RecordedCandidates(CohortCudaDevice* device, const CohortCudaTensor* logits,
                        const CohortCudaTensor* sampling, int32_t candidates,
                        const CohortCudaVocabularySlice* slice,
                        const CohortCudaTensor* out) noexcept {
  Activate(device);
  const Columns columns = ColumnsOf(*logits, slice->first_id, slice->valid_ids);
  const Rows<int32_t> settings = RowsOf<int32_t>(*sampling);
  const unsigned blocks = BlocksOf(columns);
  const int64_t rows = logits->dims[0];
  for (int64_t begin = 0; begin < rows; begin += kMaxLaunchRows) {
    const int64_t count = std::min<int64_t>(rows - begin, kMaxLaunchRows);
    Rows<const float> from = RowsOf<const float>(*logits);
    from.data += begin * from.stride;
    Rows<int32_t> records = RowsOf<int32_t>(*out);
    records.data += begin * records.stride;
    const RecordedRequests requests = {settings.data + begin * kSamplingWords, candidates};
    Summarise(device, from, requests, columns, {blocks, static_cast<unsigned>(count)}, true,
              records);
  }
}

}  // namespace cohort::cuda
