// The sizes of recorded steps. A recording is of one number of rows, so a step with fewer is filled
// up with rows that nobody reads.
#ifndef COHORT_RUNTIME_STEP_BUCKETS_H_
#define COHORT_RUNTIME_STEP_BUCKETS_H_

#include <cstdint>
#include <vector>

#include "runtime/sampling.h"

namespace cohort {

inline constexpr int64_t kMaxRecordedRows = 256;

class StepBuckets {
 public:
  // For steps of up to `max_rows` rows, and kMaxRecordedRows. With `exact` every number of rows is
  // a size: where a row costs more than its share of the weights, as with experts of its own.
  StepBuckets(int64_t max_rows, bool exact);

  int64_t max_rows() const { return sizes_.back(); }
  // The smallest size that holds `rows`, 1 to max_rows().
  int64_t SizeFor(int64_t rows) const;
  const std::vector<int64_t>& sizes() const { return sizes_; }

 private:
  std::vector<int64_t> sizes_;  // ascending
};

// How many candidates of each rank tell a recorded step's choice under `sampling`; 0 where a
// recorded step cannot choose: log-probabilities, logits that are edited, and, unless a rank
// `has_whole_rows`, a top-k beyond the candidates or a top-p among all ids. Where no filter but
// min-p is set one tells the largest logit, relative to which the masses are.
int32_t RecordedCandidatesFor(const SamplingParameters& sampling, int64_t valid_ids,
                              bool has_whole_rows);

// Whether such candidates may leave a choice open that takes the whole row.
bool MayNeedWholeRow(const SamplingParameters& sampling, int64_t valid_ids);

// Whether a token is chosen by the masses of all ids: with a temperature and no filter but min-p.
bool IsChosenByMass(const SamplingParameters& sampling, int64_t valid_ids);

// Recordings are of 1, 32 or 128 candidates: the smallest that holds `candidates`.
int32_t CandidateBucketFor(int32_t candidates);

}  // namespace cohort

#endif  // COHORT_RUNTIME_STEP_BUCKETS_H_
