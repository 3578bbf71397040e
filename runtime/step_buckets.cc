#include "runtime/step_buckets.h"

#include <algorithm>
#include <numeric>

#include "kernels/candidates.h"
#include "kernels/check.h"

namespace cohort {

StepBuckets::StepBuckets(int64_t max_rows, bool exact) {
  const int64_t last = std::min(max_rows, kMaxRecordedRows);
  CHECK_GE(last, 1);
  if (exact) {
    sizes_.resize(static_cast<size_t>(last));
    std::iota(sizes_.begin(), sizes_.end(), 1);
    return;
  }
  for (const int64_t size : {1, 2, 4, 8, 16, 24, 32, 48, 64, 96, 128, 192, 256}) {
    if (size < last) {
      sizes_.push_back(size);
    }
  }
  sizes_.push_back(last);
}

int64_t StepBuckets::SizeFor(int64_t rows) const {
  CHECK(rows >= 1 && rows <= max_rows()) << rows << " rows of " << max_rows();
  return *std::lower_bound(sizes_.begin(), sizes_.end(), rows);
}

bool IsChosenByMass(const SamplingParameters& sampling, int64_t valid_ids) {
  return sampling.temperature > 0 && sampling.top_p == 1 &&
         (sampling.top_k < 1 || sampling.top_k >= valid_ids);
}

bool MayNeedWholeRow(const SamplingParameters& sampling, int64_t valid_ids) {
  const bool has_top_k = sampling.top_k >= 1 && sampling.top_k < valid_ids;
  return sampling.temperature > 0 &&
         (has_top_k ? sampling.top_k > kMaxCandidates : sampling.top_p < 1);
}

int32_t RecordedCandidatesFor(const SamplingParameters& sampling, int64_t valid_ids,
                              bool has_whole_rows) {
  const bool is_edited = sampling.NeedsHistory() || !sampling.logit_bias.empty() ||
                         !sampling.allowed_token_ids.empty();
  if (is_edited || sampling.logprobs >= 0) {
    return 0;
  }
  if (sampling.temperature == 0) {
    return 1;
  }
  if (MayNeedWholeRow(sampling, valid_ids)) {
    return has_whole_rows ? kMaxCandidates : 0;
  }
  // By mass, relative to the largest logit, or among so many.
  return IsChosenByMass(sampling, valid_ids) ? 1 : sampling.top_k;
}

int32_t CandidateBucketFor(int32_t candidates) {
  CHECK(candidates >= 1 && candidates <= kMaxCandidates) << candidates << " candidates";
  return candidates == 1 ? 1 : candidates <= 32 ? 32 : kMaxCandidates;
}

}  // namespace cohort
