#include "runtime/tokenizer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <thread>

#include "runtime/tokenizer_nfc.h"
#include "runtime/utf8.h"
#include "tests/runtime/tokenizer_fixture.h"

namespace cohort {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using Ids = std::vector<int32_t>;

TEST(Tokenizer, MergesTheLowestRankFirst) {
  const auto tokenizer = MakeTokenizer(TinyTokenizerJson());
  EXPECT_THAT(EncodeOrDie(*tokenizer, "hello"), ElementsAre(259));
  EXPECT_THAT(EncodeOrDie(*tokenizer, "helo"), ElementsAre(256, 'l', 'o'));
  // "aa" comes before "ab".
  EXPECT_THAT(EncodeOrDie(*tokenizer, "aab"), ElementsAre(260, 'b'));
}

TEST(Tokenizer, MergesTheLeftmostOfEqualRanks) {
  const auto tokenizer = MakeTokenizer(TinyTokenizerJson());
  EXPECT_THAT(EncodeOrDie(*tokenizer, "aaa"), ElementsAre(260, 'a'));
  EXPECT_THAT(EncodeOrDie(*tokenizer, "aaaaaaa"), ElementsAre(261, 260, 'a'));
  EXPECT_THAT(EncodeOrDie(*tokenizer, "lll"), ElementsAre(257, 'l'));
}

TEST(Tokenizer, DoesNotMergeAcrossPieces) {
  const auto tokenizer = MakeTokenizer(TinyTokenizerJson());
  EXPECT_THAT(EncodeOrDie(*tokenizer, "he llo"), ElementsAre(256, ' ', 257, 'o'));
  EXPECT_THAT(EncodeOrDie(*tokenizer, "a wa"), ElementsAre('a', 263, 'a'));
  EXPECT_THAT(EncodeOrDie(*tokenizer, ""), IsEmpty());
}

TEST(Tokenizer, ARunOfOneLetterTakesNoQuadraticTime) {
  const auto tokenizer = MakeTokenizer(TinyTokenizerJson());
  const Ids ids = EncodeOrDie(*tokenizer, std::string(1 << 20, 'a'));
  EXPECT_EQ(ids, Ids((1 << 20) / 4, 261));
}

TEST(Tokenizer, ARunOfMarksInTheWrongOrderTakesNoQuadraticTime) {
  const auto tokenizer = MakeTokenizer(TinyTokenizerJson());
  std::string marks = "x";
  for (int i = 0; i < 1 << 16; ++i) marks += "\u0301\u0323";
  EXPECT_EQ(EncodeOrDie(*tokenizer, marks).size(), marks.size());
}

TEST(Tokenizer, LongRunsOfSpaceAreCutAtTheLastNewline) {
  const auto tokenizer = MakeTokenizer(TinyTokenizerJson());
  const std::string text = std::string(1 << 18, ' ') + "\n" + std::string(1 << 18, ' ') + "wa";
  const Ids ids = EncodeOrDie(*tokenizer, text);
  EXPECT_EQ(ids.size(), text.size() - 1);
  EXPECT_THAT(Ids(ids.end() - 3, ids.end()), ElementsAre(' ', 263, 'a'));
}

TEST(Tokenizer, AddedTokensAreFoundBeforeNormalisation) {
  const auto tokenizer = MakeTokenizer(TinyTokenizerJson());
  EXPECT_THAT(EncodeOrDie(*tokenizer, "a<|im_end|>a<|im_end|"),
              ElementsAre('a', 266, 'a', '<', '|', 'i', 'm', '_', 'e', 'n', 'd', '|'));
  // NFC does not cross a token: the mark stays alone.
  EXPECT_THAT(EncodeOrDie(*tokenizer, "e<|im_end|>\u0301"), ElementsAre('e', 266, 0xCC, 0x81));
}

TEST(Tokenizer, AddedTokensAreOrdinaryTextOnRequest) {
  const auto tokenizer = MakeTokenizer(TinyTokenizerJson());
  const std::string text = "<|im_start|>hello<|im_end|>";
  const Ids ids = EncodeOrDie(*tokenizer, text, false);
  EXPECT_EQ(std::count(ids.begin(), ids.end(), 265), 0);
  EXPECT_EQ(tokenizer->Decode(ids, true), text);
}

TEST(Tokenizer, TheLongestAddedTokenWins) {
  auto file = TinyTokenizerJson();
  file["added_tokens"].push_back(AddedTokenJson(267, "<a>", false));
  file["added_tokens"].push_back(AddedTokenJson(268, "<a>b", false));
  const auto tokenizer = MakeTokenizer(file);
  EXPECT_THAT(EncodeOrDie(*tokenizer, "<a>b<a>c"), ElementsAre(268, 267, 'c'));
}

TEST(Tokenizer, AddedTokensStripWhatTheirFlagsSay) {
  auto file = TinyTokenizerJson();
  file["added_tokens"].push_back(AddedTokenJson(267, "<l>", false));
  file["added_tokens"].back()["lstrip"] = true;
  file["added_tokens"].push_back(AddedTokenJson(268, "<r>", false));
  file["added_tokens"].back()["rstrip"] = true;
  const auto tokenizer = MakeTokenizer(file);
  EXPECT_THAT(EncodeOrDie(*tokenizer, "a \u3000\n<l> a"), ElementsAre('a', 267, ' ', 'a'));
  EXPECT_THAT(EncodeOrDie(*tokenizer, "a <r>\u2003\t a"), ElementsAre('a', ' ', 268, 'a'));
  EXPECT_THAT(EncodeOrDie(*tokenizer, "<r> <l> "), ElementsAre(268, 267, ' '));
}

TEST(Tokenizer, ASingleWordTokenMustStandAlone) {
  auto file = TinyTokenizerJson();
  file["added_tokens"].push_back(AddedTokenJson(267, "me", false));
  file["added_tokens"].back()["single_word"] = true;
  const auto tokenizer = MakeTokenizer(file);
  EXPECT_THAT(EncodeOrDie(*tokenizer, "me.me"), ElementsAre(267, '.', 267));
  EXPECT_THAT(EncodeOrDie(*tokenizer, "mee"), ElementsAre('m', 'e', 'e'));
  EXPECT_THAT(EncodeOrDie(*tokenizer, "\u00E9me").back(), 'e');
  EXPECT_THAT(EncodeOrDie(*tokenizer, "me_"), ElementsAre('m', 'e', '_'));
}

TEST(Tokenizer, ANormalizedTokenIsFoundInTheNormalisedText) {
  auto file = TinyTokenizerJson();
  file["added_tokens"].push_back(AddedTokenJson(267, "e\u0301!", false));
  file["added_tokens"].back()["normalized"] = true;
  const auto tokenizer = MakeTokenizer(file);
  EXPECT_THAT(EncodeOrDie(*tokenizer, "e\u0301!"), ElementsAre(267));
  EXPECT_THAT(EncodeOrDie(*tokenizer, "\u00E9!"), ElementsAre(267));
}

TEST(Tokenizer, NormalisesToNfcOnlyWhereTheFileSaysSo) {
  auto file = TinyTokenizerJson();
  EXPECT_THAT(EncodeOrDie(*MakeTokenizer(file), "e\u0301"), ElementsAre(0xC3, 0xA9));
  file["normalizer"] = nullptr;
  EXPECT_THAT(EncodeOrDie(*MakeTokenizer(file), "e\u0301"), ElementsAre('e', 0xCC, 0x81));
}

TEST(Tokenizer, LongSAfterAnApostropheIsAContraction) {
  auto file = TinyTokenizerJson();
  // "'ſ" and "ſa" would both merge; the piece border decides.
  for (const auto& [left, right] : {std::pair("'", "\xC5"), std::pair("'\xC5", "\xBF"),
                                    std::pair("\xC5", "\xBF"), std::pair("\xBF", "a")}) {
    const auto id = file["model"]["vocab"].size();
    file["model"]["vocab"][ByteLevelText(absl::StrCat(left, right))] = id;
    file["model"]["merges"].push_back(ByteLevelText(left) + " " + ByteLevelText(right));
  }
  int id = 268;
  for (auto& token : file["added_tokens"]) token["id"] = id++;
  EXPECT_THAT(EncodeOrDie(*MakeTokenizer(file), "'\u017Fa"), ElementsAre(265, 'a'));
}

TEST(Tokenizer, RefusesTextThatIsNotUtf8) {
  const auto tokenizer = MakeTokenizer(TinyTokenizerJson());
  for (const StringView text : {"ab\xFF", "ab\xED\xA0\x80", "ab\xC3"}) {
    const auto ids = tokenizer->Encode(text);
    EXPECT_EQ(ids.status().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(ids.status().message()), HasSubstr("at offset 2"));
  }
}

TEST(Tokenizer, NulIsACharacterLikeAnyOther) {
  const auto tokenizer = MakeTokenizer(TinyTokenizerJson());
  EXPECT_THAT(EncodeOrDie(*tokenizer, StringView("a\0b", 3)), ElementsAre('a', 0, 'b'));
}

TEST(Tokenizer, IgnoreMergesTakesAWholePieceThatIsAToken) {
  auto file = TinyTokenizerJson();
  file["model"]["merges"] = nlohmann::json::array();
  EXPECT_THAT(EncodeOrDie(*MakeTokenizer(file), "hello"), ElementsAre('h', 'e', 'l', 'l', 'o'));
  file["model"]["ignore_merges"] = true;
  EXPECT_THAT(EncodeOrDie(*MakeTokenizer(file), "hello w"), ElementsAre(259, 263));
}

TEST(Tokenizer, MergesMayBePairs) {
  auto file = TinyTokenizerJson();
  for (auto& merge : file["model"]["merges"]) {
    const std::string text = merge;
    merge = {text.substr(0, text.find(' ')), text.substr(text.find(' ') + 1)};
  }
  EXPECT_THAT(EncodeOrDie(*MakeTokenizer(file), "hello w"), ElementsAre(259, 263));
}

TEST(Tokenizer, AByteLevelThatCutsItselfUsesTheWordsOfGpt2) {
  auto file = TinyTokenizerJson();
  file["pre_tokenizer"] = {{"type", "ByteLevel"}, {"add_prefix_space", true}, {"use_regex", true}};
  const auto tokenizer = MakeTokenizer(file);
  EXPECT_THAT(EncodeOrDie(*tokenizer, "wa w"), ElementsAre(263, 'a', 263));
  EXPECT_THAT(EncodeOrDie(*tokenizer, " w<|im_end|>w"), ElementsAre(263, 266, 263));
}

TEST(Tokenizer, ALiteralSplitCutsAtItsText) {
  auto file = TinyTokenizerJson();
  file["pre_tokenizer"]["pretokenizers"][0]["pattern"] = {{"String", "a.a"}};
  const auto tokenizer = MakeTokenizer(file);
  EXPECT_THAT(EncodeOrDie(*tokenizer, "aa.aabaa"), ElementsAre('a', 'a', '.', 'a', 262, 260));
}

TEST(Tokenizer, AByteWithoutATokenIsUnknownOrAnError) {
  auto file = TinyTokenizerJson();
  file["model"]["vocab"].erase("a");
  file["model"]["vocab"]["<unk>"] = 'a';
  for (const char* gone : {"aa", "aaaa", "ab"}) file["model"]["vocab"].erase(gone);
  file["model"]["vocab"][ByteLevelText(" w")] = 260;
  file["model"]["merges"] = {"h e", "l l", "he ll", "hell o", ByteLevelText(" ") + " w"};
  int id = 261;
  for (auto& token : file["added_tokens"]) token["id"] = id++;
  const auto strict = MakeTokenizer(file)->Encode("ca");
  EXPECT_EQ(strict.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(strict.status().message()), HasSubstr("byte 0x61"));
  file["model"]["unk_token"] = "<unk>";
  EXPECT_THAT(EncodeOrDie(*MakeTokenizer(file), "caa"), ElementsAre('c', 'a', 'a'));
  EXPECT_EQ(MakeTokenizer(file)->Decode({'c', 'a'}, false), "c<unk>");
  file["model"]["fuse_unk"] = true;
  EXPECT_THAT(EncodeOrDie(*MakeTokenizer(file), "caac"), ElementsAre('c', 'a', 'c'));
}

TEST(Tokenizer, KnowsItsTokens) {
  const auto tokenizer = MakeTokenizer(TinyTokenizerJson());
  EXPECT_EQ(tokenizer->size(), 267);
  EXPECT_EQ(tokenizer->Bytes(263), " w");
  EXPECT_EQ(tokenizer->Bytes(0xFF), "\xFF");
  EXPECT_EQ(tokenizer->Bytes(266), "<|im_end|>");
  for (const int32_t id : {-1, 267, 1 << 30}) EXPECT_EQ(tokenizer->Bytes(id), "");
  EXPECT_TRUE(tokenizer->IsSpecial(266));
  EXPECT_FALSE(tokenizer->IsSpecial(259));
  EXPECT_FALSE(tokenizer->IsSpecial(-1));
  EXPECT_EQ(tokenizer->IdOfAddedToken("<|im_end|>"), 266);
  EXPECT_EQ(tokenizer->IdOfAddedToken("hello"), -1);
}

TEST(Tokenizer, DecodesInvalidBytesToReplacements) {
  const auto tokenizer = MakeTokenizer(TinyTokenizerJson());
  EXPECT_EQ(tokenizer->Decode({259, 0xFF, 0xE4, 0xB8, 266, 0xF0, 0x9F}, false),
            "hello\uFFFD\uFFFD<|im_end|>\uFFFD");
  // Bytes join across a special token that is left out.
  EXPECT_EQ(tokenizer->Decode({0xE4, 0xB8, 266, 0xAD}, true), "\u4E2D");
  EXPECT_EQ(tokenizer->Decode({}, true), "");
}

std::string RandomText(std::mt19937& random) {
  std::string text;
  for (int i = 0; i < 40; ++i) {
    const uint32_t most = random() % 3 == 0 ? 0x10FFFF : random() % 2 == 0 ? 0x7F : 0x3100;
    const uint32_t c = random() % (most + 1);
    if (c < 0xD800 || c > 0xDFFF) AppendUtf8(c, text);
  }
  return text;
}

TEST(Tokenizer, DecodingAnEncodingGivesTheNormalisedText) {
  constexpr unsigned kSeed = 11;
  SCOPED_TRACE(kSeed);
  std::mt19937 random(kSeed);
  const auto tokenizer = MakeTokenizer(TinyTokenizerJson());
  for (int round = 0; round < 500; ++round) {
    const std::string text = RandomText(random);
    EXPECT_EQ(tokenizer->Decode(EncodeOrDie(*tokenizer, text), false), NormalizeNfc(text));
  }
}

TEST(Tokenizer, ServesManyThreads) {
  const auto tokenizer = MakeTokenizer(TinyTokenizerJson());
  std::vector<std::thread> threads;
  std::vector<Ids> results(4);
  for (Ids& result : results) {
    threads.emplace_back([&tokenizer, &result] {
      for (int i = 0; i < 50; ++i) result = EncodeOrDie(*tokenizer, "hello wa e\u0301<|im_end|>");
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (const Ids& result : results) EXPECT_EQ(result, results[0]);
}

}  // namespace
}  // namespace cohort
