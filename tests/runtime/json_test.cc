#include "runtime/json.h"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <limits>

#include "tests/runtime/checkpoint_writer.h"

namespace cohort {
namespace {

std::string Fault(StringView text) {
  const auto json = ParseJson(text, "file.json");
  EXPECT_TRUE(absl::IsInvalidArgument(json.status())) << text << ": " << json.status();
  return std::string(json.status().message());
}

Json Parsed(StringView text) {
  const auto json = ParseJson(text, "file.json");
  EXPECT_TRUE(json.ok()) << json.status();
  return json.ok() ? *json : Json();
}

TEST(Json, KeepsTheOrderOfMembersAndGivesTypedValues) {
  const Json json = Parsed(R"( {"z": 1, "a": [true, null, "x\u00e9\ud83d\ude00", -2, 1.5]} )");
  ASSERT_EQ(json.members().size(), 2u);
  EXPECT_EQ(json.members()[0].first, "z");
  EXPECT_EQ(*json.Find("z")->AsInteger(), 1);
  const std::vector<Json>& elements = json.Find("a")->elements();
  EXPECT_EQ(*elements[0].AsBool(), true);
  EXPECT_TRUE(elements[1].is_null());
  EXPECT_EQ(*elements[2].AsString(), "x\xC3\xA9\xF0\x9F\x98\x80");
  EXPECT_EQ(*elements[3].AsInteger(), -2);
  EXPECT_EQ(*elements[4].AsReal(), 1.5);
}

TEST(Json, FindTakesNullForAbsent) {
  const Json json = Parsed(R"({"a": null})");
  EXPECT_EQ(json.Find("a"), nullptr);
  EXPECT_EQ(json.Find("b"), nullptr);
  EXPECT_EQ(Parsed("[1]").Find("a"), nullptr);
}

TEST(Json, TypedAccessSaysWhatWasThere) {
  EXPECT_EQ(Parsed("\"x\"").AsInteger().status().message(), "expected an integer, found a string");
  EXPECT_EQ(Parsed("1.5").AsInteger().status().message(), "expected an integer, found 1.5");
  EXPECT_EQ(Parsed("{}").AsReal().status().message(), "expected a number, found an object");
  EXPECT_EQ(Parsed("0").AsBool().status().message(), "expected a boolean, found an integer");
  EXPECT_EQ(Parsed("[]").AsString().status().message(), "expected a string, found an array");
}

TEST(Json, IntegersAreExactToTheEndOfTheirRange) {
  EXPECT_EQ(*Parsed("9223372036854775807").AsInteger(), std::numeric_limits<int64_t>::max());
  EXPECT_EQ(*Parsed("-9223372036854775808").AsInteger(), std::numeric_limits<int64_t>::min());
  EXPECT_EQ(*Parsed("1e3").AsInteger(), 1000);
  EXPECT_FALSE(Parsed("9223372036854775808").AsInteger().ok());
  EXPECT_FALSE(Parsed("1e30").AsInteger().ok());
}

TEST(Json, RefusesWhatIsNotOneValue) {
  for (const StringView text : {"", " ", "{", "{\"a\":1,}", "[1,]", "nul", "1 2", "{}x", "'a'",
                                "{a:1}", "[NaN]", "1e999", "\"a\nb\"", "// c\n1", "\"\\ud800\""}) {
    EXPECT_EQ(Fault(text).find("file.json: not valid JSON: "), 0u) << text;
  }
}

TEST(Json, RefusesDuplicateKeysAndNamesTheirPlace) {
  EXPECT_EQ(Fault(R"({"a": [0, {"b": {"c": 1, "d": 2, "c": 3}}]})"),
            "file.json: not valid JSON: duplicate key \"c\" in \"a\"[1].\"b\"");
  EXPECT_EQ(Fault(R"({"a": 1, "\u0061": 2})"),
            "file.json: not valid JSON: duplicate key \"a\" in the top level");
}

TEST(Json, RefusesInvalidUtf8AndZeroBytes) {
  const std::string fault = Fault("\"\xC3(\"");
  EXPECT_NE(fault.find("line 1"), std::string::npos) << fault;
  Fault("\"\xED\xA0\x80\"");  // a surrogate
  EXPECT_NE(Fault(StringView("{}\0{}", 5)).find("zero byte at offset 2"), std::string::npos);
}

TEST(Json, RefusesNestingBeyond64Levels) {
  const std::string deep = std::string(64, '[') + std::string(64, ']');
  Parsed(deep);
  EXPECT_NE(Fault("[" + deep + "]").find("deeper than 64"), std::string::npos);
  Fault(std::string(1'000'000, '['));
}

TEST(Json, DumpReadsBackAsTheSameValue) {
  const StringView text =
      R"({"a":[1,-2,1.5,1.0,-0.0,1e+300,18446744073709551615,true,null,"\"\\\n\u0001é"],"b":{}})";
  EXPECT_EQ(Parsed(text).Dump(), text);
}

TEST(JsonQuote, EscapesControlCharactersAndReplacesInvalidBytes) {
  EXPECT_EQ(JsonQuote("a\"\\\t\x1f"), "\"a\\\"\\\\\\t\\u001f\"");
  EXPECT_EQ(JsonQuote("\xFFx\xC3"), "\"\xEF\xBF\xBDx\xEF\xBF\xBD\"");
}

TEST(ReadFile, ReadsRegularFilesUpToALimit) {
  const TemporaryDirectory directory;
  directory.Write("file", "12345");
  directory.Write("empty", "");
  EXPECT_EQ(*ReadFile(directory.Path("file"), 5), "12345");
  EXPECT_EQ(*ReadFile(directory.Path("empty"), 0), "");
  const absl::Status too_large = ReadFile(directory.Path("file"), 4).status();
  EXPECT_TRUE(absl::IsResourceExhausted(too_large)) << too_large;
}

TEST(ReadFile, NamesThePathThatCannotBeRead) {
  const TemporaryDirectory directory;
  const absl::Status absent = ReadFile(directory.Path("nothing"), 5).status();
  EXPECT_TRUE(absl::IsNotFound(absent)) << absent;
  EXPECT_NE(absent.message().find(directory.Path("nothing")), StringView::npos);
  EXPECT_FALSE(ReadFile(directory.path(), 5).ok());
  ASSERT_EQ(mkfifo(directory.Path("pipe").c_str(), 0600), 0);
  EXPECT_FALSE(ReadFile(directory.Path("pipe"), 5).ok());  // and does not wait for a writer
}

}  // namespace
}  // namespace cohort
