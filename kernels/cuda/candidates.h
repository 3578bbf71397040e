// What the kernels on rows of logits share with their launchers: a row's request as a kernel takes
// it, the requests of one launch, and the device memory that they work in.
#ifndef COHORT_KERNELS_CUDA_CANDIDATES_H_
#define COHORT_KERNELS_CUDA_CANDIDATES_H_

#include <cuda_runtime.h>

#include <cstdint>
#include <vector>

#include "kernels/cuda/device.h"
#include "kernels/cuda/rows.cuh"
#include "kernels/cuda_plugin.h"
#include "kernels/sampling_row.h"

namespace cohort::cuda {

inline constexpr int kMaxLaunchRows = 32;  // their requests travel in a kernel's parameters
// A block goes over so many neighbouring columns; of each stretch of them the largest is known.
inline constexpr int kBlockThreads = 512;
inline constexpr int kBlockColumns = 4096;
inline constexpr int kStretch = 64;
inline constexpr int kMaxStretches = static_cast<int>(kMaxVocabulary / kStretch);
inline constexpr int kMaxBlocks = static_cast<int>(kMaxVocabulary / kBlockColumns);

using Word = unsigned long long;  // what atomicAdd takes for 64 bits

// One edit on the device. While it is in force, `bias` holds the logit that was there.
struct DeviceEdit {
  int32_t column;
  float bias;
  float penalty;
  int32_t is_repeated;
};

struct RowRequest {
  int32_t row = 0;          // of the logits
  int32_t first_edit = 0;   // of SamplingMemory::edits()
  int32_t edits = 0;        //
  int32_t first_mask = -1;  // of SamplingMemory::masks(), a bit per column; -1: all are allowed
  float repetition_penalty = 1;
  int32_t candidates = 0;
  float temperature = 0;
  int32_t target = -1;  // a column, -1: none
  float largest = 0;    // of masses
  float lowest = 0;
  uint64_t wanted = 0;
};

struct RowRequests {
  RowRequest row[kMaxLaunchRows];
  __device__ RowRequest operator[](unsigned i) const { return row[i]; }
};

// The columns of a rank.
struct Columns {
  int64_t first_id;
  int32_t valid;  // these may be chosen
  int32_t count;
};
// Of ids below `valid_ids`, the first column being `first_id`.
Columns ColumnsOf(const CohortCudaTensor& logits, int64_t first_id, int64_t valid_ids);

// Blocks that go over all valid columns; one where there are none.
unsigned BlocksOf(const Columns& columns);

// Of one row; all zero between kernels: the last block of a row clears it.
struct RowState {
  Word best;
  Word mass;
  unsigned arrived;
  unsigned flags;
};

// Where the kernels work.
struct SamplingScratch {
  RowState* states;    // [kMaxLaunchRows]
  Word* stretches;     // [kMaxLaunchRows, kMaxStretches]: keys of the largest
  Word* block_masses;  // [kMaxLaunchRows, kMaxBlocks]
  DeviceEdit* edits;   // [kMaxVocabulary]
  uint32_t* masks;     // [kMaxLaunchRows, kMaxVocabulary / 32]
};

// Allocated with the device, so that no step allocates; the host's side keeps what it grew to.
class SamplingMemory {
 public:
  SamplingMemory() = default;
  SamplingMemory(const SamplingMemory&) = delete;
  SamplingMemory& operator=(const SamplingMemory&) = delete;
  ~SamplingMemory();
  cudaError_t Allocate(cudaStream_t stream);

  const SamplingScratch& scratch() const { return scratch_; }
  // What a batch uploads.
  std::vector<DeviceEdit> edits;
  std::vector<uint32_t> masks;

 private:
  void* memory_ = nullptr;
  SamplingScratch scratch_ = {};
};

// Rows that one launch takes, each at most once. Add() while Fits(), then Upload().
class RowBatch {
 public:
  RowBatch(CohortCudaDevice* device, const Columns& columns);

  bool Fits(int64_t row, const CohortCudaLogitEdits& edits) const;
  RowRequest& Add(int64_t row, const CohortCudaLogitEdits& edits);
  // Enqueues the copy of edits and masks.
  void Upload();

  const RowRequests& requests() const { return requests_; }
  int64_t count() const { return count_; }
  int32_t most_edits() const { return most_edits_; }  // of one row; 0: none is edited
  unsigned blocks() const { return BlocksOf(columns_); }

 private:
  void AddMask(const CohortCudaLogitEdits& edits, RowRequest* request);

  CohortCudaDevice* device_;
  Columns columns_;
  RowRequests requests_ = {};
  int64_t count_ = 0;
  int32_t most_edits_ = 0;
};

// candidates_edits.cu. Edits are made in place and undone after use: no row is copied.
void ApplyEdits(CohortCudaDevice* device, const Rows<float>& logits, const RowBatch& batch);
// What a record says of logits before their edits, told after Restore.
enum class RawValues { kNone, kOfRecords, kOfPicks };
void RestoreEdits(CohortCudaDevice* device, const Rows<float>& logits, const Columns& columns,
                  const RowBatch& batch, RawValues raw, const Rows<int32_t>& out);

}  // namespace cohort::cuda

#endif  // COHORT_KERNELS_CUDA_CANDIDATES_H_
