#include "launcher/join_token.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>
#include <string>

namespace cohort {
namespace {

using testing::HasSubstr;
using testing::Not;

class JoinToken : public testing::Test {
 protected:
  JoinToken() { unsetenv(kJoinTokenVariable); }
  ~JoinToken() override { unsetenv(kJoinTokenVariable); }

  static std::string FileWith(const std::string& text) {
    const std::string path = testing::TempDir() + "/join_token_test";
    std::ofstream(path) << text;
    return path;
  }
};

TEST_F(JoinToken, ComesFromTheFlagTheFileOrTheEnvironment) {
  EXPECT_EQ(ReadJoinToken({}).value(), "");
  EXPECT_EQ(ReadJoinToken({.value = "one", .file = ""}).value(), "one");
  EXPECT_EQ(ReadJoinToken({.value = "", .file = FileWith("two\n")}).value(), "two");
  setenv(kJoinTokenVariable, "three", 1);
  EXPECT_EQ(ReadJoinToken({}).value(), "three");
  EXPECT_EQ(ReadJoinToken({.value = "one", .file = ""}).value(), "one") << "a flag goes first";
}

TEST_F(JoinToken, RefusesWhatCannotBeSentWithoutShowingIt) {
  EXPECT_TRUE(absl::IsInvalidArgument(ReadJoinToken({.value = "a", .file = "b"}).status()));
  const std::string path = FileWith("two words");
  const absl::Status spaces = ReadJoinToken({.value = "", .file = path}).status();
  EXPECT_TRUE(absl::IsInvalidArgument(spaces));
  EXPECT_THAT(std::string(spaces.message()), HasSubstr(path));
  EXPECT_THAT(std::string(spaces.message()), Not(HasSubstr("two words")));
  EXPECT_FALSE(ReadJoinToken({.value = "", .file = FileWith("")}).ok()) << "an empty file";
  EXPECT_FALSE(ReadJoinToken({.value = std::string(1025, 'x'), .file = ""}).ok());
  EXPECT_FALSE(ReadJoinToken({.value = "", .file = "/nonexistent"}).ok());
  setenv(kJoinTokenVariable, "", 1);
  EXPECT_FALSE(ReadJoinToken({}).ok()) << "set, but to nothing";
}

}  // namespace
}  // namespace cohort
