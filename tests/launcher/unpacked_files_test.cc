#include "launcher/unpacked_files.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <array>
#include <atomic>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <thread>

namespace cohort {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

class UnpackedFilesTest : public ::testing::Test {
 protected:
  UnpackedFilesTest()
      : base_(absl::StrCat(::testing::TempDir(), "/unpacked_",
                           ::testing::UnitTest::GetInstance()->current_test_info()->name())) {
    std::filesystem::remove_all(base_);
  }
  ~UnpackedFilesTest() override { std::filesystem::remove_all(base_); }

  std::string PathOf(StringView name) const { return absl::StrCat(directory_, "/", name); }
  std::string Read(StringView name) const {
    std::ostringstream text;
    text << std::ifstream(PathOf(name)).rdbuf();
    return text.str();
  }
  // As somebody else's program, a full disk or an older version may leave it.
  void Overwrite(StringView name, StringView bytes) const {
    std::filesystem::remove(PathOf(name));
    std::ofstream(PathOf(name)) << bytes;
  }
  absl::Status Unpack() const { return UnpackFiles(files_, base_, directory_); }
  void ExpectWhole() const {
    EXPECT_EQ(Read("a.json"), "{}");
    EXPECT_EQ(Read("weights"), weights_);
    const std::filesystem::directory_iterator listed(directory_);
    EXPECT_EQ(std::distance(begin(listed), end(listed)), 2) << "something else was left behind";
  }

  const std::string base_;
  const std::string directory_ = base_ + "/version/name";
  const std::string weights_ = std::string(200'000, 'w') + "end";  // several reads long
  const std::array<EmbeddedFile, 2> files_ = {{{"a.json", "{}"}, {"weights", weights_}}};
};

TEST_F(UnpackedFilesTest, MakesTheDirectoryForThisUserAlone) {
  ASSERT_TRUE(Unpack().ok());
  ExpectWhole();
  struct stat status;
  ASSERT_EQ(stat(base_.c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 0777, 0700u);
}

TEST_F(UnpackedFilesTest, LeavesWholeFilesAlone) {
  ASSERT_TRUE(Unpack().ok());
  struct stat before, after;
  ASSERT_EQ(stat(PathOf("weights").c_str(), &before), 0);
  ASSERT_TRUE(Unpack().ok());
  ASSERT_EQ(stat(PathOf("weights").c_str(), &after), 0);
  EXPECT_EQ(before.st_ino, after.st_ino);
}

TEST_F(UnpackedFilesTest, RepairsWhatIsMissingShortChangedOrALink) {
  ASSERT_TRUE(Unpack().ok());
  std::string changed = weights_;
  changed.back() = 'X';
  for (const std::string& bytes : {std::string(), weights_.substr(1), changed, weights_ + "more"}) {
    Overwrite("weights", bytes);
    ASSERT_TRUE(Unpack().ok());
    ExpectWhole();
  }
  std::filesystem::remove(PathOf("a.json"));
  std::filesystem::create_symlink("weights", PathOf("a.json"));
  ASSERT_TRUE(Unpack().ok());
  ExpectWhole();
}

// Whoever holds the old file open keeps it: it is replaced, not written over.
TEST_F(UnpackedFilesTest, ReplacesInOneStep) {
  ASSERT_TRUE(Unpack().ok());
  Overwrite("a.json", "old");
  std::ifstream reader(PathOf("a.json"));
  ASSERT_TRUE(Unpack().ok());
  std::string text;
  reader >> text;
  EXPECT_EQ(text, "old");
  ExpectWhole();
}

TEST_F(UnpackedFilesTest, ManyAtOnceAllFindWholeFiles) {
  std::atomic<int> whole = 0;
  std::vector<std::thread> threads;
  for (int i = 0; i < 8; ++i) {
    threads.emplace_back([this, &whole] {
      if (Unpack().ok() && Read("weights") == weights_ && Read("a.json") == "{}") ++whole;
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(whole, 8);
  ExpectWhole();
}

TEST_F(UnpackedFilesTest, RefusesABaseThatOthersMayWrite) {
  std::filesystem::create_directories(base_);
  std::filesystem::permissions(base_, std::filesystem::perms::all);
  const absl::Status status = Unpack();
  EXPECT_TRUE(absl::IsPermissionDenied(status)) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr(base_));
}

TEST_F(UnpackedFilesTest, TheCacheFallsBackToTheNextBase) {
  std::filesystem::create_directories(base_);
  const std::string file = base_ + "/file";
  std::ofstream(file) << "not a directory";
  const std::vector<std::string> bases = {file + "/below", base_ + "/second"};
  const absl::StatusOr<std::string> directory = UnpackIntoCache(files_, bases, "name");
  ASSERT_TRUE(directory.ok()) << directory.status();
  EXPECT_THAT(*directory, ::testing::StartsWith(bases[1] + "/"));
  EXPECT_THAT(*directory, ::testing::EndsWith("/name"));

  const std::vector<std::string> hopeless = {file + "/below", file};
  const absl::Status status = UnpackIntoCache(files_, hopeless, "name").status();
  EXPECT_TRUE(absl::IsUnavailable(status));
  EXPECT_THAT(std::string(status.message()), HasSubstr("/file/below"));
  EXPECT_THAT(std::string(status.message()), HasSubstr("/file is not a directory"));
}

TEST_F(UnpackedFilesTest, OtherContentsHaveAnotherDirectory) {
  const std::vector<std::string> bases = {base_};
  const std::array<EmbeddedFile, 2> others = {{{"a.json", "{}"}, {"weights", "other"}}};
  const absl::StatusOr<std::string> first = UnpackIntoCache(files_, bases, "name");
  const absl::StatusOr<std::string> second = UnpackIntoCache(others, bases, "name");
  ASSERT_TRUE(first.ok() && second.ok());
  EXPECT_NE(*first, *second);
}

// Restores a variable at the end of its life.
class Variable {
 public:
  Variable(const char* name, const char* value) : name_(name) {
    if (const char* old = std::getenv(name)) old_ = old;
    value == nullptr ? unsetenv(name) : setenv(name, value, 1);
  }
  ~Variable() { old_ ? setenv(name_, old_->c_str(), 1) : unsetenv(name_); }
  Variable(const Variable&) = delete;
  Variable& operator=(const Variable&) = delete;

 private:
  const char* name_;
  std::optional<std::string> old_;
};

TEST(UnpackBases, FollowTheUsersVariables) {
  const std::string own = absl::StrCat("cohort-", geteuid());
  const Variable cache("XDG_CACHE_HOME", "/cache"), home("HOME", "/home/u"),
      temporary("TMPDIR", nullptr);
  EXPECT_THAT(UnpackBases(), ElementsAre("/cache/cohort", "/tmp/" + own));
  const Variable relative("XDG_CACHE_HOME", "cache"), elsewhere("TMPDIR", "/big");
  EXPECT_THAT(UnpackBases(), ElementsAre("/home/u/.cache/cohort", "/big/" + own));
  const Variable homeless("HOME", nullptr);
  EXPECT_THAT(UnpackBases(), ElementsAre("/big/" + own));
}

}  // namespace
}  // namespace cohort
