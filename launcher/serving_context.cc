#include "launcher/serving_context.h"

#include <algorithm>

namespace cohort {

int64_t MaxPromptBytes(const Tokenizer& tokenizer, int64_t max_model_len) {
  // Composition (NFC) shortens a text, at worst three bytes to one; 4 leaves room.
  constexpr int64_t kNormalisationFactor = 4;
  int64_t longest = 1;
  for (int64_t id = 0; id < tokenizer.size(); ++id) {
    longest =
        std::max(longest, static_cast<int64_t>(tokenizer.Bytes(static_cast<int32_t>(id)).size()));
  }
  return max_model_len * longest * kNormalisationFactor;
}

}  // namespace cohort
