// The text of one generated sequence as its tokens come: special tokens and the token that ends the
// sequence give none, no character is ever split, and a stop string ends it. One per sequence.
#ifndef COHORT_LAUNCHER_GENERATED_TEXT_H_
#define COHORT_LAUNCHER_GENERATED_TEXT_H_

#include <optional>
#include <string>
#include <vector>

#include "launcher/generation_validation.h"
#include "launcher/serving_context.h"
#include "runtime/stop_strings.h"

namespace cohort {

class GeneratedText {
 public:
  GeneratedText(const ServingContext& context, const Generation& generation);

  // Takes ids up to the one that completes a stop string, and returns how many those are. What
  // became certain is appended to `text`: nothing without a tokenizer.
  size_t Append(absl::Span<const int32_t> ids, std::string& text);

  // The stop string that was found; nothing more is taken then.
  std::optional<std::string> stop_string() const;

  // What was held back at the end of the sequence.
  std::string Flush();

 private:
  std::optional<IncrementalDecoder> decoder_;
  std::vector<int32_t> ending_ids_;  // ascending; a token of these is the last one
  std::vector<std::string> stop_strings_;
  std::optional<StopStringMatcher> matcher_;
  int64_t tokens_before_stop_;  // whose text is not searched
};

}  // namespace cohort

#endif  // COHORT_LAUNCHER_GENERATED_TEXT_H_
