// The text of one generated sequence as its tokens come: special tokens and the token that ends the
// sequence give none, and no character is ever split. One per sequence.
#ifndef COHORT_LAUNCHER_GENERATED_TEXT_H_
#define COHORT_LAUNCHER_GENERATED_TEXT_H_

#include <optional>
#include <string>
#include <vector>

#include "launcher/serving_context.h"
#include "runtime/request.h"

namespace cohort {

class GeneratedText {
 public:
  GeneratedText(const ServingContext& context, const StoppingParameters& stopping);
  // The text that became certain; empty without a tokenizer.
  std::string Append(absl::Span<const int32_t> ids);
  // What was held back at the end of the sequence.
  std::string Flush();

 private:
  std::optional<IncrementalDecoder> decoder_;
  std::vector<int32_t> ending_ids_;  // ascending; a token of these is the last one
};

}  // namespace cohort

#endif  // COHORT_LAUNCHER_GENERATED_TEXT_H_
