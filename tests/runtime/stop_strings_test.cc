#include "runtime/stop_strings.h"

#include <gtest/gtest.h>

#include <random>

namespace cohort {
namespace {

// The text that comes out, and the match, when `text` comes in pieces of `size` bytes.
struct Outcome {
  std::string text;
  std::optional<size_t> match;
  bool operator==(const Outcome&) const = default;
};

Outcome Feed(const std::vector<std::string>& strings, bool include, StringView text, size_t size) {
  StopStringMatcher matcher(strings, include);
  Outcome outcome;
  for (size_t at = 0; at < text.size(); at += size) {
    outcome.text += matcher.Append(text.substr(at, size));
  }
  outcome.match = matcher.match();
  outcome.text += matcher.Flush();
  return outcome;
}

TEST(StopStrings, HoldsBackOnlyWhatMayStillBecomeOne) {
  StopStringMatcher matcher({"</end>", "\n\n"}, false);
  EXPECT_EQ(matcher.Append("one </"), "one ");
  EXPECT_EQ(matcher.Append("em>\n"), "</em>");
  EXPECT_EQ(matcher.Append("two"), "\ntwo");
  EXPECT_EQ(matcher.Append(" </en"), " ");
  EXPECT_FALSE(matcher.match().has_value());
  EXPECT_EQ(matcher.Append("d> never seen"), "");
  EXPECT_EQ(matcher.match(), 0u);
  EXPECT_EQ(matcher.Append("nor this"), "");
  EXPECT_EQ(matcher.Flush(), "");
}

TEST(StopStrings, GivesWhatWasHeldAtTheEnd) {
  EXPECT_EQ(Feed({"abc"}, false, "xab", 1), (Outcome{"xab", std::nullopt}));
}

TEST(StopStrings, IncludesTheMatchWhereAsked) {
  EXPECT_EQ(Feed({"stop"}, true, "please stop now", 3), (Outcome{"please stop", 0}));
  EXPECT_EQ(Feed({"stop"}, false, "please stop now", 3), (Outcome{"please ", 0}));
}

TEST(StopStrings, TheFirstThatIsCompleteWinsAndTheLongestOfThoseThatEndTogether) {
  EXPECT_EQ(Feed({"abcd", "bc"}, false, "xabcd", 5), (Outcome{"xa", 1}));
  EXPECT_EQ(Feed({"bc", "abc"}, false, "xabcd", 5), (Outcome{"x", 1}));
}

TEST(StopStrings, FindsOneThatBeginsInsideAFailedOne) {
  EXPECT_EQ(Feed({"aab"}, false, "aaab", 1), (Outcome{"a", 0}));
  EXPECT_EQ(Feed({"abab!"}, false, "ababab!", 2), (Outcome{"ab", 0}));
}

TEST(StopStrings, CharactersOfSeveralBytesAreWhole) {
  EXPECT_EQ(Feed({"\xe5\xad\x97\xe3\x80\x82"}, false, "\xe5\xad\x97x\xe5\xad\x97\xe3\x80\x82y", 1),
            (Outcome{"\xe5\xad\x97x", 0}));
}

// By searching the whole text for every string.
Outcome Reference(const std::vector<std::string>& strings, bool include, StringView text) {
  size_t best_end = StringView::npos;
  Outcome outcome{std::string(text), std::nullopt};
  for (size_t i = 0; i < strings.size(); ++i) {
    const size_t begin = text.find(strings[i]);
    if (begin == StringView::npos) continue;
    const size_t end = begin + strings[i].size();
    const bool is_longer = end == best_end && strings[i].size() > strings[*outcome.match].size();
    if (end >= best_end && !is_longer) continue;
    best_end = end;
    outcome = {std::string(text.substr(0, include ? end : begin)), i};
  }
  return outcome;
}

TEST(StopStrings, EqualsASearchOfTheWholeTextWhateverThePieces) {
  std::mt19937 random(4);
  const auto any_text = [&random](size_t longest) {
    std::string text(1 + random() % longest, 'a');
    for (char& c : text) c = static_cast<char>('a' + random() % 2);
    return text;
  };
  for (int round = 0; round < 2000; ++round) {
    std::vector<std::string> strings;
    for (size_t i = 1 + random() % 3; i > 0; --i) {
      std::string string = any_text(6);
      if (std::find(strings.begin(), strings.end(), string) == strings.end()) {
        strings.push_back(string);
      }
    }
    const std::string text = any_text(24);
    const bool include = random() % 2 == 0;
    EXPECT_EQ(Feed(strings, include, text, 1 + random() % 5), Reference(strings, include, text))
        << text << ", first string " << strings[0];
  }
}

}  // namespace
}  // namespace cohort
