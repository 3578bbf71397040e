// Where the elements of weights come from: the mapped files of a checkpoint, or a formula.
#ifndef COHORT_RUNTIME_WEIGHT_SOURCE_H_
#define COHORT_RUNTIME_WEIGHT_SOURCE_H_

#include <memory>
#include <string>

#include "kernels/tensor.h"
#include "parallel/shard_plan.h"
#include "runtime/safetensors.h"

namespace cohort {

// A rectangle of a stored matrix. A vector counts as a matrix of one column.
struct WeightSlice {
  std::string name;
  int64_t stored_columns = 1;  // of the whole tensor
  Range rows;
  Range columns;
  bool is_contiguous() const { return columns.size() == stored_columns; }
  int64_t elements() const { return rows.size() * columns.size(); }
};

// Used by one thread.
class WeightSource {
 public:
  virtual ~WeightSource() = default;

  // Brackets the reads of one tensor's slice.
  virtual void Begin(const WeightSlice& slice) = 0;
  virtual void End(const WeightSlice& slice) = 0;

  // The elements of `slice` where they lie densely as `dtype` in host memory already, at any
  // alignment and until End(); null where they do not.
  virtual const void* View(const WeightSlice& slice, DType dtype) const = 0;

  // Writes the elements of `slice`, rounded to `dtype` (fp32 or bf16), densely to host memory.
  virtual void Read(const WeightSlice& slice, DType dtype, void* destination) = 0;
};

// Can elements stored as `dtype` (spelled as in the file) be read?
bool IsReadableDType(StringView dtype);

// Reads from a checkpoint that CheckCheckpoint accepted and that outlives the source. Touches no
// page outside the slices, and gives pages back at End().
std::unique_ptr<WeightSource> MakeCheckpointSource(const Checkpoint& checkpoint);

// Random weights: an element is a pure function of the tensor's name and its place in the whole
// tensor, so every degree of parallelism sees the same model. Norms are 1, everything else is
// uniform with mean 0 and standard deviation 0.02.
std::unique_ptr<WeightSource> MakeDummySource();

}  // namespace cohort

#endif  // COHORT_RUNTIME_WEIGHT_SOURCE_H_
