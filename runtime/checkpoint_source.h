// Weights from the mapped files of a checkpoint.
#ifndef COHORT_RUNTIME_CHECKPOINT_SOURCE_H_
#define COHORT_RUNTIME_CHECKPOINT_SOURCE_H_

#include <memory>

#include "runtime/safetensors.h"
#include "runtime/weight_source.h"

namespace cohort {

// Reads slices of a checkpoint that CheckCheckpoint accepted and that outlives the reader. Touches
// no page outside the slices. Any number of threads.
class CheckpointReader {
 public:
  explicit CheckpointReader(const Checkpoint& checkpoint) : checkpoint_(checkpoint) {}

  // Brackets the reads of one tensor's slice; its pages go back at the end.
  void Begin(const WeightSlice& slice) const;
  void End(const WeightSlice& slice) const;

  // The elements of `slice` where they lie densely as `dtype` in the file, at any alignment and
  // until End(); null where they do not.
  const void* View(const WeightSlice& slice, DType dtype) const;
  // Writes them, rounded to `dtype` (fp32 or bf16), densely to host memory.
  void Read(const WeightSlice& slice, DType dtype, void* destination) const;

 private:
  const StoredTensor& Stored(const WeightSlice& slice) const;

  const Checkpoint& checkpoint_;
};

// Device memory that is the host's is written directly; to any other, weights stream
// (weight_stream.h).
std::unique_ptr<WeightSource> MakeCheckpointSource(const Checkpoint& checkpoint,
                                                   const WeightStreamOptions& stream = {});

}  // namespace cohort

#endif  // COHORT_RUNTIME_CHECKPOINT_SOURCE_H_
