#include "launcher/generation_sequence.h"

#include <algorithm>

namespace cohort {
namespace {

double Milliseconds(absl::Time from, absl::Time to) {
  if (from == absl::InfinitePast() || to == absl::InfinitePast()) return 0;
  return std::max(0.0, absl::ToDoubleMilliseconds(to - from));
}

std::string TextOf(const Tokenizer* tokenizer, int32_t id) {
  return tokenizer == nullptr ? "" : tokenizer->Decode({id}, /*skip_special=*/false);
}

void FillTop(const Tokenizer* tokenizer, absl::Span<const TokenLogprob> top,
             v1::TokenLogprob& message) {
  for (const TokenLogprob& candidate : top) {
    v1::TopLogprob& entry = *message.add_top();
    entry.set_token_id(static_cast<uint32_t>(candidate.id));
    entry.set_logprob(candidate.logprob);
    entry.set_text(TextOf(tokenizer, candidate.id));
  }
}

// The i-th group of `count` entries; empty where fewer came.
absl::Span<const TokenLogprob> Group(absl::Span<const TokenLogprob> all, size_t i, int32_t count) {
  const size_t size = static_cast<size_t>(std::max(count, 0));
  return (i + 1) * size <= all.size() ? all.subspan(i * size, size)
                                      : absl::Span<const TokenLogprob>();
}

}  // namespace

void FillTiming(const RequestTiming& timing, v1::Timing& message) {
  message.set_queued_milliseconds(Milliseconds(timing.submitted, timing.scheduled));
  message.set_time_to_first_token_milliseconds(Milliseconds(timing.submitted, timing.first_token));
  message.set_total_milliseconds(Milliseconds(timing.submitted, timing.finished));
}

v1::FinishReason ToProto(FinishReason reason) {
  switch (reason) {
    case FinishReason::kStop:
      return v1::FINISH_REASON_STOP;
    case FinishReason::kLength:
      return v1::FINISH_REASON_LENGTH;
    case FinishReason::kCancelled:
      return v1::FINISH_REASON_CANCELLED;
    case FinishReason::kDeadline:
      return v1::FINISH_REASON_DEADLINE;
    case FinishReason::kError:
      return v1::FINISH_REASON_ERROR;
  }
  return v1::FINISH_REASON_UNSPECIFIED;
}

void FillPromptLogprobs(const Tokenizer* tokenizer, const std::vector<int32_t>& prompt, int32_t top,
                        const Finish& finish,
                        google::protobuf::RepeatedPtrField<v1::TokenLogprob>& messages) {
  if (finish.prompt_logprobs.size() + 1 != prompt.size()) return;
  for (size_t i = 0; i < prompt.size(); ++i) {
    v1::TokenLogprob& message = *messages.Add();
    message.set_token_id(static_cast<uint32_t>(prompt[i]));
    message.set_text(TextOf(tokenizer, prompt[i]));
    if (i == 0) continue;
    message.set_logprob(finish.prompt_logprobs[i - 1]);
    FillTop(tokenizer, Group(finish.prompt_top, i - 1, top), message);
  }
}

GenerationSequence::GenerationSequence(const ServingContext& context, const Generation& generation,
                                       uint32_t index)
    : context_(context), generation_(generation), index_(index), text_(context, generation) {}

v1::Delta GenerationSequence::MakeDelta() const {
  v1::Delta delta;
  delta.set_index(index_);
  delta.set_first_position(static_cast<uint32_t>(delivered_));
  return delta;
}

v1::Delta GenerationSequence::Append(const GeneratedTokens& tokens) {
  v1::Delta delta = MakeDelta();
  std::string text;
  const size_t count = text_.Append(tokens.ids, text);
  if (count == 0) return delta;
  delivered_ += static_cast<int64_t>(count);
  last_id_ = tokens.ids[count - 1];
  if (generation_.output.text()) delta.set_text(std::move(text));
  if (generation_.output.token_ids()) {
    delta.mutable_token_ids()->Assign(tokens.ids.begin(), tokens.ids.begin() + count);
  }
  AppendLogprobs(tokens, count, delta);
  return delta;
}

void GenerationSequence::AppendLogprobs(const GeneratedTokens& tokens, size_t count,
                                        v1::Delta& delta) const {
  for (size_t i = 0; i < std::min(count, tokens.logprobs.size()); ++i) {
    v1::TokenLogprob& message = *delta.add_logprobs();
    message.set_token_id(static_cast<uint32_t>(tokens.ids[i]));
    message.set_logprob(tokens.logprobs[i]);
    message.set_text(TextOf(context_.tokenizer, tokens.ids[i]));
    FillTop(context_.tokenizer, Group(tokens.top, i, generation_.request.sampling.logprobs),
            message);
  }
}

v1::Delta GenerationSequence::Flush() {
  v1::Delta delta = MakeDelta();
  const std::string text = text_.Flush();
  if (generation_.output.text()) delta.set_text(text);
  return delta;
}

void GenerationSequence::FillStop(v1::StopMatch& stop) const {
  if (text_.stop_string().has_value()) {
    stop.set_stop_string(*text_.stop_string());
    return;
  }
  const std::vector<int32_t>& eos = context_.config.eos_token_ids;
  const bool is_eos = std::find(eos.begin(), eos.end(), last_id_) != eos.end();
  if (is_eos && !generation_.request.stopping.ignore_eos) {
    stop.set_eos_token_id(static_cast<uint32_t>(last_id_));
  } else {
    stop.set_stop_token_id(static_cast<uint32_t>(last_id_));
  }
}

v1::Finished GenerationSequence::Finished(const Finish& finish) const {
  v1::Finished finished;
  // A stop string may be complete with the very token that reaches the length.
  const bool is_stop =
      finish.reason == FinishReason::kStop || (finish.reason == FinishReason::kLength && stopped());
  finished.set_index(index_);
  finished.set_reason(is_stop ? v1::FINISH_REASON_STOP : ToProto(finish.reason));
  v1::Usage& usage = *finished.mutable_usage();
  usage.set_prompt_tokens(static_cast<uint32_t>(finish.prompt_tokens));
  // Not the engine's count: tokens after a stop string are not delivered.
  usage.set_completion_tokens(static_cast<uint32_t>(delivered_));
  usage.set_cached_tokens(static_cast<uint32_t>(finish.cached_tokens));
  FillTiming(finish.timing, *finished.mutable_timing());
  if (is_stop) FillStop(*finished.mutable_stop());
  if (index_ == 0 && generation_.request.prompt_logprobs >= 0) {
    FillPromptLogprobs(context_.tokenizer, generation_.request.prompt,
                       generation_.request.prompt_logprobs, finish,
                       *finished.mutable_prompt_logprobs());
  }
  return finished;
}

void AddSequence(const v1::Finished& finished, v1::Usage& usage, v1::Timing& timing) {
  const v1::Usage& own = finished.usage();
  usage.set_prompt_tokens(own.prompt_tokens());
  usage.set_completion_tokens(usage.completion_tokens() + own.completion_tokens());
  if (finished.index() == 0) usage.set_cached_tokens(own.cached_tokens());
  const v1::Timing& times = finished.timing();
  if (finished.index() == 0) timing.set_queued_milliseconds(times.queued_milliseconds());
  const double first = times.time_to_first_token_milliseconds();
  const double before = timing.time_to_first_token_milliseconds();
  // 0: there was no token.
  timing.set_time_to_first_token_milliseconds(first == 0 || before == 0 ? std::max(first, before)
                                                                        : std::min(first, before));
  timing.set_total_milliseconds(std::max(timing.total_milliseconds(), times.total_milliseconds()));
}

bool HasContent(const v1::Delta& delta) {
  return !delta.token_ids().empty() || !delta.text().empty() || !delta.logprobs().empty();
}

void Extend(const v1::Delta& more, v1::Delta& delta) {
  delta.mutable_token_ids()->MergeFrom(more.token_ids());
  delta.mutable_text()->append(more.text());
  delta.mutable_logprobs()->MergeFrom(more.logprobs());
}

}  // namespace cohort
