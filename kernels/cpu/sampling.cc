#include <algorithm>
#include <cmath>
#include <limits>

#include "kernels/cpu/ops.h"
#include "kernels/philox.h"

namespace cohort {
namespace {

constexpr int32_t kNoToken = -1;

// Candidates sorted at a time while looking for the end of the top-p prefix.
constexpr size_t kSortStep = 256;

struct Candidate {
  double mass = 0;  // exp((logit - largest logit) / temperature)
  float logit = 0;
  int32_t id = 0;
};

bool Likelier(const Candidate& a, const Candidate& b) {
  return a.logit > b.logit || (a.logit == b.logit && a.id < b.id);
}

bool LowerId(const Candidate& a, const Candidate& b) { return a.id < b.id; }

// The first of the largest logits; kNoToken when one is NaN or none is finite.
int32_t LargestLogit(absl::Span<const float> logits) {
  int32_t best = kNoToken;
  bool any_finite = false;
  for (size_t id = 0; id < logits.size(); ++id) {
    if (std::isnan(logits[id])) {
      return kNoToken;
    }
    any_finite = any_finite || std::isfinite(logits[id]);
    if (best == kNoToken || logits[id] > logits[static_cast<size_t>(best)]) {
      best = static_cast<int32_t>(id);
    }
  }
  return any_finite ? best : kNoToken;
}

void KeepAll(absl::Span<const float> logits, std::vector<Candidate>* kept) {
  kept->clear();
  for (size_t id = 0; id < logits.size(); ++id) {
    kept->push_back({0, logits[id], static_cast<int32_t>(id)});
  }
}

// The `count` largest logits, ties to the lower id. Ids come in ascending order, so one that only
// equals the worst of `count` kept ones is never better.
void KeepTopK(absl::Span<const float> logits, size_t count, std::vector<Candidate>* kept) {
  const auto cut = [kept, count] {
    std::nth_element(kept->begin(), kept->begin() + static_cast<ptrdiff_t>(count) - 1, kept->end(),
                     Likelier);
    kept->resize(count);
    return kept->back().logit;
  };
  const size_t room = 2 * count + 64;
  bool is_full = false;
  float threshold = 0;  // the worst logit of `count` kept ones, once is_full
  kept->clear();
  for (size_t id = 0; id < logits.size(); ++id) {
    if (is_full && !(logits[id] > threshold)) {
      continue;
    }
    kept->push_back({0, logits[id], static_cast<int32_t>(id)});
    if (kept->size() == room) {
      threshold = cut();
      is_full = true;
    }
  }
  if (kept->size() > count) {
    cut();
  }
}

// Softmax without its denominator. The largest logit, even an infinite one, has mass 1.
void SetMasses(float largest, float temperature, std::vector<Candidate>* kept) {
  for (Candidate& candidate : *kept) {
    candidate.mass = candidate.logit == largest
                         ? 1.0
                         : std::exp((double{candidate.logit} - largest) / temperature);
  }
}

double TotalMass(const std::vector<Candidate>& kept) {
  double total = 0;
  for (const Candidate& candidate : kept) {
    total += candidate.mass;
  }
  return total;
}

// The shortest prefix, in descending order of probability, whose mass reaches top_p of the total.
// Sorts step by step, as far as needed.
void KeepTopP(double top_p, std::vector<Candidate>* kept) {
  const double wanted = top_p * TotalMass(*kept);
  double mass = 0;
  for (size_t sorted = 0; sorted < kept->size();) {
    const size_t next = std::min(kept->size(), 4 * sorted + kSortStep);
    const auto begin = kept->begin() + static_cast<ptrdiff_t>(sorted);
    const auto end = kept->begin() + static_cast<ptrdiff_t>(next);
    if (end != kept->end()) {
      std::nth_element(begin, end - 1, kept->end(), Likelier);
    }
    std::sort(begin, end, Likelier);
    for (; sorted < next; ++sorted) {
      mass += (*kept)[sorted].mass;
      if (mass >= wanted) {
        kept->resize(sorted + 1);
        return;
      }
    }
  }
}

// The first id, in ascending order, at which the cumulative mass exceeds uniform * total.
int32_t InverseCdf(const std::vector<Candidate>& kept, float uniform) {
  const double wanted = double{uniform} * TotalMass(kept);
  double mass = 0;
  int32_t last = kNoToken;
  for (const Candidate& candidate : kept) {
    mass += candidate.mass;
    last = candidate.mass > 0 ? candidate.id : last;
    if (mass > wanted) {
      return candidate.id;
    }
  }
  return last;
}

int32_t ChooseToken(absl::Span<const float> logits, const SamplingRow& row,
                    std::vector<Candidate>* kept) {
  const int32_t best = LargestLogit(logits);
  if (best == kNoToken || row.temperature == 0) {
    return best;
  }
  const bool has_top_k = row.top_k > 0 && static_cast<size_t>(row.top_k) < logits.size();
  if (has_top_k) {
    KeepTopK(logits, static_cast<size_t>(row.top_k), kept);
  } else {
    KeepAll(logits, kept);
  }
  SetMasses(logits[static_cast<size_t>(best)], row.temperature, kept);
  if (row.top_p < 1) {
    KeepTopP(row.top_p, kept);
  }
  if (has_top_k || row.top_p < 1) {
    std::sort(kept->begin(), kept->end(), LowerId);
  }
  return InverseCdf(*kept, PhiloxUniform(row.seed, row.sequence_index, row.position));
}

// log(softmax(logits)[target]), natural logarithm.
float LogSoftmaxAt(absl::Span<const float> logits, size_t target) {
  float largest = -std::numeric_limits<float>::infinity();
  for (const float logit : logits) {
    largest = std::max(largest, logit);
  }
  double total = 0;
  for (const float logit : logits) {
    total += std::exp(double{logit} - largest);
  }
  return static_cast<float>(double{logits[target]} - largest - std::log(total));
}

}  // namespace

void CpuOps::DoSample(TensorView logits, absl::Span<const SamplingRow> rows, int64_t valid_ids,
                      TensorView out) {
  int32_t* chosen = out.As<int32_t>();
  threads_.ParallelFor(logits.rows(), 1, [&](int64_t begin, int64_t end) {
    std::vector<Candidate> kept;
    for (int64_t row = begin; row < end; ++row) {
      const absl::Span<const float> valid(logits.Row<float>(row), static_cast<size_t>(valid_ids));
      chosen[row] = ChooseToken(valid, rows[static_cast<size_t>(row)], &kept);
    }
  });
}

void CpuOps::DoLogProbability(TensorView logits, TensorView targets, TensorView out) {
  const int32_t* target = targets.As<int32_t>();
  float* result = out.As<float>();
  const size_t columns = static_cast<size_t>(logits.columns());
  threads_.ParallelFor(logits.rows(), 1, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      CHECK_LT(target[row], logits.columns()) << "target of row " << row;
      const absl::Span<const float> all(logits.Row<float>(row), columns);
      result[row] = target[row] < 0 ? 0.0f : LogSoftmaxAt(all, static_cast<size_t>(target[row]));
    }
  });
}

}  // namespace cohort
