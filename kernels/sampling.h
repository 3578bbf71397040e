// How rows of logits become tokens where each rank holds some columns of every row. Every struct
// here lies in host memory.
//
// Each rank summarises its own columns in a small record (candidates.h). One gather later every
// rank holds all records and reads the same choice from them (candidate_choice.h), or sees that
// they do not suffice. Probability masses are integers (mass_rule.h), so sums do not depend
// on their order, nor a choice on how the vocabulary is cut.
#ifndef COHORT_KERNELS_SAMPLING_H_
#define COHORT_KERNELS_SAMPLING_H_

#include <cstdint>
#include <limits>

#include "absl/types/span.h"
#include "kernels/choice_rules.h"
#include "kernels/sampling_row.h"

namespace cohort {

// What becomes of one logit: l + bias; then, where the id is repeated, that over the repetition
// penalty when it is above 0 and else times it; then minus `penalty`.
struct LogitEdit {
  int32_t id = 0;
  bool is_repeated = false;
  float bias = 0;  // minus infinity: the id cannot be chosen
  float penalty = 0;
};

// What becomes of one row.
struct LogitEdits {
  absl::Span<const LogitEdit> ids = {};  // distinct; those of other ranks' columns are passed over
  float repetition_penalty = 1;
  bool only_allowed = false;               // every id that is not `allowed` cannot be chosen
  absl::Span<const int32_t> allowed = {};  // ascending, distinct
  bool empty() const { return ids.empty() && !only_allowed; }
};

// The columns of this rank.
struct VocabularySlice {
  int64_t first_id = 0;   // id of column 0
  int64_t valid_ids = 0;  // ids from here on, of the whole vocabulary, are passed over
};

// What LocalCandidates tells of one row after its edits.
struct CandidateRequest {
  LogitEdits edits = {};
  int32_t candidates = 0;  // how many of the largest logits, at most kMaxCandidates
  float temperature = 0;   // of the sum of masses; 0: no sum
  int32_t target = -1;     // id whose logit is told by the rank that holds it; -1: none
};

// The ids of one row from which LocalMasses and LocalPick choose: those of logits from `lowest` on.
struct MassRequest {
  static constexpr uint64_t kOtherRank = kOtherRankPicks;
  int32_t row = 0;  // of the logits
  LogitEdits edits = {};
  float temperature = 1;
  float largest = 0;  // of the whole row after its edits
  float lowest = -std::numeric_limits<float>::infinity();
  // LocalPick: the first id of this rank whose cumulative mass exceeds this; kOtherRank: none.
  uint64_t wanted = kOtherRank;
};

}  // namespace cohort

#endif  // COHORT_KERNELS_SAMPLING_H_
