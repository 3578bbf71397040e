#include "runtime/scheduler_sequence.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "kernels/check.h"

namespace cohort {
namespace {

// Appends row `index` of a matrix with `width` columns.
void AppendRow(const std::vector<TokenLogprob>& matrix, size_t index, int32_t width,
               std::vector<TokenLogprob>& target) {
  const auto begin = matrix.begin() + static_cast<std::ptrdiff_t>(index) * width;
  target.insert(target.end(), begin, begin + width);
}

}  // namespace

Sequence::Sequence(RequestId id, uint64_t arrival, Request request)
    : id_(id),
      arrival_(arrival),
      request_(std::move(request)),
      prompt_tokens_(static_cast<int64_t>(request_.prompt.size())),
      tokens_(std::move(request_.prompt)),
      prefill_end_(prompt_tokens_),
      known_end_(prompt_tokens_) {}

int64_t Sequence::PositionsNeeded(int64_t prompt_tokens, const Request& request) {
  return request.score ? prompt_tokens : prompt_tokens + request.stopping.max_tokens - 1;
}

int64_t Sequence::plannable() const { return std::min(known_end_, positions_needed()) - planned_; }

bool Sequence::WantsScores() const {
  return request_.score || (request_.prompt_logprobs >= 0 &&
                            static_cast<int64_t>(prompt_logprobs_.size()) < prompt_tokens_ - 1);
}

AdmitSequence Sequence::Admit(uint32_t new_slot, int64_t cached,
                              absl::Span<const int32_t> eos_token_ids) {
  CHECK(planned_ == 0 && cached < size()) << "request " << id_ << ": " << cached << " cached";
  slot = new_slot;
  planned_ = cached;
  if (!cached_tokens_.has_value()) {
    cached_tokens_ = std::min(cached, prompt_tokens_);
  }
  AdmitSequence admit;
  admit.slot = slot;
  admit.sequence_index = request_.sequence_index;
  admit.first_position = static_cast<uint64_t>(cached);
  admit.prompt_tokens = static_cast<uint64_t>(prompt_tokens_);
  admit.plain_rope = plain_rope;
  admit.sampling = request_.sampling;
  if (request_.sampling.NeedsHistory()) {
    admit.history.assign(tokens_.begin(), tokens_.begin() + cached);
  }
  if (request_.stopping.min_tokens > 0) {
    admit.min_tokens = static_cast<uint64_t>(request_.stopping.min_tokens);
    admit.held_back_ids = request_.stopping.stop_token_ids;
    if (!request_.stopping.ignore_eos) {
      admit.held_back_ids.insert(admit.held_back_ids.end(), eos_token_ids.begin(),
                                 eos_token_ids.end());
    }
  }
  return admit;
}

SequenceRows Sequence::PlanRows(int64_t count, uint64_t step) {
  CHECK(count >= 1 && count <= plannable()) << count << " rows of " << plannable();
  SequenceRows rows;
  rows.slot = slot;
  rows.first_position = static_cast<uint64_t>(planned_);
  rows.tokens.reserve(static_cast<size_t>(count));
  const int64_t first = planned_;
  for (const int64_t end = planned_ + count; planned_ < end; ++planned_) {
    if (planned_ < size()) {
      rows.tokens.push_back({.id = tokens_[static_cast<size_t>(planned_)]});
    } else {
      CHECK_EQ(planned_, known_end_ - 1) << "only the newest sample can be in flight here";
      rows.tokens.push_back({.sampled_in_step = last_sample_step_});
    }
  }
  if (request_.score || (WantsScores() && first < prompt_tokens_ - 1)) {
    AddScoreTargets(first, rows);
  }
  rows.sample = !request_.score && planned_ == known_end_;
  if (rows.sample) {
    ++known_end_;
    last_sample_step_ = step;
  }
  return rows;
}

void Sequence::AddScoreTargets(int64_t first, SequenceRows& rows) const {
  rows.score_top = static_cast<uint32_t>(std::max(request_.prompt_logprobs, 0));
  rows.score_targets.reserve(rows.tokens.size());
  for (int64_t position = first; position < planned_; ++position) {
    const bool has_target = position + 1 < prompt_tokens_;
    rows.score_targets.push_back(has_target ? tokens_[static_cast<size_t>(position) + 1] : -1);
  }
}

bool Sequence::IsEnd(int32_t token, absl::Span<const int32_t> eos_token_ids) const {
  const std::vector<int32_t>& stops = request_.stopping.stop_token_ids;
  return std::find(stops.begin(), stops.end(), token) != stops.end() ||
         (!request_.stopping.ignore_eos &&
          std::find(eos_token_ids.begin(), eos_token_ids.end(), token) != eos_token_ids.end());
}

absl::Status Sequence::AcceptScores(int64_t first, int64_t end, const SequenceResult& result) {
  CHECK_EQ(static_cast<int64_t>(result.logprobs.size()), end - first) << "log-probabilities";
  const int32_t top = std::max(request_.prompt_logprobs, 0);
  CHECK_EQ(result.score_top.size(), result.logprobs.size() * static_cast<size_t>(top));
  for (int64_t position = first; position < std::min(end, prompt_tokens_ - 1); ++position) {
    const size_t row = static_cast<size_t>(position - first);
    if (std::isnan(result.logprobs[row])) {
      return absl::InternalError(absl::StrCat("the logits after position ", position,
                                              " are not numbers (NaN); the request is given up"));
    }
    prompt_logprobs_.push_back(result.logprobs[row]);
    AppendRow(result.score_top, row, top, prompt_top_);
  }
  return absl::OkStatus();
}

void Sequence::AcceptToken(const SequenceResult& result, size_t index,
                           absl::Span<const int32_t> eos_token_ids, RequestUpdate& update) {
  const int32_t token = result.tokens[index];
  if (token < 0) {
    const std::string which =
        absl::StrCat("generated token ", generated_tokens(), " (position ", size(), ")");
    update.finish = MakeFinish(
        FinishReason::kError,
        token == kNothingAllowed
            ? absl::InvalidArgumentError(absl::StrCat(
                  "sampling.allowed_token_ids, bad_words and the ids held back by min_tokens leave "
                  "no id to choose for ",
                  which))
            : absl::InternalError(absl::StrCat("the logits for ", which,
                                               " are not numbers (NaN); the request is given up")));
    return;
  }
  tokens_.push_back(token);
  update.tokens.push_back(token);
  if (WantsLogprobs()) {
    update.logprobs.push_back(result.token_logprobs[index]);
    AppendRow(result.token_top, index, request_.sampling.logprobs, update.top);
  }
  if (IsEnd(token, eos_token_ids)) {
    update.finish = MakeFinish(FinishReason::kStop);
  } else if (generated_tokens() == request_.stopping.max_tokens) {
    update.finish = MakeFinish(FinishReason::kLength);
  }
}

void Sequence::Accept(int64_t first, int64_t end, const SequenceResult& result,
                      absl::Span<const int32_t> eos_token_ids, RequestUpdate& update) {
  if (!result.logprobs.empty()) {
    if (absl::Status status = AcceptScores(first, end, result); !status.ok()) {
      update.finish = MakeFinish(FinishReason::kError, std::move(status));
      return;
    }
  }
  if (request_.score && end == prompt_tokens_) {
    update.finish = MakeFinish(FinishReason::kStop);
    return;
  }
  // The first token follows the last row; those that an earlier result gave already are skipped.
  for (size_t i = static_cast<size_t>(std::max<int64_t>(size() - end, 0));
       i < result.tokens.size() && !update.finish.has_value(); ++i) {
    AcceptToken(result, i, eos_token_ids, update);
  }
  known_end_ = std::max(known_end_, size());
}

Finish Sequence::WithCounts(Finish finish) const {
  finish.prompt_tokens = prompt_tokens_;
  finish.completion_tokens = generated_tokens();
  finish.cached_tokens = cached_tokens_.value_or(0);
  if (finish.status.ok()) {
    finish.prompt_logprobs = prompt_logprobs_;
    finish.prompt_top = prompt_top_;
  }
  return finish;
}

void Sequence::Restart() {
  CHECK(!ended);
  slot = kNoSlot;
  blocks.clear();
  blocks_told = blocks_cached = 0;
  cache_node = 0;
  plans_in_flight = 0;
  preempted = false;
  prefill_end_ = known_end_ = size();
  planned_ = 0;
  last_sample_step_ = 0;
  if (WantsScores()) {  // half of them are of no use: they come again from the first row
    prompt_logprobs_.clear();
    prompt_top_.clear();
  }
}

}  // namespace cohort
