// A conversation with a server, as `cohort chat` holds it: what was said so far, and the next
// answer. Knows nothing of terminals.
#ifndef COHORT_LAUNCHER_CHAT_SESSION_H_
#define COHORT_LAUNCHER_CHAT_SESSION_H_

#include <grpcpp/channel.h>

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "cohort/v1/generation.grpc.pb.h"
#include "launcher/client_options.h"
#include "launcher/stop_signals.h"

namespace cohort {

struct ChatAnswer {
  std::string text;
  std::optional<v1::Finished> finished;
  grpc::Status status;       // of the call
  bool interrupted = false;  // by a signal; the status is then no error
};

class ChatSession {
 public:
  ChatSession(const ChatOptions& options, const std::shared_ptr<grpc::Channel>& channel);

  // Asks `message` in the conversation so far. `print` gets the answer's text as it comes; a signal
  // ends the answer. A message that got an answer, be it cut short, becomes part of the
  // conversation; one that failed does not.
  ChatAnswer Ask(const std::string& message, StopSignals& signals,
                 const std::function<void(StringView text)>& print);

  // The message to ask again; what came of it is forgotten. nullopt when nothing was asked.
  std::optional<std::string> Retry();

  void Reset();                             // forgets all but the system message
  void SetSystem(const std::string& text);  // and forgets the rest

  // The request of the next answer; INVALID_ARGUMENT for values that the wire cannot carry.
  absl::StatusOr<v1::GenerateRequest> MakeRequest(const std::string& message) const;

 private:
  const ChatOptions options_;
  const std::unique_ptr<v1::Generation::Stub> stub_;
  std::optional<std::string> system_;
  std::vector<v1::ChatMessage> turns_;       // user, assistant, user, ...
  std::optional<std::string> last_message_;  // asked last
  bool last_is_in_turns_ = false;
};

}  // namespace cohort

#endif  // COHORT_LAUNCHER_CHAT_SESSION_H_
