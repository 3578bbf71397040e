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

  // All messages up to the end; `continued_` counts the prompts inside messages.
  std::vector<std::string> Messages() {
    LineReader reader(reading_, signals_);
    std::vector<std::string> messages;
    for (;;) {
      const std::optional<std::string> message =
          ReadMessage(reader, [this](bool continues) { continued_ += continues ? 1 : 0; });
      if (!message.has_value()) return messages;
      messages.push_back(*message);
    }
  }

  StopSignals signals_;
  int reading_ = -1;
  int writing_ = -1;
  int continued_ = 0;
};

TEST_F(LineReaderTest, LinesComeWithoutTheirBreaksAndTheLastNeedsNone) {
  Write("one\r\n\ntwo");
  EndInput();
  LineReader reader(reading_, signals_);
  EXPECT_EQ(reader.Next(), "one");
  EXPECT_EQ(reader.Next(), "");
  EXPECT_EQ(reader.Next(), "two");
  EXPECT_EQ(reader.Next(), std::nullopt);
}

TEST_F(LineReaderTest, ASignalEndsTheWait) {
  LineReader reader(reading_, signals_);
  ASSERT_EQ(raise(SIGTERM), 0);
  EXPECT_EQ(reader.Next(), std::nullopt);
  EXPECT_TRUE(signals_.terminated());
}

TEST_F(LineReaderTest, MessagesMayHaveSeveralLines) {
  Write("one\ntwo\\\nthree\\\n\n\"\"\"\nfour\n  five\n\"\"\"\n\"\"\"six\"\"\"\n");
  EndInput();
  EXPECT_EQ(Messages(), (std::vector<std::string>{"one", "two\nthree\n", "four\n  five", "six"}));
  EXPECT_EQ(continued_, 5);
}

TEST_F(LineReaderTest, AMessageThatIsCutOffIsNone) {
  Write("one\n\"\"\"two\n");
  EndInput();
  EXPECT_EQ(Messages(), (std::vector<std::string>{"one"}));
}

}  // namespace
}  // namespace cohort
