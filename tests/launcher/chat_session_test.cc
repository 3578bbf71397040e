#include "launcher/chat_session.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <csignal>
#include <utility>

#include "tests/launcher/service_fixture.h"

namespace cohort {
namespace {

class ChatSessionTest : public ServiceTest {
 protected:
  // Ends each answer after four tokens, whatever was said.
  ChatSessionTest() { options_.max_tokens = 4; }

  void StartChat() {
    Start();
    session_.emplace(options_, channel_);
  }
  ChatAnswer Ask(const std::string& message) {
    printed_.clear();
    return session_->Ask(message, signals_,
                         [this](StringView text) { absl::StrAppend(&printed_, text); });
  }
  // "role: content" of what the next request would hold.
  std::vector<std::string> NextTurns() {
    std::vector<std::string> turns;
    const auto request = session_->MakeRequest("next");
    for (const v1::ChatMessage& turn : request->chat().messages()) {
      turns.push_back(turn.role() + ": " + turn.content());
    }
    return turns;
  }

  StopSignals signals_;
  ChatOptions options_;
  std::optional<ChatSession> session_;
  std::string printed_;
};

using Turns = std::vector<std::string>;

TEST_F(ChatSessionTest, KeepsWhatWasSaid) {
  options_.system = "Be brief.";
  StartChat();
  const ChatAnswer answer = Ask("hello");
  ASSERT_TRUE(answer.status.ok()) << answer.status.error_message();
  EXPECT_EQ(answer.text.size(), 4u);
  EXPECT_EQ(printed_, answer.text);
  EXPECT_EQ(answer.finished->usage().completion_tokens(), 4u);
  EXPECT_EQ(NextTurns(),
            (Turns{"system: Be brief.", "user: hello", "assistant: " + answer.text, "user: next"}));
  session_->Reset();
  EXPECT_EQ(NextTurns(), (Turns{"system: Be brief.", "user: next"}));
  session_->SetSystem("Be kind.");
  EXPECT_EQ(NextTurns(), (Turns{"system: Be kind.", "user: next"}));
}

TEST_F(ChatSessionTest, RetryForgetsTheLastAnswer) {
  StartChat();
  EXPECT_EQ(session_->Retry(), std::nullopt);
  Ask("one");
  Ask("two");
  EXPECT_EQ(session_->Retry(), "two");
  EXPECT_EQ(NextTurns().size(), 3u);
  EXPECT_EQ(session_->Retry(), "two") << "also when asking again failed";
  EXPECT_EQ(NextTurns().size(), 3u);
}

TEST_F(ChatSessionTest, AFailedMessageIsNotPartOfTheConversation) {
  StartChat();
  engine_->GroupLost(1, absl::UnavailableError("gone"));
  const ChatAnswer answer = Ask("hello");
  EXPECT_EQ(answer.status.error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_FALSE(answer.interrupted);
  EXPECT_EQ(NextTurns(), (Turns{"user: next"}));
  EXPECT_EQ(session_->Retry(), "hello");
  EXPECT_EQ(Ask("a\xff").status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
}

TEST_F(ChatSessionTest, ASignalStopsAnAnswerWhichIsKept) {
  options_.max_tokens.reset();
  StartChat();
  bool sent = false;
  const ChatAnswer answer = session_->Ask("hello", signals_, [&sent](StringView) {
    if (!std::exchange(sent, true)) kill(getpid(), SIGINT);
  });
  EXPECT_TRUE(answer.interrupted);
  EXPECT_FALSE(answer.text.empty());
  EXPECT_EQ(NextTurns().size(), 3u);
  EXPECT_TRUE(Eventually([this] { return BlocksAreFree(); }));
}

}  // namespace
}  // namespace cohort
