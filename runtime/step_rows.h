// What the model gets of one step: its rows on the device.
#ifndef COHORT_RUNTIME_STEP_ROWS_H_
#define COHORT_RUNTIME_STEP_ROWS_H_

#include <cstdint>

#include "absl/types/span.h"
#include "kernels/ops.h"

namespace cohort {

// Views of the worker's memory.
struct StepRows {
  TensorView ids;          // [tokens] int32
  BatchView batch;         // all rows
  TensorView wanted;       // [n] int32, ascending: the rows whose logits may be asked for
  BatchView wanted_batch;  // these rows alone, with the same block tables
  // Of every data-parallel group, where they exchange rows.
  absl::Span<const int64_t> rows_of_groups;
  absl::Span<const int64_t> wanted_of_groups;
  bool all_wanted() const { return wanted_batch.tokens == batch.tokens; }
};

}  // namespace cohort

#endif  // COHORT_RUNTIME_STEP_ROWS_H_
