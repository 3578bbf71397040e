#include "kernels/cpu/logit_rows.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "kernels/avx2_dispatch.h"
#include "kernels/candidate_choice.h"
#include "kernels/probability_mass.h"

namespace cohort {
namespace {

constexpr float kNothing = -std::numeric_limits<float>::infinity();
constexpr size_t kStretch = 256;  // columns whose largest logit is known

// Largest of one stretch, and whether it holds NaN or finite logits.
struct StretchKernel {
  static constexpr size_t kWidth = 8;
  typedef float Floats __attribute__((vector_size(kWidth * sizeof(float))));
  typedef int32_t Words __attribute__((vector_size(kWidth * sizeof(int32_t))));

  struct State {
    Words has_nan = {};
    Words has_finite = {};
  };

  COHORT_AVX2_INLINE static void Add(const float* from, Floats& largest, State& state) {
    Floats logits;
    std::memcpy(&logits, from, sizeof(logits));
    largest = logits > largest ? logits : largest;
    state.has_nan |= logits != logits;
    state.has_finite |= logits - logits == 0.0f;
  }

  COHORT_AVX2_INLINE static void Run(absl::Span<const float> logits, std::vector<float>& largest,
                                     LargestLogit& found) {
    State state;
    for (size_t s = 0; s < largest.size(); ++s) {
      const float* from = logits.data() + s * kStretch;
      const size_t count = std::min(kStretch, logits.size() - s * kStretch);
      Floats largest_lanes = Floats{} + kNothing;
      size_t i = 0;
      for (; i + kWidth <= count; i += kWidth) {
        Add(from + i, largest_lanes, state);
      }
      if (i < count) {
        float tail[kWidth];
        std::fill(tail, tail + kWidth, kNothing);
        std::copy(from + i, from + count, tail);
        Add(tail, largest_lanes, state);
      }
      largest[s] = kNothing;
      for (size_t lane = 0; lane < kWidth; ++lane) {
        largest[s] = largest_lanes[lane] > largest[s] ? largest_lanes[lane] : largest[s];
      }
      found.logit = largest[s] > found.logit ? largest[s] : found.logit;
    }
    for (size_t lane = 0; lane < kWidth; ++lane) {
      found.has_nan = found.has_nan || state.has_nan[lane] != 0;
      found.has_finite = found.has_finite || state.has_finite[lane] != 0;
    }
  }
};

size_t ValidColumns(size_t columns, const VocabularySlice& slice) {
  return static_cast<size_t>(
      std::clamp<int64_t>(slice.valid_ids - slice.first_id, 0, static_cast<int64_t>(columns)));
}

float Edited(float logit, const LogitEdit& edit, float repetition_penalty) {
  return EditedLogit(logit, edit.bias, edit.penalty, edit.is_repeated, repetition_penalty);
}

// The first index of the largest logit.
size_t IndexOf(float largest, absl::Span<const float> logits, const RowScratch& scratch) {
  const auto stretch = std::find(scratch.largest.begin(), scratch.largest.end(), largest);
  const size_t begin = static_cast<size_t>(stretch - scratch.largest.begin()) * kStretch;
  return static_cast<size_t>(std::find(logits.begin() + begin, logits.end(), largest) -
                             logits.begin());
}

// The likeliest candidates, sorted, with masses, whose sum reaches top_p of the whole row.
void KeepTopP(absl::Span<const float> logits, const SamplingRow& row, float largest,
              RowScratch* scratch) {
  const uint64_t total = MassScale(largest, row.temperature, kNothing).Sum(logits);
  std::vector<Candidate>& kept = scratch->kept;
  for (size_t count = 4 * kMaxCandidates;; count *= 8) {
    KeepLikeliest(logits, count, scratch);
    std::sort(kept.begin(), kept.end(), Likelier);
    SetMasses(largest, row.temperature, absl::MakeSpan(kept));
    const size_t length = TopPLength(kept, row.top_p, total);
    if (length < kept.size() || kept.size() < count) {
      kept.resize(length);
      return;
    }
  }
}

void KeepTopKThenTopP(absl::Span<const float> logits, const SamplingRow& row, float largest,
                      RowScratch* scratch) {
  std::vector<Candidate>& kept = scratch->kept;
  KeepLikeliest(logits, static_cast<size_t>(row.top_k), scratch);
  std::sort(kept.begin(), kept.end(), Likelier);
  SetMasses(largest, row.temperature, absl::MakeSpan(kept));
  if (row.top_p < 1) {
    uint64_t total = 0;
    for (const Candidate& candidate : kept) {
      total += candidate.mass;
    }
    kept.resize(TopPLength(kept, row.top_p, total));
  }
}

}  // namespace

EditedRow::EditedRow(absl::Span<float> logits, const LogitEdits& edits,
                     const VocabularySlice& slice, RowScratch* scratch)
    : row_(logits.subspan(0, ValidColumns(logits.size(), slice))),
      edits_(edits),
      first_id_(slice.first_id),
      scratch_(*scratch),
      logits_(row_) {
  scratch_.overwritten.clear();
  for (const LogitEdit& edit : edits_.ids) {
    const int64_t column = edit.id - first_id_;
    if (column >= 0 && column < static_cast<int64_t>(row_.size())) {
      float& logit = row_[static_cast<size_t>(column)];
      scratch_.overwritten.push_back(logit);
      logit = Edited(logit, edit, edits_.repetition_penalty);
    }
  }
  if (edits_.only_allowed) {
    scratch_.allowed.clear();
    scratch_.ids.clear();
    for (const int32_t id : edits_.allowed) {
      const int64_t column = id - first_id_;
      if (column >= 0 && column < static_cast<int64_t>(row_.size())) {
        scratch_.allowed.push_back(row_[static_cast<size_t>(column)]);
        scratch_.ids.push_back(id);
      }
    }
    logits_ = scratch_.allowed;
  }
}

int32_t EditedRow::id(size_t index) const {
  return edits_.only_allowed ? scratch_.ids[index]
                             : static_cast<int32_t>(first_id_ + static_cast<int64_t>(index));
}

void EditedRow::Restore() {
  if (!is_edited_) {
    return;
  }
  is_edited_ = false;
  size_t next = 0;
  for (const LogitEdit& edit : edits_.ids) {
    const int64_t column = edit.id - first_id_;
    if (column >= 0 && column < static_cast<int64_t>(row_.size())) {
      row_[static_cast<size_t>(column)] = scratch_.overwritten[next++];
    }
  }
}

LargestLogit FindLargest(absl::Span<const float> logits, RowScratch* scratch) {
  LargestLogit found{.logit = kNothing};
  scratch->largest.resize((logits.size() + kStretch - 1) / kStretch);
  avx2::Run<StretchKernel>(logits, scratch->largest, found);
  return found;
}

void KeepLikeliest(absl::Span<const float> logits, size_t count, RowScratch* scratch) {
  std::vector<Candidate>& kept = scratch->kept;
  kept.clear();
  // As many stretches have a logit of at least `threshold`, so the wanted ones do too.
  float threshold = kNothing;
  if (count < scratch->largest.size()) {
    scratch->order = scratch->largest;
    const auto last = scratch->order.begin() + static_cast<std::ptrdiff_t>(count) - 1;
    std::nth_element(scratch->order.begin(), last, scratch->order.end(), std::greater<>());
    threshold = *last;
  }
  const size_t room = 2 * count + 64;
  const auto cut = [&] {
    const auto last = kept.begin() + static_cast<std::ptrdiff_t>(count) - 1;
    std::nth_element(kept.begin(), last, kept.end(), Likelier);
    kept.resize(count);
    // Ids come in ascending order: one that only equals the worst of the kept is not better.
    threshold = std::nextafter(kept.back().logit, std::numeric_limits<float>::infinity());
  };
  for (size_t s = 0; s < scratch->largest.size(); ++s) {
    if (scratch->largest[s] < threshold) {
      continue;
    }
    const size_t end = std::min((s + 1) * kStretch, logits.size());
    for (size_t i = s * kStretch; i < end; ++i) {
      if (logits[i] >= threshold && logits[i] > kNothing) {
        kept.push_back({static_cast<int32_t>(i), logits[i], logits[i], 0});
        if (kept.size() == room) {
          cut();
        }
      }
    }
  }
  if (kept.size() > count) {
    cut();
  }
}

void Summarise(absl::Span<float> logits, const CandidateRequest& request,
               const VocabularySlice& slice, RowScratch* scratch, int32_t* record) {
  std::fill(record, record + CandidateRecord::Words(0), 0);
  if (request.candidates == 0) {
    return;
  }
  const int64_t target = request.target - slice.first_id;
  if (request.target >= 0 && target >= 0 && target < static_cast<int64_t>(logits.size())) {
    record[0] |= CandidateRecord::kTarget;
    record[4] = std::bit_cast<int32_t>(logits[static_cast<size_t>(target)]);
  }
  EditedRow row(logits, request.edits, slice, scratch);
  const LargestLogit largest = FindLargest(row.logits(), scratch);
  record[0] |= (largest.has_nan ? CandidateRecord::kNan : 0) |
               (largest.has_finite ? CandidateRecord::kFinite : 0);
  if (largest.has_nan || largest.logit == kNothing) {
    return;
  }
  std::vector<Candidate>& kept = scratch->kept;
  if (request.candidates == 1) {
    const size_t index = IndexOf(largest.logit, row.logits(), *scratch);
    kept.assign(1, {static_cast<int32_t>(index), row.logits()[index], 0, 0});
  } else {
    KeepLikeliest(row.logits(), static_cast<size_t>(request.candidates), scratch);
    std::sort(kept.begin(), kept.end(), Likelier);
  }
  if (request.temperature > 0) {
    const MassScale scale(largest.logit, request.temperature, kNothing);
    WriteWords(scale.Sum(row.logits()), record + 2);
  }
  record[1] = static_cast<int32_t>(kept.size());
  row.Restore();
  for (size_t i = 0; i < kept.size(); ++i) {
    int32_t* words = record + CandidateRecord::Words(static_cast<int32_t>(i));
    words[0] = row.id(static_cast<size_t>(kept[i].id));
    words[1] = std::bit_cast<int32_t>(kept[i].logit);
    words[2] = std::bit_cast<int32_t>(logits[static_cast<size_t>(words[0] - slice.first_id)]);
  }
}

void SumMasses(absl::Span<float> logits, const MassRequest& request, const VocabularySlice& slice,
               RowScratch* scratch, int32_t* words) {
  const EditedRow row(logits, request.edits, slice, scratch);
  const MassScale scale(request.largest, request.temperature, request.lowest);
  WriteWords(scale.Sum(row.logits()), words);
}

void PickByMass(absl::Span<float> logits, const MassRequest& request, const VocabularySlice& slice,
                RowScratch* scratch, int32_t* words) {
  if (request.wanted == MassRequest::kOtherRank) {
    words[0] = kNoToken;
    words[1] = 0;
    return;
  }
  EditedRow row(logits, request.edits, slice, scratch);
  const MassScale scale(request.largest, request.temperature, request.lowest);
  words[0] = row.id(static_cast<size_t>(scale.Pick(row.logits(), request.wanted)));
  row.Restore();
  words[1] = std::bit_cast<int32_t>(logits[static_cast<size_t>(words[0] - slice.first_id)]);
}

void CopyEdited(absl::Span<const float> logits, const LogitEdits& edits, int64_t first_id,
                absl::Span<float> out) {
  std::copy(logits.begin(), logits.end(), out.begin());
  const auto column_of = [&](int32_t id) {
    const int64_t column = id - first_id;
    return column >= 0 && column < static_cast<int64_t>(out.size()) ? column : -1;
  };
  for (const LogitEdit& edit : edits.ids) {
    if (const int64_t column = column_of(edit.id); column >= 0) {
      float& logit = out[static_cast<size_t>(column)];
      logit = Edited(logit, edit, edits.repetition_penalty);
    }
  }
  if (edits.only_allowed) {
    size_t column = 0;
    for (const int32_t id : edits.allowed) {
      if (const int64_t allowed = column_of(id); allowed >= 0) {
        std::fill(out.begin() + column, out.begin() + static_cast<size_t>(allowed), kNothing);
        column = static_cast<size_t>(allowed) + 1;
      }
    }
    std::fill(out.begin() + column, out.end(), kNothing);
  }
}

int32_t SampleRow(absl::Span<const float> logits, const SamplingRow& row, RowScratch* scratch) {
  const LargestLogit largest = FindLargest(logits, scratch);
  if (largest.has_nan || !largest.has_finite) {
    return kNoToken;
  }
  if (row.temperature == 0) {
    return static_cast<int32_t>(IndexOf(largest.logit, logits, *scratch));
  }
  const float lowest = LowestByMinP(row, largest.logit);
  const bool has_top_k = row.top_k > 0 && static_cast<size_t>(row.top_k) < logits.size();
  if (!has_top_k && row.top_p == 1) {
    const MassScale scale(largest.logit, row.temperature, lowest);
    const uint64_t total = scale.Sum(logits);
    return static_cast<int32_t>(scale.Pick(logits, PartOfMass(total, UniformOf(row))));
  }
  if (has_top_k) {
    KeepTopKThenTopP(logits, row, largest.logit, scratch);
  } else {
    KeepTopP(logits, row, largest.logit, scratch);
  }
  std::vector<Candidate>& kept = scratch->kept;
  while (kept.back().logit < lowest) {
    kept.pop_back();
  }
  return PickCandidate(absl::MakeSpan(kept), row).id;
}

}  // namespace cohort
