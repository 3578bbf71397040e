#include "launcher/generated_text.h"

#include <algorithm>

namespace cohort {

GeneratedText::GeneratedText(const ServingContext& context, const Generation& generation)
    : stop_strings_(generation.stopping.stop_strings().begin(),
                    generation.stopping.stop_strings().end()),
      tokens_before_stop_(generation.request.stopping.min_tokens) {
  if (context.tokenizer == nullptr) return;
  decoder_.emplace(*context.tokenizer, generation.output.skip_special());
  if (!stop_strings_.empty()) matcher_.emplace(stop_strings_, generation.stopping.include_stop());
  const StoppingParameters& stopping = generation.request.stopping;
  ending_ids_ = stopping.stop_token_ids;
  if (!stopping.ignore_eos) {
    const std::vector<int32_t>& eos = context.config.eos_token_ids;
    ending_ids_.insert(ending_ids_.end(), eos.begin(), eos.end());
  }
  std::sort(ending_ids_.begin(), ending_ids_.end());
}

size_t GeneratedText::Append(absl::Span<const int32_t> ids, std::string& text) {
  if (!decoder_.has_value()) return ids.size();
  for (size_t i = 0; i < ids.size(); ++i) {
    if (stop_string().has_value()) return i;
    if (std::binary_search(ending_ids_.begin(), ending_ids_.end(), ids[i])) continue;
    const std::string decoded = decoder_->Append(ids.subspan(i, 1));
    if (tokens_before_stop_ > 0 || !matcher_.has_value()) {
      text += decoded;
    } else {
      text += matcher_->Append(decoded);
    }
    --tokens_before_stop_;
  }
  return ids.size();
}

std::optional<std::string> GeneratedText::stop_string() const {
  if (!matcher_.has_value() || !matcher_->match().has_value()) return std::nullopt;
  return stop_strings_[*matcher_->match()];
}

std::string GeneratedText::Flush() {
  if (!decoder_.has_value() || stop_string().has_value()) return "";
  std::string text = matcher_.has_value() ? matcher_->Flush() : "";
  return text + decoder_->Flush();
}

}  // namespace cohort
