#include <gtest/gtest.h>

#include <random>

#include "runtime/utf8.h"
#include "tests/runtime/tokenizer_fixture.h"

namespace cohort {
namespace {

// In the tiny tokenizer the ids 0..255 are the bytes.
std::vector<int32_t> BytesAsIds(StringView bytes) {
  std::vector<int32_t> ids;
  for (const char c : bytes) ids.push_back(static_cast<unsigned char>(c));
  return ids;
}

TEST(IncrementalDecoder, HoldsACharacterUntilItIsWhole) {
  const auto tokenizer = MakeTokenizer(TinyTokenizerJson());
  IncrementalDecoder decoder(*tokenizer, true);
  EXPECT_EQ(decoder.Append({'a', 0xF0}), "a");
  EXPECT_EQ(decoder.Append({0x9F}), "");
  EXPECT_EQ(decoder.Append({0x98}), "");
  EXPECT_EQ(decoder.Append({0x80, 'b'}), "\U0001F600b");
  EXPECT_EQ(decoder.Flush(), "");
}

TEST(IncrementalDecoder, ReplacesAtOnceWhatCanNeverComplete) {
  const auto tokenizer = MakeTokenizer(TinyTokenizerJson());
  IncrementalDecoder decoder(*tokenizer, true);
  EXPECT_EQ(decoder.Append({0xFF}), "\uFFFD");
  EXPECT_EQ(decoder.Append({0xE4}), "");
  EXPECT_EQ(decoder.Append({0xE4}), "\uFFFD");
  EXPECT_EQ(decoder.Append({0xB8, 0xAD}), "\u4E2D");
}

TEST(IncrementalDecoder, FlushesTheHeldTailAsOneReplacementAndIsEmptyThen) {
  const auto tokenizer = MakeTokenizer(TinyTokenizerJson());
  IncrementalDecoder decoder(*tokenizer, true);
  EXPECT_EQ(decoder.Append({0xF0, 0x9F, 0x98}), "");
  EXPECT_EQ(decoder.Flush(), "\uFFFD");
  EXPECT_EQ(decoder.Flush(), "");
  EXPECT_EQ(decoder.Append({0x80}), "\uFFFD");
}

TEST(IncrementalDecoder, DropsSpecialTokensOnlyWhenAsked) {
  const auto tokenizer = MakeTokenizer(TinyTokenizerJson());
  IncrementalDecoder with(*tokenizer, false);
  IncrementalDecoder without(*tokenizer, true);
  EXPECT_EQ(with.Append({259, 266, 'x'}), "hello<|im_end|>x");
  EXPECT_EQ(without.Append({259, 266, 'x'}), "hellox");
}

TEST(IncrementalDecoder, IgnoresIdsWithoutAToken) {
  const auto tokenizer = MakeTokenizer(TinyTokenizerJson());
  IncrementalDecoder decoder(*tokenizer, true);
  EXPECT_EQ(decoder.Append({0xE4, 267, -1, 1 << 30, 0xB8, 0xAD}), "\u4E2D");
}

// Bytes that are often nearly right: leads, continuations and letters.
std::string RandomBytes(std::mt19937& random, size_t length) {
  constexpr unsigned char kPool[] = {'a',  0x80, 0x8F, 0x90, 0x9F, 0xA0, 0xBF, 0xC1, 0xC2,
                                     0xDF, 0xE0, 0xE4, 0xED, 0xEF, 0xF0, 0xF1, 0xF4, 0xF5};
  std::string bytes;
  for (size_t i = 0; i < length; ++i) bytes += static_cast<char>(kPool[random() % sizeof(kPool)]);
  return bytes;
}

TEST(IncrementalDecoder, EverySplitGivesTheTextOfTheWhole) {
  constexpr unsigned kSeed = 7;
  SCOPED_TRACE(kSeed);
  std::mt19937 random(kSeed);
  const auto tokenizer = MakeTokenizer(TinyTokenizerJson());
  for (int round = 0; round < 300; ++round) {
    const std::string bytes = RandomBytes(random, 1 + random() % 9);
    const std::vector<int32_t> ids = BytesAsIds(bytes);
    const std::string whole = tokenizer->Decode(ids, false);
    EXPECT_TRUE(IsUtf8(whole));
    // Bit i of a mask: an Append() ends after byte i.
    for (uint32_t mask = 0; mask < 1u << (ids.size() - 1); ++mask) {
      IncrementalDecoder decoder(*tokenizer, false);
      std::string text;
      size_t begin = 0;
      for (size_t i = 0; i < ids.size(); ++i) {
        if (i + 1 < ids.size() && (mask >> i & 1) == 0) continue;
        const std::string part =
            decoder.Append(absl::MakeConstSpan(ids).subspan(begin, i + 1 - begin));
        ASSERT_TRUE(IsUtf8(part));
        text += part;
        begin = i + 1;
      }
      text += decoder.Flush();
      ASSERT_EQ(text, whole);
    }
  }
}

}  // namespace
}  // namespace cohort
