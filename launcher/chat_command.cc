#include "launcher/chat_command.h"

#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_format.h"
#include "cohort/v1/control.grpc.pb.h"
#include "launcher/client.h"
#include "launcher/generation_validation.h"
#include "launcher/line_reader.h"
#include "launcher/status_details.h"
#include "runtime/utf8.h"

namespace cohort {
namespace {

constexpr char kHelp[] =
    "/reset          forget the conversation\n"
    "/system TEXT    set the system message and start anew\n"
    "/retry          answer the last message again\n"
    "/exit           leave; so do Ctrl-D, and Ctrl-C at the prompt\n"
    "A line that ends in \\ goes on in the next; \"\"\" begins and ends a text of several lines.\n"
    "Ctrl-C stops an answer.\n";

// Text for a terminal without characters that would steer it.
std::string Printable(StringView text) {
  std::string printable;
  for (const char c : text) {
    if (absl::ascii_iscntrl(static_cast<unsigned char>(c)) && c != '\n' && c != '\t') {
      printable += kReplacementCharacter;
    } else {
      printable += c;
    }
  }
  return printable;
}

class Chat {
 public:
  Chat(const ChatOptions& options, const std::shared_ptr<grpc::Channel>& channel,
       StopSignals& signals)
      : options_(options),
        signals_(signals),
        session_(options, channel),
        prompts_(isatty(STDIN_FILENO) == 1 && isatty(STDOUT_FILENO) == 1),
        styles_(isatty(STDOUT_FILENO) == 1),
        reader_(prompts_ ? MakeTerminalReader(signals) : MakePipeReader(STDIN_FILENO, signals)) {}

  // The exit code.
  int Run(const v1::ModelInfo& model) {
    if (prompts_) Greet(model);
    while (!leaving_) {
      const std::optional<std::string> message = ReadMessage(*reader_);
      if (!message.has_value()) break;
      if (!absl::StripAsciiWhitespace(*message).empty()) Take(*message);
    }
    if (prompts_ && !leaving_) Write("\n");  // the terminal is still in the prompt's line
    return exit_code_;
  }

 private:
  static void Write(StringView text) {
    std::fwrite(text.data(), 1, text.size(), stdout);
    std::fflush(stdout);
  }
  void WriteDim(const std::string& line) {
    Write(styles_ ? absl::StrCat("\033[2m", line, "\033[0m\n") : line + "\n");
  }

  void Greet(const v1::ModelInfo& model) {
    WriteDim(absl::StrCat("Chat with ", model.name(), " at ", options_.server.ToString(),
                          ". /help lists what else there is; Ctrl-D leaves."));
  }

  void Take(const std::string& message) {
    const std::optional<ChatInstruction> instruction = ParseChatInstruction(message);
    if (instruction.has_value()) {
      Follow(*instruction);
    } else {
      Say(message);
    }
  }

  void Follow(const ChatInstruction& instruction) {
    const std::string& word = instruction.word;
    if (word == "help") {
      Write(kHelp);
    } else if (word == "reset") {
      session_.Reset();
      Confirm("The conversation is forgotten.");
    } else if (word == "system") {
      session_.SetSystem(instruction.argument);
      Confirm("The system message is set; the conversation starts anew.");
    } else if (word == "retry") {
      const std::optional<std::string> message = session_.Retry();
      if (message.has_value()) {
        Say(*message);
      } else {
        Fail("/retry: nothing was asked yet");
      }
    } else if (word == "exit") {
      leaving_ = true;
    } else {
      Fail(absl::StrCat("/", word, " is not an instruction; /help lists them"));
    }
  }

  void Confirm(const std::string& line) {
    if (prompts_) WriteDim(line);
  }

  // A person can go on after a fault; what feeds a pipe would not notice it.
  void Fail(const std::string& fault) {
    PrintError(fault);
    if (prompts_) return;
    exit_code_ = 1;
    leaving_ = true;
  }

