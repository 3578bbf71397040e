#include "runtime/scheduler_sequence.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "kernels/check.h"

namespace cohort {
namespace {

Finish MakeFinish(FinishReason reason, absl::Status status = absl::OkStatus()) {
  Finish finish;
  finish.reason = reason;
  finish.status = std::move(status);
  return finish;
}

}  // namespace

Sequence::Sequence(RequestId id, Request request)
    : id_(id),
      request_(std::move(request)),
      prompt_tokens_(static_cast<int64_t>(request_.prompt.size())),
      tokens_(std::move(request_.prompt)),
      prefill_end_(prompt_tokens_),
      known_end_(prompt_tokens_) {}

int64_t Sequence::PositionsNeeded(int64_t prompt_tokens, const Request& request) {
  return request.score ? prompt_tokens : prompt_tokens + request.stopping.max_tokens - 1;
}

int64_t Sequence::plannable() const { return std::min(known_end_, positions_needed()) - planned_; }

SequenceRows Sequence::PlanRows(int64_t count, uint64_t step) {
  CHECK(count >= 1 && count <= plannable()) << count << " rows of " << plannable();
  SequenceRows rows;
  rows.slot = slot;
  rows.first_position = static_cast<uint64_t>(planned_);
  rows.tokens.reserve(static_cast<size_t>(count));
  for (const int64_t end = planned_ + count; planned_ < end; ++planned_) {
    if (planned_ < size()) {
      rows.tokens.push_back({.id = tokens_[static_cast<size_t>(planned_)]});
    } else {
      CHECK_EQ(planned_, known_end_ - 1) << "only the newest sample can be in flight here";
      rows.tokens.push_back({.sampled_in_step = last_sample_step_});
    }
    if (request_.score) {
      const bool last = planned_ + 1 == prompt_tokens_;
      rows.score_targets.push_back(last ? -1 : tokens_[static_cast<size_t>(planned_) + 1]);
    }
  }
  rows.sample = !request_.score && planned_ == known_end_;
  if (rows.sample) {
    ++known_end_;
    last_sample_step_ = step;
  }
  return rows;
}

bool Sequence::IsEnd(int32_t token, absl::Span<const int32_t> eos_token_ids) const {
  const std::vector<int32_t>& stops = request_.stopping.stop_token_ids;
  return std::find(stops.begin(), stops.end(), token) != stops.end() ||
         (!request_.stopping.ignore_eos &&
          std::find(eos_token_ids.begin(), eos_token_ids.end(), token) != eos_token_ids.end());
}

absl::Status Sequence::AcceptScores(int64_t first, int64_t end, absl::Span<const float> logprobs) {
  CHECK_EQ(static_cast<int64_t>(logprobs.size()), end - first) << "log-probabilities";
  for (int64_t position = first; position < std::min(end, prompt_tokens_ - 1); ++position) {
    const float logprob = logprobs[static_cast<size_t>(position - first)];
    if (std::isnan(logprob)) {
      return absl::InternalError(absl::StrCat("the logits after position ", position,
                                              " are not numbers (NaN); the request is given up"));
    }
    prompt_logprobs_.push_back(logprob);
  }
  return absl::OkStatus();
}

std::vector<int32_t> Sequence::Accept(int64_t first, int64_t end, const SequenceResult* result,
                                      absl::Span<const int32_t> eos_token_ids,
                                      std::optional<Finish>& finish) {
  std::vector<int32_t> fresh;
  if (result == nullptr) {
    return fresh;
  }
  if (request_.score) {
    if (absl::Status status = AcceptScores(first, end, result->logprobs); !status.ok()) {
      finish = MakeFinish(FinishReason::kError, std::move(status));
    } else if (end == prompt_tokens_) {
      finish = MakeFinish(FinishReason::kStop);
    }
    return fresh;
  }
  // The first token follows the last row; those that an earlier result gave already are skipped.
  for (size_t i = static_cast<size_t>(std::max<int64_t>(size() - end, 0));
       i < result->tokens.size() && !finish.has_value(); ++i) {
    const int32_t token = result->tokens[i];
    if (token < 0) {
      finish = MakeFinish(FinishReason::kError,
                          absl::InternalError(absl::StrCat(
                              "the logits for generated token ", generated_tokens(), " (position ",
                              size(), ") are not numbers (NaN); the request is given up")));
      break;
    }
    tokens_.push_back(token);
    fresh.push_back(token);
    if (IsEnd(token, eos_token_ids)) {
      finish = MakeFinish(FinishReason::kStop);
    } else if (generated_tokens() == request_.stopping.max_tokens) {
      finish = MakeFinish(FinishReason::kLength);
    }
  }
  known_end_ = std::max(known_end_, size());
  return fresh;
}

Finish Sequence::WithCounts(Finish finish) const {
  finish.prompt_tokens = prompt_tokens_;
  finish.completion_tokens = generated_tokens();
  finish.prompt_logprobs =
      finish.reason == FinishReason::kStop ? prompt_logprobs_ : std::vector<float>();
  return finish;
}

void Sequence::Restart() {
  CHECK(!ended);
  slot = kNoSlot;
  blocks.clear();
  blocks_promised = 0;
  plans_in_flight = 0;
  prefill_end_ = known_end_ = size();
  planned_ = 0;
  last_sample_step_ = 0;
  prompt_logprobs_.clear();
}

}  // namespace cohort
