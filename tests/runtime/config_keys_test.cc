#include "runtime/config_keys.h"

#include <gtest/gtest.h>

namespace cohort {
namespace {

class ConfigKeysTest : public testing::Test {
 protected:
  const Json object_ = *ParseJson(
      R"({"yes": true, "word": "w", "three": 3, "zero": 0, "half": 0.5, "minus": -1, "huge": 1e60,
          "nothing": null})",
      "c.json");
  const ConfigKeys keys_{object_, "c.json"};
};

TEST_F(ConfigKeysTest, ReadsWhatIsThereAndLeavesTheRest) {
  bool yes = false;
  std::string word = "before";
  int64_t number = 7;
  double real = 7;
  EXPECT_TRUE(keys_.Read("yes", yes).ok());
  EXPECT_TRUE(keys_.Read("nothing", word).ok());
  EXPECT_TRUE(keys_.Read("three", 3, number).ok());
  EXPECT_TRUE(keys_.Read("half", real).ok());
  EXPECT_TRUE(yes);
  EXPECT_EQ(word, "before");
  EXPECT_EQ(number, 3);
  EXPECT_EQ(real, 0.5);
  EXPECT_TRUE(keys_.ReadUnlessZero("zero", real).ok());
  EXPECT_EQ(real, 0.5);
  EXPECT_TRUE(keys_.ReadUnlessZero("three", real).ok());
  EXPECT_EQ(real, 3);
  EXPECT_TRUE(keys_.IsWritten("nothing"));
  EXPECT_FALSE(keys_.IsWritten("elsewhere"));
}

TEST_F(ConfigKeysTest, ErrorsNameTheFileTheKeyAndTheValue) {
  int64_t number = 0;
  double real = 0;
  const auto message = [](const absl::Status& status) {
    EXPECT_TRUE(absl::IsInvalidArgument(status)) << status;
    return std::string(status.message());
  };
  EXPECT_EQ(message(keys_.Require("elsewhere", real)), "c.json: elsewhere is missing");
  EXPECT_EQ(message(keys_.Require("nothing", 9, number)), "c.json: nothing is missing");
  EXPECT_EQ(message(keys_.Read("three", 2, number)), "c.json: three is 3; it must be in 1..2");
  EXPECT_EQ(message(keys_.Read("word", real)),
            "c.json: word is \"w\": expected a number, found a string");
  for (const StringView key : {"zero", "minus", "huge"}) {
    EXPECT_NE(message(keys_.Read(key, real)).find("positive number of fp32"), std::string::npos);
  }
  EXPECT_NE(message(keys_.ReadUnlessZero("minus", real)).find("c.json: minus is -1"),
            std::string::npos);
}

TEST(Excerpt, ShortensLongValues) {
  EXPECT_EQ(Excerpt(*ParseJson("[1,2]", "x")), "[1,2]");
  const std::string shortened = Excerpt(*ParseJson("\"" + std::string(500, 'a') + "\"", "x"));
  EXPECT_EQ(shortened, "\"" + std::string(99, 'a') + "...");
}

}  // namespace
}  // namespace cohort
