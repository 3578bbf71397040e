// tokenizer.json as data: what Tokenizer is built from, every component checked to be one that is
// understood.
#ifndef COHORT_RUNTIME_TOKENIZER_FILE_H_
#define COHORT_RUNTIME_TOKENIZER_FILE_H_

#include <string>
#include <vector>

#include "kernels/status.h"
#include "runtime/json.h"
#include "runtime/tokenizer_added.h"
#include "runtime/tokenizer_bpe.h"

namespace cohort {

// Cuts each piece at the matches of a pattern.
struct SplitRule {
  std::string pattern;
  bool is_regex = false;  // otherwise a text to find
};

struct PreTokenizerRules {
  std::vector<SplitRule> splits;  // in this order
  // Of the byte level at the end: puts a space before a piece that has none, before cutting it.
  bool adds_prefix_space = false;
  bool splits_words = false;  // cuts with the pattern of GPT-2 in addition
};

struct TokenizerFile {
  bool normalizes_nfc = false;
  PreTokenizerRules pre_tokenizer;
  std::vector<AddedToken> added_tokens;
  std::vector<std::string> token_bytes;  // by id, without gaps; of an added token: its text
  BpeModel model;
};

// INVALID_ARGUMENT says what is broken, or which component of which type is not supported.
absl::StatusOr<TokenizerFile> ReadTokenizerFile(const Json& root);

// The parts of it.
absl::StatusOr<bool> ReadNormalizer(const Json* normalizer);  // whether it is NFC
absl::StatusOr<PreTokenizerRules> ReadPreTokenizer(const Json* pre_tokenizer);
absl::Status CheckPostProcessor(const Json* post_processor);
absl::Status CheckDecoder(const Json* decoder);
absl::StatusOr<std::vector<AddedToken>> ReadAddedTokens(const Json* added_tokens);

// Typed members. An absent or null one is `otherwise`; a required one is an error that names it.
absl::StatusOr<bool> BoolMember(const Json& object, StringView key, bool otherwise);
absl::StatusOr<std::string> StringMember(const Json& object, StringView key, StringView otherwise);
absl::StatusOr<std::string> RequiredString(const Json& object, StringView key);

}  // namespace cohort

#endif  // COHORT_RUNTIME_TOKENIZER_FILE_H_
