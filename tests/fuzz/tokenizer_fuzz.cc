// A tokenizer that parses encodes any text, and its ids decode.
#include "kernels/check.h"
#include "runtime/tokenizer.h"
#include "runtime/utf8.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const cohort::StringView json(reinterpret_cast<const char*>(data), size);
  const auto tokenizer = cohort::Tokenizer::Parse(json, "tokenizer.json");
  if (!tokenizer.ok()) {
    CHECK(absl::IsInvalidArgument(tokenizer.status())) << tokenizer.status().ToString();
    return 0;
  }
  for (const cohort::StringView text : {"", "Hello, world's 123\r\n\n  <|im_start|>a<|im_end|>",
                                        "e\u0301 \u4E2D\u6587\U0001F600", "aaab ab"}) {
    for (const bool parse_special : {false, true}) {
      const auto ids = (*tokenizer)->Encode(text, parse_special);
      if (!ids.ok()) continue;  // a byte without a token, or a pattern that gave up
      for (const int32_t id : *ids) CHECK(id >= 0 && id < (*tokenizer)->size()) << id;
      CHECK(cohort::IsUtf8((*tokenizer)->Decode(*ids, parse_special)));
    }
  }
  return 0;
}
