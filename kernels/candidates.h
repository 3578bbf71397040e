// What one rank tells of one row of logits, as int32 words that a gather carries:
//   0      flags: 1 a valid logit is NaN, 2 one is finite, 4 the target lies on this rank
//   1      candidates listed
//   2, 3   sum of masses relative to the first candidate, low word first
//   4      bits of the target's logit
//   5...   per candidate: id, bits of its logit, bits of that logit before its edits
// Candidates come likeliest first (the larger logit, then the lower id) and leave out minus
// infinity. Fewer than asked for means that the rank has no more. Plain constexpr code, for kernels
// of CUDA too.
#ifndef COHORT_KERNELS_CANDIDATES_H_
#define COHORT_KERNELS_CANDIDATES_H_

#include <bit>
#include <cstdint>
#include <limits>

#include "kernels/words.h"

namespace cohort {

inline constexpr int32_t kMaxCandidates = 128;

struct Candidate {
  int32_t id = 0;
  float logit = 0;    // after the edits
  float raw = 0;      // before
  uint64_t mass = 0;  // of `logit`, where it was asked for
};

constexpr bool Likelier(const Candidate& a, const Candidate& b) {
  return a.logit > b.logit || (a.logit == b.logit && a.id < b.id);
}

class CandidateRecord {
 public:
  static constexpr int64_t Words(int32_t candidates) { return 5 + 3 * int64_t{candidates}; }
  static constexpr int64_t Candidates(int64_t words) { return (words - 5) / 3; }
  static constexpr int32_t kNan = 1;
  static constexpr int32_t kFinite = 2;
  static constexpr int32_t kTarget = 4;

  constexpr explicit CandidateRecord(const int32_t* words) : words_(words) {}

  constexpr bool has_nan() const { return (words_[0] & kNan) != 0; }
  constexpr bool has_finite() const { return (words_[0] & kFinite) != 0; }
  constexpr bool has_target() const { return (words_[0] & kTarget) != 0; }
  constexpr float target() const { return std::bit_cast<float>(words_[4]); }
  constexpr int32_t count() const { return words_[1]; }
  constexpr uint64_t mass() const { return ReadWords(words_ + 2); }
  constexpr Candidate candidate(int32_t i) const {
    const int32_t* words = words_ + Words(i);
    return {words[0], std::bit_cast<float>(words[1]), std::bit_cast<float>(words[2]), 0};
  }

 private:
  const int32_t* words_;
};

// Of all ranks' records, `words` each; minus infinity where none lists a candidate.
constexpr float LargestOfRecords(const int32_t* records, int64_t ranks, int64_t words) {
  float largest = -std::numeric_limits<float>::infinity();
  for (int64_t rank = 0; rank < ranks; ++rank) {
    const CandidateRecord record(records + rank * words);
    const float first = record.count() > 0 ? record.candidate(0).logit : largest;
    largest = first > largest ? first : largest;
  }
  return largest;
}

}  // namespace cohort

#endif  // COHORT_KERNELS_CANDIDATES_H_
