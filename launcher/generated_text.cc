#include "launcher/generated_text.h"

#include <algorithm>

namespace cohort {

GeneratedText::GeneratedText(const ServingContext& context, const StoppingParameters& stopping) {
  if (context.tokenizer == nullptr) return;
  decoder_.emplace(*context.tokenizer, /*skip_special=*/true);
  ending_ids_ = stopping.stop_token_ids;
  if (!stopping.ignore_eos) {
    const std::vector<int32_t>& eos = context.config.eos_token_ids;
    ending_ids_.insert(ending_ids_.end(), eos.begin(), eos.end());
  }
  std::sort(ending_ids_.begin(), ending_ids_.end());
}

std::string GeneratedText::Append(absl::Span<const int32_t> ids) {
  if (!decoder_.has_value()) return "";
  size_t kept = 0;
  while (kept < ids.size() &&
         !std::binary_search(ending_ids_.begin(), ending_ids_.end(), ids[kept])) {
    ++kept;
  }
  return decoder_->Append(ids.subspan(0, kept));
}

std::string GeneratedText::Flush() { return decoder_.has_value() ? decoder_->Flush() : ""; }

}  // namespace cohort
