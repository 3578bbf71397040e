// What the sampling operations do to one row of logits in host memory. The CPU's operations run it
// over their rows; the plugin's, over rows that it copied here.
#ifndef COHORT_KERNELS_CPU_LOGIT_ROWS_H_
#define COHORT_KERNELS_CPU_LOGIT_ROWS_H_

#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "kernels/candidates.h"
#include "kernels/sampling.h"

namespace cohort {

// Memory that rows reuse. One thread at a time.
struct RowScratch {
  std::vector<float> overwritten;  // by edits
  std::vector<float> allowed;      // the allowed ids' logits
  std::vector<int32_t> ids;        // theirs
  std::vector<float> largest;      // of each stretch of columns
  std::vector<float> order;        // the same, on the way to a threshold
  std::vector<Candidate> kept;
};

// A row while its edits are in force: they are made in place and undone at the end.
class EditedRow {
 public:
  // `logits` are this rank's columns; `logits` and `scratch` outlive this.
  EditedRow(absl::Span<float> logits, const LogitEdits& edits, const VocabularySlice& slice,
            RowScratch* scratch);
  ~EditedRow() { Restore(); }
  EditedRow(const EditedRow&) = delete;
  EditedRow& operator=(const EditedRow&) = delete;

  // The valid ids that may be chosen, or all valid ones with minus infinity for the others.
  absl::Span<const float> logits() const { return logits_; }
  int32_t id(size_t index) const;
  void Restore();

 private:
  absl::Span<float> row_;
  const LogitEdits& edits_;
  int64_t first_id_;
  RowScratch& scratch_;
  absl::Span<const float> logits_;
  bool is_edited_ = true;
};

// Largest logit of a row.
struct LargestLogit {
  float logit = 0;
  bool has_nan = false;
  bool has_finite = false;
};
// Also leaves the largest of each stretch in scratch.largest.
LargestLogit FindLargest(absl::Span<const float> logits, RowScratch* scratch);

// The `count` likeliest of a row without NaN, in no order, their ids being indices; minus infinity
// is left out. After FindLargest() of the same row.
void KeepLikeliest(absl::Span<const float> logits, size_t count, RowScratch* scratch);

// One row of Ops::LocalCandidates; `record` has room for request.candidates.
void Summarise(absl::Span<float> logits, const CandidateRequest& request,
               const VocabularySlice& slice, RowScratch* scratch, int32_t* record);
// One row of Ops::LocalMasses and Ops::LocalPick.
void SumMasses(absl::Span<float> logits, const MassRequest& request, const VocabularySlice& slice,
               RowScratch* scratch, int32_t* words);
void PickByMass(absl::Span<float> logits, const MassRequest& request, const VocabularySlice& slice,
                RowScratch* scratch, int32_t* words);
// One row of Ops::EditLogits.
void CopyEdited(absl::Span<const float> logits, const LogitEdits& edits, int64_t first_id,
                absl::Span<float> out);
// One row of Ops::Sample; all of `logits` are valid.
int32_t SampleRow(absl::Span<const float> logits, const SamplingRow& row, RowScratch* scratch);

}  // namespace cohort

#endif  // COHORT_KERNELS_CPU_LOGIT_ROWS_H_
