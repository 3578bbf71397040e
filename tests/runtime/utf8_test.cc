#include "runtime/utf8.h"

#include <gtest/gtest.h>

namespace cohort {
namespace {

using Kind = Utf8Unit::Kind;

std::string Lossy(StringView bytes) {
  std::string text;
  if (AppendUtf8Lossy(bytes, text) > 0) text += "(held)";
  return text;
}

TEST(Utf8, EveryCharacterIsReadAsItWasWritten) {
  for (uint32_t c = 0; c <= 0x10FFFF; ++c) {
    if (c >= 0xD800 && c <= 0xDFFF) continue;
    std::string bytes;
    AppendUtf8(c, bytes);
    const Utf8Unit unit = FirstUtf8Unit(bytes + "x");
    ASSERT_EQ(unit.kind, Kind::kCharacter) << c;
    ASSERT_EQ(unit.length, bytes.size()) << c;
    ASSERT_EQ(unit.code_point, c);
  }
}

TEST(Utf8, EveryProperPrefixOfACharacterIsIncomplete) {
  for (const StringView character :
       {"\xC2\x80", "\xE0\xA0\x80", "\xED\x9F\xBF", "\xF0\x90\x80\x80", "\xF4\x8F\xBF\xBF"}) {
    for (size_t length = 1; length < character.size(); ++length) {
      const Utf8Unit unit = FirstUtf8Unit(character.substr(0, length));
      EXPECT_EQ(unit.kind, Kind::kIncomplete);
      EXPECT_EQ(unit.length, length);
    }
  }
}

TEST(Utf8, BytesThatCanNeverCompleteAreInvalidAtOnce) {
  for (const StringView bytes : {"\x80", "\xBF", "\xC0", "\xC1", "\xF5", "\xFF"}) {
    EXPECT_EQ(FirstUtf8Unit(bytes).kind, Kind::kInvalid);
    EXPECT_EQ(FirstUtf8Unit(bytes).length, 1u);
  }
  // Overlong, surrogate, above U+10FFFF: the second byte already decides.
  for (const StringView bytes :
       {"\xE0\x80", "\xED\xA0", "\xF0\x80", "\xF4\x90", "\xC3(", "\xE4("}) {
    EXPECT_EQ(FirstUtf8Unit(bytes).kind, Kind::kInvalid);
    EXPECT_EQ(FirstUtf8Unit(bytes).length, 1u);
  }
}

TEST(Utf8, ReplacesEachMaximalSubpartOnce) {
  // The example of the Unicode standard, section 3.9, table 3-8 and its successors.
  EXPECT_EQ(Lossy("\xC0\xAF\xE0\x80\xBF\xF0\x81\x82"
                  "A"),
            "\uFFFD\uFFFD\uFFFD\uFFFD\uFFFD\uFFFD\uFFFD\uFFFDA");
  EXPECT_EQ(Lossy("\xED\xA0\x80\xED\xBF\xBF\xED\xAF"
                  "A"),
            "\uFFFD\uFFFD\uFFFD\uFFFD\uFFFD\uFFFD\uFFFD\uFFFDA");
  EXPECT_EQ(Lossy("\xF4\x91\x92\x93\xFF"
                  "A\x80\xBF"
                  "B"),
            "\uFFFD\uFFFD\uFFFD\uFFFD\uFFFDA\uFFFD\uFFFDB");
  EXPECT_EQ(Lossy("\xE1\x80\xE2\xF0\x91\x92\xF1\xBF"
                  "A"),
            "\uFFFD\uFFFD\uFFFD\uFFFDA");
}

TEST(Utf8, HoldsAnIncompleteTailOnly) {
  std::string text;
  EXPECT_EQ(AppendUtf8Lossy("a\xE4\xB8", text), 2u);
  EXPECT_EQ(text, "a");
  EXPECT_EQ(AppendUtf8Lossy("b\xE4\xB8(", text), 0u);
  EXPECT_EQ(text, "ab\uFFFD(");
  EXPECT_EQ(AppendUtf8Lossy("", text), 0u);
}

TEST(Utf8, PrefixEndsBeforeTheFirstFault) {
  EXPECT_EQ(Utf8Prefix("h\u00E9\xFF!"), 3u);
  EXPECT_EQ(Utf8Prefix("h\xC3"), 1u);
  EXPECT_TRUE(IsUtf8(StringView("\0\xF0\x9F\x98\x80", 5)));
  EXPECT_FALSE(IsUtf8("\xED\xA0\x80"));
}

}  // namespace
}  // namespace cohort
