// Decoding piece by piece equals decoding at once, and encoding loses nothing but the form of
// normalisation. The first byte of the input says how it is cut, the rest is text.
#include <memory>
#include <vector>

#include "kernels/check.h"
#include "runtime/tokenizer_nfc.h"
#include "runtime/utf8.h"
#include "tests/runtime/tokenizer_fixture.h"

namespace {

void CheckIncremental(const cohort::Tokenizer& tokenizer, const std::vector<int32_t>& ids,
                      size_t step) {
  cohort::IncrementalDecoder decoder(tokenizer, false);
  std::string text;
  for (size_t begin = 0; begin < ids.size(); begin += step) {
    const std::string part = decoder.Append(absl::MakeConstSpan(ids).subspan(begin, step));
    CHECK(cohort::IsUtf8(part));
    text += part;
  }
  text += decoder.Flush();
  CHECK(text == tokenizer.Decode(ids, false)) << "in steps of " << step;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const std::unique_ptr<cohort::Tokenizer> tokenizer =
      cohort::MakeTokenizer(cohort::TinyTokenizerJson());
  if (size == 0) return 0;
  const cohort::StringView text(reinterpret_cast<const char*>(data) + 1, size - 1);
  // In this tokenizer the ids 0 to 255 are the bytes.
  CheckIncremental(*tokenizer, std::vector<int32_t>(data + 1, data + size), 1 + data[0] % 8);
  const auto ids = tokenizer->Encode(text, data[0] < 128);
  CHECK_EQ(ids.ok(), cohort::IsUtf8(text));
  if (!ids.ok()) return 0;
  CheckIncremental(*tokenizer, *ids, 1 + data[0] % 8);
  if (data[0] >= 128) {
    CHECK(tokenizer->Decode(*ids, false) == cohort::NormalizeNfc(text));
  }
  return 0;
}
