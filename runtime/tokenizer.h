// tokenizer.json of the Qwen2 family: byte-level BPE with NFC normalisation and added tokens.
// Immutable after loading; safe to use from any number of threads.
#ifndef COHORT_RUNTIME_TOKENIZER_H_
#define COHORT_RUNTIME_TOKENIZER_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/types/span.h"
#include "kernels/status.h"

namespace cohort {

class Tokenizer {
 public:
  // Parses the text of a tokenizer.json. INVALID_ARGUMENT names what is broken or unsupported.
  static absl::StatusOr<std::unique_ptr<Tokenizer>> Parse(StringView json, StringView what);
  // Reads MODEL_DIR/tokenizer.json; NOT_FOUND when there is none.
  static absl::StatusOr<std::unique_ptr<Tokenizer>> Load(const std::string& model_dir);
  ~Tokenizer();

  // INVALID_ARGUMENT when `text` is not UTF-8. With `parse_special`, added tokens in the text
  // become their ids (as transformers does); without, they are ordinary text.
  absl::StatusOr<std::vector<int32_t>> Encode(StringView text, bool parse_special = true) const;

  // The bytes of one id (an added token: its text); empty for ids without a token.
  StringView Bytes(int32_t id) const;
  bool IsSpecial(int32_t id) const;

  // Invalid UTF-8 becomes U+FFFD per maximal invalid subpart.
  std::string Decode(absl::Span<const int32_t> ids, bool skip_special) const;

  // One more than the largest id that has a token.
  int64_t size() const;
  // -1 when there is none. "<|im_end|>" and the like.
  int32_t IdOfAddedToken(StringView text) const;

 private:
  class State;
  explicit Tokenizer(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

// Turns a stream of ids into text without ever splitting a character: a trailing incomplete but
// still possible sequence is held back, bytes that can never complete become U+FFFD at once. One
// per stream.
class IncrementalDecoder {
 public:
  IncrementalDecoder(const Tokenizer& tokenizer, bool skip_special);
  // The text that became certain.
  std::string Append(absl::Span<const int32_t> ids);
  // What was held back, as U+FFFD; the decoder is empty afterwards.
  std::string Flush();

 private:
  const Tokenizer& tokenizer_;
  bool skip_special_;
  std::string held_;
};

}  // namespace cohort

#endif  // COHORT_RUNTIME_TOKENIZER_H_
