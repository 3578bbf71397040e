#include "runtime/worker_edits.h"

#include <algorithm>
#include <limits>

namespace cohort {
namespace {

constexpr float kNever = -std::numeric_limits<float>::infinity();

bool EndsWith(absl::Span<const int32_t> ids, absl::Span<const int32_t> tail) {
  return tail.size() <= ids.size() && std::equal(tail.rbegin(), tail.rend(), ids.rbegin());
}

}  // namespace

WorkerEdits::WorkerEdits(const Range& vocabulary)
    : vocabulary_(vocabulary), index_(static_cast<size_t>(vocabulary.size()), -1) {}

LogitEdit* WorkerEdits::At(int32_t id, std::vector<LogitEdit>* edits) {
  if (id < vocabulary_.begin || id >= vocabulary_.end) {
    return nullptr;
  }
  int32_t& index = index_[static_cast<size_t>(id - vocabulary_.begin)];
  if (index < 0) {
    index = static_cast<int32_t>(edits->size());
    edits->push_back({.id = id});
  }
  return &(*edits)[static_cast<size_t>(index)];
}

LogitEdits WorkerEdits::Make(const SequenceView& sequence, std::vector<LogitEdit>* edits) {
  const SamplingParameters& sampling = *sequence.sampling;
  edits->clear();
  const auto each = [&](absl::Span<const int32_t> ids, auto change) {
    for (const int32_t id : ids) {
      if (LogitEdit* edit = At(id, edits)) {
        change(*edit);
      }
    }
  };
  if (sampling.repetition_penalty != 1) {
    each(sequence.ids, [](LogitEdit& edit) { edit.is_repeated = true; });
  }
  if (sampling.presence_penalty != 0 || sampling.frequency_penalty != 0) {
    // Counted first: a product with the count is rounded once.
    each(sequence.ids.subspan(std::min(sequence.prompt_tokens, sequence.ids.size())),
         [](LogitEdit& edit) { edit.penalty += 1; });
    for (LogitEdit& edit : *edits) {
      if (edit.penalty > 0) {
        edit.penalty = sampling.frequency_penalty * edit.penalty + sampling.presence_penalty;
      }
    }
  }
  for (const TokenBias& bias : sampling.logit_bias) {
    each({&bias.id, 1}, [&](LogitEdit& edit) { edit.bias = bias.bias; });
  }
  const auto forbid = [](LogitEdit& edit) { edit.bias = kNever; };
  each(sequence.held_back_ids, forbid);
  for (const std::vector<int32_t>& word : sampling.bad_words) {
    const absl::Span<const int32_t> ids(word);
    if (EndsWith(sequence.ids, ids.subspan(0, ids.size() - 1))) {
      each(ids.last(1), forbid);
    }
  }
  for (const LogitEdit& edit : *edits) {
    index_[static_cast<size_t>(edit.id - vocabulary_.begin)] = -1;
  }
  return {.ids = *edits,
          .repetition_penalty = sampling.repetition_penalty,
          .only_allowed = !sampling.allowed_token_ids.empty(),
          .allowed = sampling.allowed_token_ids};
}

}  // namespace cohort
