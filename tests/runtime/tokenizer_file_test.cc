// What a tokenizer.json must and must not be.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>

#include "tests/runtime/tokenizer_fixture.h"

namespace cohort {
namespace {

using nlohmann::json;
using ::testing::AllOf;
using ::testing::HasSubstr;

// The error of the tiny tokenizer after a change.
std::string ErrorAfter(const std::function<void(json&)>& change) {
  json file = TinyTokenizerJson();
  change(file);
  return TokenizerError(file);
}

TEST(TokenizerFile, RefusesTextThatIsNotJson) {
  for (const StringView text : {"", "{", "[]x", "\xFF", "null", "[]", "3"}) {
    const auto tokenizer = Tokenizer::Parse(text, "tokenizer.json");
    EXPECT_EQ(tokenizer.status().code(), absl::StatusCode::kInvalidArgument) << text;
    EXPECT_THAT(std::string(tokenizer.status().message()), HasSubstr("tokenizer.json"));
  }
}

TEST(TokenizerFile, NamesAnUnsupportedComponent) {
  EXPECT_EQ(ErrorAfter([](json& f) {
              f["normalizer"] = {{"type", "Lowercase"}};
            }),
            "tokenizer.json: normalizer of type 'Lowercase' is not supported");
  EXPECT_EQ(ErrorAfter([](json& f) {
              f["pre_tokenizer"] = {{"type", "Metaspace"}};
            }),
            "tokenizer.json: pre_tokenizer of type 'Metaspace' is not supported");
  EXPECT_EQ(ErrorAfter([](json& f) {
              f["post_processor"] = {{"type", "TemplateProcessing"}};
            }),
            "tokenizer.json: post_processor of type 'TemplateProcessing' is not supported");
  EXPECT_EQ(ErrorAfter([](json& f) {
              f["decoder"] = {{"type", "Metaspace"}};
            }),
            "tokenizer.json: decoder of type 'Metaspace' is not supported");
  EXPECT_EQ(ErrorAfter([](json& f) { f["model"]["type"] = "Unigram"; }),
            "tokenizer.json: model of type 'Unigram' is not supported");
}

TEST(TokenizerFile, NamesAnUnsupportedSetting) {
  const auto split = [](json& f) -> json& { return f["pre_tokenizer"]["pretokenizers"][0]; };
  EXPECT_THAT(ErrorAfter([&](json& f) { split(f)["behavior"] = "Removed"; }),
              HasSubstr("behavior 'Removed'"));
  EXPECT_THAT(ErrorAfter([&](json& f) { split(f)["invert"] = true; }), HasSubstr("invert"));
  EXPECT_THAT(ErrorAfter([](json& f) { f["model"]["dropout"] = 0.1; }), HasSubstr("dropout"));
  EXPECT_THAT(ErrorAfter([](json& f) { f["model"]["byte_fallback"] = true; }),
              HasSubstr("byte_fallback"));
  EXPECT_THAT(ErrorAfter([](json& f) { f["model"]["end_of_word_suffix"] = "</w>"; }),
              HasSubstr("end_of_word_suffix '</w>'"));
  EXPECT_THAT(ErrorAfter([](json& f) { f["pre_tokenizer"]["pretokenizers"].erase(1); }),
              HasSubstr("no 'ByteLevel'"));
}

TEST(TokenizerFile, RefusesMissingParts) {
  for (const char* part : {"pre_tokenizer", "decoder", "model"}) {
    EXPECT_THAT(ErrorAfter([&](json& f) { f.erase(part); }), HasSubstr(part));
    EXPECT_THAT(ErrorAfter([&](json& f) { f[part] = 7; }), HasSubstr(part));
  }
  for (const char* part : {"type", "vocab", "merges"}) {
    EXPECT_THAT(ErrorAfter([&](json& f) { f["model"].erase(part); }), HasSubstr(part));
    EXPECT_THAT(ErrorAfter([&](json& f) { f["model"][part] = true; }), HasSubstr("model"));
  }
}

TEST(TokenizerFile, RefusesAPatternThatDoesNotCompile) {
  const auto with_pattern = [](const char* pattern) {
    return ErrorAfter(
        [&](json& f) { f["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] = pattern; });
  };
  EXPECT_THAT(with_pattern("(a"), AllOf(HasSubstr("\"(a\""), HasSubstr("does not compile")));
  EXPECT_THAT(with_pattern("a\\"), HasSubstr("does not compile"));
  EXPECT_THAT(with_pattern("\\p{Nonsense}"), HasSubstr("does not compile"));
  // These compile and mean something else in the files' own dialect.
  for (const char* pattern :
       {"[a[bc]]", "[a-z&&b]", "\\h+", "\\bword", "(?m:.)", "\\Qa\\E", "(*F)"}) {
    EXPECT_THAT(with_pattern(pattern), HasSubstr("not supported")) << pattern;
  }
}

TEST(TokenizerFile, RefusesIdsThatAreNotOneToOne) {
  const auto with_id = [](const json& id) {
    return ErrorAfter([&](json& f) { f["model"]["vocab"]["hello"] = id; });
  };
  EXPECT_THAT(with_id(300), AllOf(HasSubstr("\"hello\""), HasSubstr("300"), HasSubstr("gaps")));
  EXPECT_THAT(with_id(-1), AllOf(HasSubstr("\"hello\""), HasSubstr("-1")));
  EXPECT_THAT(with_id(258), AllOf(HasSubstr("\"hello\""), HasSubstr("\"hell\"")));
  EXPECT_THAT(with_id(int64_t{1} << 40), HasSubstr("\"hello\""));
  EXPECT_THAT(with_id("x"), HasSubstr("\"hello\""));
  EXPECT_THAT(with_id(nullptr), HasSubstr("\"hello\""));
}

TEST(TokenizerFile, RefusesATokenThatSpellsNoBytes) {
  EXPECT_THAT(ErrorAfter([](json& f) {
                f["model"]["vocab"].erase("aaaa");
                f["model"]["vocab"]["a b"] = 261;
                f["model"]["merges"].erase(5);
              }),
              AllOf(HasSubstr("token 261"), HasSubstr("\"a b\"")));
}

TEST(TokenizerFile, RefusesBrokenMerges) {
  const auto with_merge = [](const json& merge) {
    return ErrorAfter([&](json& f) { f["model"]["merges"].push_back(merge); });
  };
  EXPECT_THAT(with_merge("x yz"), AllOf(HasSubstr("model.merges[8]"), HasSubstr("\"yz\"")));
  EXPECT_THAT(with_merge("x y"), AllOf(HasSubstr("model.merges[8]"), HasSubstr("\"xy\"")));
  EXPECT_THAT(with_merge("h e"), HasSubstr("model.merges[8] repeats model.merges[0]"));
  for (const json& merge : {json("he"), json("h e l"), json(3), json({"h"}), json({"h", 1}),
                            json({"h", "e", "l"}), json(nullptr)}) {
    EXPECT_THAT(with_merge(merge), HasSubstr("model.merges[8]")) << merge;
  }
}

TEST(TokenizerFile, RefusesBrokenAddedTokens) {
  const auto with_token = [](const json& token) {
    return ErrorAfter([&](json& f) { f["added_tokens"].push_back(token); });
  };
  EXPECT_THAT(with_token(AddedTokenJson(280, "<x>", true)), HasSubstr("280"));
  EXPECT_THAT(with_token(AddedTokenJson(266, "<x>", true)), HasSubstr("\"<|im_end|>\""));
  EXPECT_THAT(with_token(AddedTokenJson(267, "<|im_end|>", true)), HasSubstr("<|im_end|>"));
  EXPECT_THAT(with_token(AddedTokenJson(12, "hello", true)), HasSubstr("259"));
  EXPECT_THAT(with_token(AddedTokenJson(-5, "<x>", true)), HasSubstr("added_tokens[3]"));
  EXPECT_THAT(with_token(AddedTokenJson(267, "", true)), HasSubstr("added_tokens[3]"));
  EXPECT_THAT(with_token(json("<x>")), HasSubstr("added_tokens[3]"));
  EXPECT_THAT(with_token({{"id", 267}}), HasSubstr("content"));
  EXPECT_THAT(with_token({{"id", 267}, {"content", "<x>"}, {"special", "yes"}}),
              HasSubstr("special"));
}

TEST(TokenizerFile, AnAddedTokenMayBeInTheVocabulary) {
  json file = TinyTokenizerJson();
  file["added_tokens"].push_back(AddedTokenJson(259, "hello", true));
  const auto tokenizer = MakeTokenizer(file);
  EXPECT_EQ(tokenizer->size(), 267);
  EXPECT_TRUE(tokenizer->IsSpecial(259));
  EXPECT_EQ(tokenizer->IdOfAddedToken("hello"), 259);
}

TEST(TokenizerFile, AnUnknownTokenMustBeInTheVocabulary) {
  EXPECT_THAT(ErrorAfter([](json& f) { f["model"]["unk_token"] = "<unk>"; }),
              AllOf(HasSubstr("unk_token"), HasSubstr("\"<unk>\"")));
}

TEST(TokenizerFile, LoadSaysWhichFileIsMissing) {
  const auto tokenizer = Tokenizer::Load(COHORT_SOURCE_DIR "/tests/runtime");
  EXPECT_EQ(tokenizer.status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(tokenizer.status().message()), HasSubstr("tests/runtime/tokenizer.json"));
}

// Cuts, and bytes put in the place of others, never crash: an error or another tokenizer.
TEST(TokenizerFile, SurvivesEveryTruncationAndManyChanges) {
  const std::string text = TinyTokenizerJson().dump();
  for (size_t length = 0; length < text.size(); length += 37) {
    EXPECT_FALSE(Tokenizer::Parse(StringView(text).substr(0, length), "x").ok()) << length;
  }
  for (size_t at = 0; at < text.size(); at += 23) {
    std::string changed = text;
    changed[at] =
        "0{}[],\":\\ \xFF"
        "9x"[at % 13];
    const auto tokenizer = Tokenizer::Parse(changed, "x");
    if (tokenizer.ok()) {
      (void)(*tokenizer)->Encode("hello <|im_end|>");
    }
  }
}

}  // namespace
}  // namespace cohort
