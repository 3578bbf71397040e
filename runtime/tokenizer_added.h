// Added tokens ("<|im_end|>"): found in a text before anything else looks at it.
#ifndef COHORT_RUNTIME_TOKENIZER_ADDED_H_
#define COHORT_RUNTIME_TOKENIZER_ADDED_H_

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "kernels/status.h"

namespace cohort {

struct AddedToken {
  int32_t id = 0;
  std::string content;
  bool special = false;
  bool normalized = false;   // looked for in the normalised text, not in the raw one
  bool strips_left = false;  // swallows the white space before it
  bool strips_right = false;
  bool single_word = false;  // only where no word character touches it
};

// Finds the leftmost, longest of a set of added tokens, again and again. Immutable.
class AddedTokenMatcher {
 public:
  // Contents must not be empty.
  explicit AddedTokenMatcher(std::vector<AddedToken> tokens);

  // Calls `token` with the id of each occurrence and `segment` with each non-empty text between
  // them, in order. Stops at the first error of `segment`.
  absl::Status Split(StringView text, absl::FunctionRef<void(int32_t)> token,
                     absl::FunctionRef<absl::Status(StringView)> segment) const;

 private:
  // The longest token that is a prefix of `text`; nullptr when none is.
  const AddedToken* LongestAt(StringView text) const;

  std::vector<AddedToken> tokens_;                        // longest first
  std::array<std::vector<uint32_t>, 256> by_first_byte_;  // indices into tokens_, ascending
};

}  // namespace cohort

#endif  // COHORT_RUNTIME_TOKENIZER_ADDED_H_
