#include "kernels/candidate_choice.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "kernels/check.h"
#include "kernels/probability_mass.h"

namespace cohort {
namespace {

MassBounds BoundTotal(absl::Span<const CandidateRecord> records, float largest, float temperature,
                      int64_t valid_ids) {
  TotalMass total(largest, temperature);
  for (const CandidateRecord& record : records) {
    if (record.count() > 0) {
      total.Add(record.mass(), record.candidate(0).logit);
    }
  }
  return total.Bounds(valid_ids);
}

}  // namespace

CandidateRequest RequestFor(const SamplingRow& row, const LogitEdits& edits, int64_t valid_ids) {
  CandidateRequest request;
  request.edits = edits;
  request.candidates = 1;
  if (row.temperature == 0) {
    return request;
  }
  if (HasTopK(row, valid_ids)) {
    request.candidates = row.top_k <= kMaxCandidates ? row.top_k : 1;
  } else if (row.top_p < 1) {
    request.candidates = kMaxCandidates;
    request.temperature = row.temperature;
  } else if (row.min_p > 0) {
    request.candidates = kMaxCandidates;
  }
  return request;
}

size_t TopPLength(absl::Span<const Candidate> sorted, float top_p, uint64_t total) {
  const uint64_t wanted = WantedByTopP(top_p, total);
  uint64_t mass = 0;
  for (size_t i = 0; i < sorted.size(); ++i) {
    mass += sorted[i].mass;
    if (mass >= wanted) {
      return i + 1;
    }
  }
  return sorted.size();
}

const Candidate& PickCandidate(absl::Span<Candidate> kept, const SamplingRow& row) {
  std::sort(kept.begin(), kept.end(),
            [](const Candidate& a, const Candidate& b) { return a.id < b.id; });
  uint64_t total = 0;
  for (const Candidate& candidate : kept) {
    total += candidate.mass;
  }
  const uint64_t wanted = PartOfMass(total, UniformOf(row));
  uint64_t mass = 0;
  size_t i = 0;
  for (; mass + kept[i].mass <= wanted; ++i) {
    mass += kept[i].mass;
  }
  return kept[i];
}

void SetMasses(float largest, float temperature, absl::Span<Candidate> candidates) {
  const MassScale scale(largest, temperature, -std::numeric_limits<float>::infinity());
  std::array<float, kMaxCandidates> logits;
  std::array<uint64_t, kMaxCandidates> masses;
  for (size_t begin = 0; begin < candidates.size(); begin += logits.size()) {
    const absl::Span<Candidate> some = candidates.subspan(begin, logits.size());
    for (size_t i = 0; i < some.size(); ++i) {
      logits[i] = some[i].logit;
    }
    scale.Masses(absl::MakeConstSpan(logits).subspan(0, some.size()), masses.data());
    for (size_t i = 0; i < some.size(); ++i) {
      some[i].mass = masses[i];
    }
  }
}

void CandidateChooser::Merge(absl::Span<const CandidateRecord> records, int32_t asked) {
  merged_.clear();
  Candidate bound{.id = 0, .logit = -std::numeric_limits<float>::infinity()};
  for (const CandidateRecord& record : records) {
    other_.clear();
    std::swap(merged_, other_);
    const size_t before = other_.size();
    for (int32_t i = 0; i < record.count(); ++i) {
      other_.push_back(record.candidate(i));
    }
    merged_.resize(other_.size());
    const auto middle = other_.begin() + static_cast<std::ptrdiff_t>(before);
    std::merge(other_.begin(), middle, middle, other_.end(), merged_.begin(), Likelier);
    if (record.count() == asked && Likelier(other_.back(), bound)) {
      bound = other_.back();
    }
  }
  const auto end = std::upper_bound(merged_.begin(), merged_.end(), bound, Likelier);
  merged_.erase(end, merged_.end());
}

absl::Span<const Candidate> CandidateChooser::Likeliest(absl::Span<const CandidateRecord> records,
                                                        size_t count) {
  Merge(records, static_cast<int32_t>(count));
  return absl::MakeConstSpan(merged_).subspan(0, count);
}

// Whether merged_ was cut to what top-p keeps of the row; false when that cannot be told.
bool CandidateChooser::CutByTopP(absl::Span<const CandidateRecord> records, const SamplingRow& row,
                                 float largest, bool has_all, int64_t valid_ids) {
  if (has_all) {  // all that top-k or the edits leave are here
    uint64_t total = 0;
    for (const Candidate& candidate : merged_) {
      total += candidate.mass;
    }
    merged_.resize(TopPLength(merged_, row.top_p, total));
    return true;
  }
  const MassBounds total = BoundTotal(records, largest, row.temperature, valid_ids);
  const size_t shortest = TopPLength(merged_, row.top_p, total.least);
  const size_t longest = TopPLength(merged_, row.top_p, total.most);
  uint64_t mass = 0;
  for (size_t i = 0; i < longest; ++i) {
    mass += merged_[i].mass;
  }
  merged_.resize(longest);
  return shortest == longest && mass >= WantedByTopP(row.top_p, total.most);
}

// Leaves in merged_ the candidates among which the token is drawn, with their masses, where they
// tell them.
Choice::Kind CandidateChooser::Filter(absl::Span<const CandidateRecord> records,
                                      const SamplingRow& row, const Choice& bounds, bool has_all,
                                      int64_t valid_ids, int32_t asked) {
  if (HasTopK(row, valid_ids)) {
    if (row.top_k > asked) {
      return Choice::Kind::kWhole;
    }
    merged_.resize(std::min(merged_.size(), static_cast<size_t>(row.top_k)));
    has_all = true;
  } else if (IsByMass(row, valid_ids) && !has_all && !(merged_.back().logit < bounds.lowest)) {
    return Choice::Kind::kByMass;
  }
  SetMasses(bounds.largest, row.temperature, absl::MakeSpan(merged_));
  if (row.top_p < 1 && !CutByTopP(records, row, bounds.largest, has_all, valid_ids)) {
    return Choice::Kind::kWhole;
  }
  while (merged_.back().logit < bounds.lowest) {
    merged_.pop_back();
  }
  return Choice::Kind::kToken;
}

Choice CandidateChooser::Choose(absl::Span<const CandidateRecord> records, const SamplingRow& row,
                                int64_t valid_ids) {
  return Choose(records, row, valid_ids, RequestFor(row, {}, valid_ids).candidates);
}

Choice CandidateChooser::Choose(absl::Span<const CandidateRecord> records, const SamplingRow& row,
                                int64_t valid_ids, int32_t asked) {
  Choice choice;
  bool has_finite = false;
  bool has_all = true;  // ids that are not listed have no mass
  for (const CandidateRecord& record : records) {
    choice.is_nan = choice.is_nan || record.has_nan();
    has_finite = has_finite || record.has_finite();
    has_all = has_all && record.count() < asked;
  }
  if (choice.is_nan || !has_finite) {
    return choice;
  }
  Merge(records, asked);
  choice.largest = merged_.front().logit;
  if (row.temperature > 0) {
    choice.lowest = LowestByMinP(row, choice.largest);
    choice.kind = Filter(records, row, choice, has_all, valid_ids, asked);
  }
  if (choice.kind == Choice::Kind::kToken) {
    const Candidate& chosen =
        row.temperature > 0 ? PickCandidate(absl::MakeSpan(merged_), row) : merged_.front();
    choice.token = chosen.id;
    choice.raw = chosen.raw;
  }
  return choice;
}

double LogOfSum(absl::Span<const CandidateRecord> records) {
  float largest = -std::numeric_limits<float>::infinity();
  for (const CandidateRecord& record : records) {
    if (record.has_nan()) {
      return std::numeric_limits<double>::quiet_NaN();
    }
    if (record.count() > 0) {
      largest = std::max(largest, record.candidate(0).logit);
    }
  }
  double sum = 0;
  for (const CandidateRecord& record : records) {
    if (record.count() > 0) {
      const float own = record.candidate(0).logit;
      sum += static_cast<double>(record.mass()) *
             (own == largest ? 1.0 : std::exp(double{own} - double{largest}));
    }
  }
  return double{largest} + std::log(sum / static_cast<double>(kMassOfLargest));
}

}  // namespace cohort
