// From the gathered records of all ranks to tokens and log-probabilities. Pure functions of those
// bits, so that every rank of a group comes to the same.
#ifndef COHORT_KERNELS_CANDIDATE_CHOICE_H_
#define COHORT_KERNELS_CANDIDATE_CHOICE_H_

#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "kernels/candidates.h"
#include "kernels/choice_rules.h"
#include "kernels/sampling.h"

namespace cohort {

// What LocalCandidates must tell so that CandidateChooser can choose.
CandidateRequest RequestFor(const SamplingRow& row, const LogitEdits& edits, int64_t valid_ids);

struct Choice {
  enum class Kind {
    kToken,   // `token`, or none when the row holds no number to choose
    kByMass,  // LocalMasses and LocalPick find it: `largest` and `lowest` say among which logits
    kWhole,   // only Sample on the whole row finds it
  };
  Kind kind = Kind::kToken;
  int32_t token = kNoToken;
  float raw = 0;        // the token's logit before its edits
  bool is_nan = false;  // there is no token because of a NaN, not because nothing may be chosen
  float largest = 0;
  float lowest = 0;
};

// The shortest prefix of likeliest first candidates with masses whose sum reaches top_p of `total`;
// all of them when it does not.
size_t TopPLength(absl::Span<const Candidate> sorted, float top_p, uint64_t total);
// The candidate, in ascending order of id, at which the cumulative mass exceeds the row's uniform
// number's part of all their masses. Reorders them.
const Candidate& PickCandidate(absl::Span<Candidate> kept, const SamplingRow& row);
void SetMasses(float largest, float temperature, absl::Span<Candidate> candidates);

class CandidateChooser {
 public:
  // One record per rank, in rank order, for RequestFor(row, ..., valid_ids). The token, where it is
  // told, is the one that Sample chooses from the whole row.
  Choice Choose(absl::Span<const CandidateRecord> records, const SamplingRow& row,
                int64_t valid_ids);
  // The same from records of `asked` candidates each, with sums of masses unless the row is greedy.
  Choice Choose(absl::Span<const CandidateRecord> records, const SamplingRow& row,
                int64_t valid_ids, int32_t asked);
  // The `count` likeliest candidates of all ranks (fewer where there are fewer), likeliest first;
  // each record lists at least that many unless it has no more. Valid until the next call.
  absl::Span<const Candidate> Likeliest(absl::Span<const CandidateRecord> records, size_t count);

 private:
  // Fills merged_ with the likeliest candidates: all that are likelier than any not listed.
  void Merge(absl::Span<const CandidateRecord> records, int32_t asked);
  Choice::Kind Filter(absl::Span<const CandidateRecord> records, const SamplingRow& row,
                      const Choice& bounds, bool has_all, int64_t valid_ids, int32_t asked);
  bool CutByTopP(absl::Span<const CandidateRecord> records, const SamplingRow& row, float largest,
                 bool has_all, int64_t valid_ids);

  std::vector<Candidate> merged_;
  std::vector<Candidate> other_;
};

// log(sum(exp(logit))) of a row whose records were made at temperature 1, with one candidate at
// least; NaN when a logit is. Rounding differs with the cut.
double LogOfSum(absl::Span<const CandidateRecord> records);

}  // namespace cohort

#endif  // COHORT_KERNELS_CANDIDATE_CHOICE_H_
