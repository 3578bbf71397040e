#include "runtime/tokenizer_nfc.h"

#include <gtest/gtest.h>
#include <utf8proc.h>

#include <cstdlib>
#include <random>

#include "runtime/utf8.h"

namespace cohort {
namespace {

// utf8proc's own composition of everything at once.
std::string Expected(const std::string& text) {
  utf8proc_uint8_t* normalized = nullptr;
  const utf8proc_ssize_t length =
      utf8proc_map(reinterpret_cast<const utf8proc_uint8_t*>(text.data()),
                   static_cast<utf8proc_ssize_t>(text.size()), &normalized,
                   static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_COMPOSE));
  EXPECT_GE(length, 0);
  std::string result(reinterpret_cast<const char*>(normalized), static_cast<size_t>(length));
  std::free(normalized);
  return result;
}

TEST(TokenizerNfc, EveryCharacterNormalisesAsInTheLibrary) {
  for (uint32_t c = 0; c <= 0x10FFFF; ++c) {
    if (c >= 0xD800 && c <= 0xDFFF) continue;
    std::string text;
    AppendUtf8(c, text);
    ASSERT_EQ(NormalizeNfc(text), Expected(text)) << c;
  }
}

TEST(TokenizerNfc, MarksAreOrderedAndComposed) {
  EXPECT_EQ(NormalizeNfc("e\u0301"), "\u00E9");
  EXPECT_EQ(NormalizeNfc("q\u0301\u0323"), "q\u0323\u0301");
  EXPECT_EQ(NormalizeNfc("o\u0302\u0323"), "\u1ED9");
  EXPECT_EQ(NormalizeNfc("\u1100\u1161\u11A8"), "\uAC01");
  EXPECT_EQ(NormalizeNfc("\u0958"), "\u0915\u093C");  // excluded from composition
  EXPECT_EQ(NormalizeNfc("\uFB01"), "\uFB01");        // compatibility only
  EXPECT_EQ(NormalizeNfc(""), "");
}

TEST(TokenizerNfc, RandomRunsOfMarksNormaliseAsInTheLibrary) {
  constexpr unsigned kSeed = 3;
  SCOPED_TRACE(kSeed);
  std::mt19937 random(kSeed);
  for (int round = 0; round < 2000; ++round) {
    std::string text;
    for (int i = 0; i < 12; ++i) {
      const bool is_mark = random() % 4 != 0;
      AppendUtf8(is_mark ? 0x300 + random() % 0x70 : 'A' + random() % 0x3000, text);
    }
    ASSERT_EQ(NormalizeNfc(text), Expected(text));
  }
}

TEST(TokenizerNfc, WordCharactersAreLettersMarksDigitsAndJoiners) {
  for (const uint32_t c : {0x61, 0x5F, 0x35, 0xE9, 0x301, 0x2167, 0x24B6, 0x203F, 0x200D, 0x4E2D}) {
    EXPECT_TRUE(IsWordCharacter(c)) << c;
  }
  for (const uint32_t c : {0x20, 0x2D, 0x27, 0xBD, 0x2460, 0x1F600, 0x378}) {
    EXPECT_FALSE(IsWordCharacter(c)) << c;
  }
}

}  // namespace
}  // namespace cohort
