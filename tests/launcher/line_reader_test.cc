#include "launcher/line_reader.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <csignal>
#include <vector>

namespace cohort {
namespace {

class LineReaderTest : public ::testing::Test {
 protected:
  LineReaderTest() {
    int ends[2];
    EXPECT_EQ(pipe(ends), 0);
    reading_ = ends[0];
    writing_ = ends[1];
  }
  ~LineReaderTest() override {
    close(reading_);
    EndInput();
  }

  void Write(const std::string& text) {
    ASSERT_EQ(write(writing_, text.data(), text.size()), static_cast<ssize_t>(text.size()));
  }
  void EndInput() {
    if (writing_ >= 0) close(writing_);
    writing_ = -1;
  }

  std::vector<std::string> Messages() {
    const std::unique_ptr<LineReader> reader = MakePipeReader(reading_, signals_);
    std::vector<std::string> messages;
    while (std::optional<std::string> message = ReadMessage(*reader)) messages.push_back(*message);
    return messages;
  }

  StopSignals signals_;
  int reading_ = -1;
  int writing_ = -1;
};

TEST_F(LineReaderTest, LinesComeWithoutTheirBreaksAndTheLastNeedsNone) {
  Write("one\r\n\ntwo");
  EndInput();
  const std::unique_ptr<LineReader> reader = MakePipeReader(reading_, signals_);
  EXPECT_EQ(reader->Next(""), "one");
  EXPECT_EQ(reader->Next(""), "");
  EXPECT_EQ(reader->Next(""), "two");
  EXPECT_EQ(reader->Next(""), std::nullopt);
}

TEST_F(LineReaderTest, ASignalEndsTheWait) {
  const std::unique_ptr<LineReader> reader = MakePipeReader(reading_, signals_);
  ASSERT_EQ(raise(SIGTERM), 0);
  EXPECT_EQ(reader->Next(""), std::nullopt);
  EXPECT_TRUE(signals_.terminated());
}

TEST_F(LineReaderTest, MessagesMayHaveSeveralLines) {
  Write("one\ntwo\\\nthree\\\n\n\"\"\"\nfour\n  five\n\"\"\"\n\"\"\"six\"\"\"\n");
  EndInput();
  EXPECT_EQ(Messages(), (std::vector<std::string>{"one", "two\nthree\n", "four\n  five", "six"}));
}

TEST_F(LineReaderTest, AMessageThatIsCutOffIsNone) {
  Write("one\n\"\"\"two\n");
  EndInput();
  EXPECT_EQ(Messages(), (std::vector<std::string>{"one"}));
}

}  // namespace
}  // namespace cohort