  void Say(const std::string& message) {
    const ChatAnswer answer = session_.Ask(message, signals_, [this](StringView text) {
      Write(styles_ ? Printable(text) : std::string(text));
    });
    if (!answer.text.empty() || answer.status.ok() || answer.interrupted) Write("\n");
    const std::string end = DescribeEnd(answer, options_.max_tokens);
    if (!answer.status.ok() && !answer.interrupted) {
      Fail(end);
    } else if (!end.empty() && prompts_) {
      WriteDim(absl::StrCat("[", end, "]"));
    } else if (!end.empty() && !answer.interrupted) {
      PrintError(end);
    }
    if (styles_ && answer.finished.has_value()) {
      WriteDim(absl::StrCat("[", DescribeTiming(*answer.finished), "]"));
    }
    if (signals_.terminated() || (answer.interrupted && !prompts_)) leaving_ = true;
  }

  const ChatOptions& options_;
  StopSignals& signals_;
  ChatSession session_;
  const bool prompts_;  // a person types and reads
  const bool styles_;   // a person reads
  const std::unique_ptr<LineReader> reader_;
  bool leaving_ = false;
  int exit_code_ = 0;
};

}  // namespace

std::optional<ChatInstruction> ParseChatInstruction(const std::string& text) {
  if (text.empty() || text[0] != '/') return std::nullopt;
  const size_t end = std::min(text.find_first_of(" \t\n"), text.size());
  const std::string word = text.substr(1, end - 1);
  if (word.empty() || !std::all_of(word.begin(), word.end(), absl::ascii_islower)) {
    return std::nullopt;
  }
  return ChatInstruction{.word = word,
                         .argument = std::string(absl::StripAsciiWhitespace(text.substr(end)))};
}

std::string DescribeTiming(const v1::Finished& finished) {
  const v1::Usage& usage = finished.usage();
  const v1::Timing& timing = finished.timing();
  std::string text = absl::StrCat(usage.completion_tokens(), " tokens");
  const double seconds =
      (timing.total_milliseconds() - timing.time_to_first_token_milliseconds()) / 1000;
  if (usage.completion_tokens() > 1 && seconds > 0) {
    absl::StrAppendFormat(&text, ", %.1f tokens/s", (usage.completion_tokens() - 1) / seconds);
  }
  absl::StrAppendFormat(&text, ", first token %.0f ms", timing.time_to_first_token_milliseconds());
  absl::StrAppend(&text, ", ", usage.cached_tokens(), " of ", usage.prompt_tokens(),
                  " prompt tokens cached");
  return text;
}

std::string DescribeEnd(const ChatAnswer& answer, const std::optional<int64_t>& max_tokens) {
  if (answer.interrupted) return "stopped";
  if (!answer.status.ok()) {
    if (ReasonOf(answer.status) == kPromptTooLong) {
      return absl::StrCat("the conversation fills the model's context (",
                          answer.status.error_message(),
                          "): /reset begins a new one; a server with a larger --max-model-len "
                          "holds longer ones");
    }
    return DescribeStatus(answer.status);
  }
  if (!answer.finished.has_value() || answer.finished->reason() != v1::FINISH_REASON_LENGTH) {
    return "";
  }
  const int64_t tokens = answer.finished->usage().completion_tokens();
  if (max_tokens.has_value() && tokens >= *max_tokens) {
    return absl::StrCat("cut at --max-tokens ", *max_tokens);
  }
  return "the context is full, so the answer was cut: /reset begins a new conversation";
}

int RunChat(const ChatOptions& options) {
  StopSignals signals;
  const std::shared_ptr<grpc::Channel> channel = Connect(options.server);
  grpc::ClientContext context;
  SetTimeout(absl::Seconds(10), context);
  v1::ModelInfo model;
  const grpc::Status status = v1::Control::NewStub(channel)->GetModelInfo(&context, {}, &model);
  if (!status.ok()) return PrintError(options.server, status);
  return Chat(options, channel, signals).Run(model);
}

}  // namespace cohort
