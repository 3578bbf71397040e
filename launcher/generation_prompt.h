// The prompts of requests: text, chat or ids, checked against the served model and its tokenizer
// and turned into ids. Faults become violations of their field; FAILED_PRECONDITION where the
// server has no tokenizer or does not know the model's chat template.
#ifndef COHORT_LAUNCHER_GENERATION_PROMPT_H_
#define COHORT_LAUNCHER_GENERATION_PROMPT_H_

#include <cstdint>
#include <string>
#include <vector>

#include "cohort/v1/generation.pb.h"
#include "launcher/serving_context.h"
#include "launcher/status_details.h"

namespace cohort {

// The oneof `input` of a request; at most one is set. Borrowed.
struct PromptView {
  const std::string* text = nullptr;
  const v1::TokenIds* token_ids = nullptr;
  const v1::Chat* chat = nullptr;
  StringView field() const;  // the name of the one that is set
};

template <class R>
PromptView PromptOf(const R& request) {
  PromptView prompt;
  if (request.has_text()) prompt.text = &request.text();
  if (request.has_token_ids()) prompt.token_ids = &request.token_ids();
  if (request.has_chat()) prompt.chat = &request.chat();
  return prompt;
}

// Never empty without a violation.
absl::StatusOr<std::vector<int32_t>> ResolvePrompt(const PromptView& prompt,
                                                   const ServingContext& context,
                                                   FieldViolations& violations);

// The ids of a text; its length in bytes is bounded before it is tokenised.
absl::StatusOr<std::vector<int32_t>> EncodeText(const std::string& text, StringView field,
                                                bool parse_special, const ServingContext& context,
                                                FieldViolations& violations);

// Adds at most one violation per list, for the first id that has no row in the embedding.
std::vector<int32_t> CheckIds(const google::protobuf::RepeatedField<uint32_t>& ids,
                              StringView field, int64_t vocabulary, FieldViolations& violations);

absl::Status NoTokenizer(const ServingContext& context);

// The texts of Tokenize and the ids of Detokenize.
absl::StatusOr<std::vector<int32_t>> TokenizeText(const v1::TokenizeRequest& request,
                                                  const ServingContext& context);
absl::StatusOr<std::vector<int32_t>> ValidateDetokenize(const v1::DetokenizeRequest& request,
                                                        const ServingContext& context);

}  // namespace cohort

#endif  // COHORT_LAUNCHER_GENERATION_PROMPT_H_
