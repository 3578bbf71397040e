#include "runtime/tokenizer_regex.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <vector>

#include "runtime/tokenizer_nfc.h"
#include "runtime/utf8.h"

namespace cohort {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

absl::StatusOr<std::vector<std::string>> TrySplit(const SplitPattern& pattern, StringView text) {
  RegexScratch scratch;
  std::vector<std::string> pieces;
  RETURN_IF_ERROR(pattern.Split(text, scratch, [&pieces](StringView piece) {
    pieces.emplace_back(piece);
    return absl::OkStatus();
  }));
  return pieces;
}

std::vector<std::string> Split(StringView pattern, StringView text) {
  return TrySplit(SplitPattern::Regex(pattern).value(), text).value();
}

// Whether the pattern, made for one character, takes the middle one of "a?b".
bool TakesMiddle(const SplitPattern& pattern, uint32_t code_point) {
  std::string text = "a";
  AppendUtf8(code_point, text);
  const auto pieces = TrySplit(pattern, text + "b").value();
  return pieces.size() == 3;
}

TEST(TokenizerRegex, GivesMatchesAndGapsInOrder) {
  EXPECT_THAT(Split("b+", "abbcb"), ElementsAre("a", "bb", "c", "b"));
  EXPECT_THAT(Split("x", "abc"), ElementsAre("abc"));
  EXPECT_THAT(Split("x", ""), IsEmpty());
}

TEST(TokenizerRegex, AnEmptyMatchCuts) {
  EXPECT_THAT(Split("x*", "axb"), ElementsAre("a", "x", "b"));
  EXPECT_THAT(Split("(?=\u00E9)", "a\u00E9\u00E9"), ElementsAre("a", "\u00E9", "\u00E9"));
}

TEST(TokenizerRegex, SpacesAreThoseOfUnicodesWhiteSpace) {
  const SplitPattern space = SplitPattern::Regex("\\s").value();
  const SplitPattern in_class = SplitPattern::Regex("[_\\s]").value();
  const SplitPattern not_other = SplitPattern::Regex("[^\\Sab]").value();
  const SplitPattern other = SplitPattern::Regex("(?<=a)\\S(?=b)").value();
  for (uint32_t c = 0; c < 0x3100; ++c) {
    if (c == '_') continue;
    EXPECT_EQ(TakesMiddle(space, c), IsWhiteSpace(c)) << c;
    EXPECT_EQ(TakesMiddle(in_class, c), IsWhiteSpace(c)) << c;
    EXPECT_EQ(TakesMiddle(not_other, c), IsWhiteSpace(c)) << c;
    EXPECT_EQ(TakesMiddle(other, c), !IsWhiteSpace(c)) << c;
  }
}

TEST(TokenizerRegex, WordsHaveMarksJoinersOfWordsAndLatinFractions) {
  EXPECT_THAT(Split("\\w+", "e\u0301\u203F9 \u00BD\u2460-"),
              ElementsAre("e\u0301\u203F9", " ", "\u00BD", "\u2460-"));
  EXPECT_THAT(Split("\\W", "a\u2460b"), ElementsAre("a", "\u2460", "b"));
  EXPECT_THAT(Split("[\\w-]+", "a-b!"), ElementsAre("a-b", "!"));
}

TEST(TokenizerRegex, CaseFoldingIsUnicodes) {
  EXPECT_THAT(Split("(?i:'s|'k)", "a'\u017Fb'\u212Ac'S"),
              ElementsAre("a", "'\u017F", "b", "'\u212A", "c", "'S"));
}

TEST(TokenizerRegex, AnchorsAreOfLines) {
  EXPECT_THAT(Split("^b", "b\nb"), ElementsAre("b", "\n", "b"));
  EXPECT_THAT(Split("a$", "a\nba"), ElementsAre("a", "\nb", "a"));
}

TEST(TokenizerRegex, LiteralsHaveNoMetacharacters) {
  const SplitPattern literal = SplitPattern::Literal("a.").value();
  EXPECT_THAT(TrySplit(literal, "aba.").value(), ElementsAre("ab", "a."));
}

TEST(TokenizerRegex, LongMatchesThatNeedAStackSucceed) {
  for (const size_t length : {size_t{1} << 14, size_t{1} << 18}) {
    const std::string text(length, 'a');
    EXPECT_THAT(Split("(?:a|bb)*", text), ElementsAre(text)) << length;
  }
}

TEST(TokenizerRegex, APathologicalPatternGivesUp) {
  const SplitPattern pattern = SplitPattern::Regex("(?:a+)+[bc]").value();
  const auto pieces = TrySplit(pattern, std::string(60, 'a') + "db");
  EXPECT_EQ(pieces.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(pieces.status().message()), HasSubstr("gave up at byte 0"));
}

TEST(TokenizerRegex, StopsAtTheFirstErrorOfTheReceiver) {
  const SplitPattern pattern = SplitPattern::Regex("b").value();
  RegexScratch scratch;
  int calls = 0;
  const absl::Status status = pattern.Split("abab", scratch, [&calls](StringView) {
    return ++calls == 2 ? absl::InternalError("enough") : absl::OkStatus();
  });
  EXPECT_EQ(status.code(), absl::StatusCode::kInternal);
  EXPECT_EQ(calls, 2);
}

}  // namespace
}  // namespace cohort
