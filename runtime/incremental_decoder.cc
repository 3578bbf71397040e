#include "runtime/tokenizer.h"
#include "runtime/utf8.h"

namespace cohort {

IncrementalDecoder::IncrementalDecoder(const Tokenizer& tokenizer, bool skip_special)
    : tokenizer_(tokenizer), skip_special_(skip_special) {}

std::string IncrementalDecoder::Append(absl::Span<const int32_t> ids) {
  for (const int32_t id : ids) {
    if (skip_special_ && tokenizer_.IsSpecial(id)) continue;
    const StringView bytes = tokenizer_.Bytes(id);
    held_.append(bytes.data(), bytes.size());
  }
  std::string text;
  const size_t held = AppendUtf8Lossy(held_, text);
  held_.erase(0, held_.size() - held);
  return text;
}

std::string IncrementalDecoder::Flush() {
  // The held tail is one incomplete character, so one maximal subpart.
  std::string text = held_.empty() ? "" : kReplacementCharacter;
  held_.clear();
  return text;
}

}  // namespace cohort
