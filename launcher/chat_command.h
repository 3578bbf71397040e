// `cohort chat`: a conversation in a terminal, or one answer per line of a pipe.
#ifndef COHORT_LAUNCHER_CHAT_COMMAND_H_
#define COHORT_LAUNCHER_CHAT_COMMAND_H_

#include <optional>
#include <string>

#include "cohort/v1/generation.pb.h"
#include "launcher/chat_session.h"
#include "launcher/client_options.h"

namespace cohort {

// A line that steers the conversation instead of being said: "/word" or "/word argument".
struct ChatInstruction {
  std::string word;  // without the slash
  std::string argument;
};
// nullopt for text that is to be said; also for paths such as /usr/bin.
std::optional<ChatInstruction> ParseChatInstruction(const std::string& text);

// "12 tokens, 34.5 tokens/s, first token 56 ms, 128 of 140 prompt tokens cached".
std::string DescribeTiming(const v1::Finished& finished);

// What a person should know of how an answer ended, and how to go on; empty when it ended by
// itself.
std::string DescribeEnd(const ChatAnswer& answer, const std::optional<int64_t>& max_tokens);

int RunChat(const ChatOptions& options);

}  // namespace cohort

#endif  // COHORT_LAUNCHER_CHAT_COMMAND_H_
