// Small tokenizers for tests, as JSON to be changed and parsed.
#ifndef COHORT_TESTS_RUNTIME_TOKENIZER_FIXTURE_H_
#define COHORT_TESTS_RUNTIME_TOKENIZER_FIXTURE_H_

#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "runtime/tokenizer.h"

namespace cohort {

// The Qwen2 form with ids by hand: 0..255 are the bytes of that value, then the merges in order,
//   256 "he"  257 "ll"  258 "hell"  259 "hello"  260 "aa"  261 "aaaa"  262 "ab"  263 " w"
// then the added tokens 264 "<|endoftext|>"  265 "<|im_start|>"  266 "<|im_end|>".
nlohmann::json TinyTokenizerJson();

// An added token with all flags false but `special`.
nlohmann::json AddedTokenJson(int id, const std::string& content, bool special);

// The byte-level spelling of bytes: " w" is "Ġw".
std::string ByteLevelText(StringView bytes);

// Parses it; a failure is a bug of the test.
std::unique_ptr<Tokenizer> MakeTokenizer(const nlohmann::json& file);
// The error that parsing gives; empty when there is none.
std::string TokenizerError(const nlohmann::json& file);

std::vector<int32_t> EncodeOrDie(const Tokenizer& tokenizer, StringView text,
                                 bool parse_special = true);

// The objects of a file with one per line.
std::vector<nlohmann::json> ReadJsonLines(const std::string& path);

}  // namespace cohort

#endif  // COHORT_TESTS_RUNTIME_TOKENIZER_FIXTURE_H_
