// Edits of logits: in place before the kernels that read them, and undone afterwards, so that no
// row is copied; EditLogits edits a copy. One thread handles one edit, a block 256 of one row
// (blockIdx.y); in Restore one block handles all of a row, then tells the raw logits of its record.
#include <algorithm>

#include "kernels/candidates.h"
#include "kernels/choice_rules.h"
#include "kernels/cuda/candidates.cuh"
#include "kernels/cuda/entries.h"
#include "kernels/cuda/launch.h"

namespace cohort::cuda {
namespace {

constexpr int kThreads = 256;

__global__ void ApplyKernel(Rows<float> logits, const __grid_constant__ RowRequests requests,
                            SamplingScratch scratch) {
  WaitForPredecessor();
  const RowRequest& request = requests.row[blockIdx.y];
  const int32_t i = static_cast<int32_t>(blockIdx.x * kThreads + threadIdx.x);
  if (i >= request.edits) {
    return;
  }
  DeviceEdit& edit = scratch.edits[request.first_edit + i];
  float& logit = logits[request.row][edit.column];
  const float raw = logit;
  logit =
      EditedLogit(raw, edit.bias, edit.penalty, edit.is_repeated != 0, request.repetition_penalty);
  edit.bias = raw;
}

// The raw logit beside an id, which a record's candidate has in its third word, a pick in its
// second.
__device__ void TellRaw(const float* logits, int64_t first_id, int32_t* words, int at) {
  words[at] = __float_as_int(logits[words[0] - first_id]);
}

__global__ void RestoreKernel(Rows<float> logits, const __grid_constant__ RowRequests requests,
                              Columns columns, SamplingScratch scratch, RawValues raw,
                              Rows<int32_t> out) {
  WaitForPredecessor();
  const RowRequest& request = requests.row[blockIdx.x];
  float* row = logits[request.row];
  for (int32_t i = static_cast<int32_t>(threadIdx.x); i < request.edits; i += kThreads) {
    const DeviceEdit& edit = scratch.edits[request.first_edit + i];
    row[edit.column] = edit.bias;
  }
  __syncthreads();
  if (request.edits == 0 || raw == RawValues::kNone) {
    return;
  }
  int32_t* words = out[blockIdx.x];
  if (raw == RawValues::kOfPicks) {
    if (threadIdx.x == 0 && words[0] >= 0) {
      TellRaw(row, columns.first_id, words, 1);
    }
    return;
  }
  if (static_cast<int32_t>(threadIdx.x) < words[1]) {
    TellRaw(row, columns.first_id,
            words + CandidateRecord::Words(static_cast<int32_t>(threadIdx.x)), 2);
  }
  if (threadIdx.x == 0 && request.candidates > 0 && request.target >= 0) {
    words[4] = __float_as_int(row[request.target]);
  }
}

__global__ void CopyAllowedKernel(Rows<const float> logits,
                                  const __grid_constant__ RowRequests requests, Columns columns,
                                  SamplingScratch scratch, Rows<float> out) {
  WaitForPredecessor();
  const RowRequest& request = requests.row[blockIdx.y];
  const RowReader row = ReaderOf(logits, request, scratch, columns.valid);
  const int32_t column = static_cast<int32_t>(blockIdx.x * kThreads + threadIdx.x);
  if (column < columns.valid) {
    out[request.row][column] = row[column];
  }
}

}  // namespace

void ApplyEdits(CohortCudaDevice* device, const Rows<float>& logits, const RowBatch& batch) {
  if (batch.most_edits() == 0) {
    return;
  }
  const dim3 grid(static_cast<unsigned>((batch.most_edits() + kThreads - 1) / kThreads),
                  static_cast<unsigned>(batch.count()));
  Launch(device, "ApplyEdits", {grid, kThreads}, ApplyKernel, logits, batch.requests(),
         device->sampling->scratch());
}

void RestoreEdits(CohortCudaDevice* device, const Rows<float>& logits, const Columns& columns,
                  const RowBatch& batch, RawValues raw, const Rows<int32_t>& out) {
  if (batch.most_edits() == 0) {
    return;
  }
  static_assert(kThreads >= kMaxCandidates);
  Launch(device, "RestoreEdits", {static_cast<unsigned>(batch.count()), kThreads}, RestoreKernel,
         logits, batch.requests(), columns, device->sampling->scratch(), raw, out);
}

void EditLogits(CohortCudaDevice* device, const CohortCudaTensor* logits,
                const CohortCudaLogitEdits* edits, int64_t first_id,
                const CohortCudaTensor* out) noexcept {
  Activate(device);
  const Columns columns = ColumnsOf(*logits, first_id, first_id + logits->dims[1]);
  const unsigned blocks = static_cast<unsigned>((columns.count + kThreads - 1) / kThreads);
  for (int64_t begin = 0; begin < logits->dims[0];) {
    RowBatch batch(device, columns);
    for (int64_t row = begin; row < logits->dims[0] && batch.Fits(row, edits[row]); ++row) {
      batch.Add(row, edits[row]);
    }
    batch.Upload();
    Launch(device, "EditLogits", {{blocks, static_cast<unsigned>(batch.count())}, kThreads},
           CopyAllowedKernel, RowsOf<const float>(*logits), batch.requests(), columns,
           device->sampling->scratch(), RowsOf<float>(*out));
    ApplyEdits(device, RowsOf<float>(*out), batch);
    begin += batch.count();
  }
}

}  // namespace cohort::cuda
