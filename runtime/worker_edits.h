// What a request's parameters and history do to this rank's columns of its next row of logits.
// Owned by the worker's chooser and used from the worker's thread.
#ifndef COHORT_RUNTIME_WORKER_EDITS_H_
#define COHORT_RUNTIME_WORKER_EDITS_H_

#include <cstdint>
#include <vector>

#include "kernels/sampling.h"
#include "parallel/shard_plan.h"
#include "runtime/sampling.h"

namespace cohort {

// A sequence at the moment its next token is chosen. Views of the slot's memory, valid until the
// next plan.
struct SequenceView {
  const SamplingParameters* sampling = nullptr;
  absl::Span<const int32_t> ids = {};  // of all its positions, where sampling->NeedsHistory()
  size_t prompt_tokens = 0;            // of `ids`; the rest is the completion
  absl::Span<const int32_t> held_back_ids = {};  // cannot be chosen now
};

class WorkerEdits {
 public:
  explicit WorkerEdits(const Range& vocabulary);  // this rank's

  // The result's ids live in `edits`.
  LogitEdits Make(const SequenceView& sequence, std::vector<LogitEdit>* edits);

 private:
  // The edit of `id`, begun where there is none yet; null for other ranks' ids.
  LogitEdit* At(int32_t id, std::vector<LogitEdit>* edits);

  Range vocabulary_;
  std::vector<int32_t> index_;  // per column: of its edit, or -1; all -1 between calls
};

}  // namespace cohort

#endif  // COHORT_RUNTIME_WORKER_EDITS_H_
