#include "launcher/client.h"

#include <grpcpp/create_channel.h>
#include <grpcpp/security/credentials.h>

#include <cstdio>
#include <cstdlib>
#include <utility>

#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "launcher/status_details.h"
#include "runtime/json.h"
#include "runtime/utf8.h"

namespace cohort {
namespace {

constexpr int64_t kMaxPromptFileBytes = int64_t{8} << 20;  // what a server receives at most

absl::Status CheckUtf8(const std::string& text, StringView field) {
  if (IsUtf8(text)) return absl::OkStatus();
  FieldViolations violations;
  violations.Add(field, absl::StrCat("not UTF-8 at byte ", Utf8Prefix(text)));
  return violations.ToStatus();
}

}  // namespace

std::shared_ptr<grpc::Channel> Connect(const HostPort& server) {
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(-1);  // the server's answers are as long as they are
  // The address is the server's own; the environment's proxy is not for it.
  arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
  return grpc::CreateCustomChannel(server.ToString(), grpc::InsecureChannelCredentials(),
                                   arguments);
}

void SetTimeout(const std::optional<absl::Duration>& timeout, grpc::ClientContext& context) {
  if (timeout.has_value()) context.set_deadline(absl::ToChronoTime(absl::Now() + *timeout));
}

int PrintError(StringView message) {
  absl::FPrintF(stderr, "cohort: %s\n", message);
  return 1;
}

int PrintError(const HostPort& server, const grpc::Status& status) {
  return PrintError(absl::StrCat(server.ToString(), ": ", DescribeStatus(status)));
}

absl::StatusOr<PromptInput> ReadPrompt(const PromptOptions& options) {
  PromptInput prompt;
  prompt.text = options.text;
  if (options.file.has_value()) {
    ASSIGN_OR_RETURN(prompt.text, ReadFile(*options.file, kMaxPromptFileBytes));
  }
  if (prompt.text.has_value()) RETURN_IF_ERROR(CheckUtf8(*prompt.text, "text"));
  if (options.chat.has_value()) {
    RETURN_IF_ERROR(CheckUtf8(*options.chat, "chat.messages[0].content"));
    v1::ChatMessage& message = *prompt.chat.emplace().add_messages();
    message.set_role("user");
    message.set_content(*options.chat);
  }
  if (options.token_ids.has_value()) {
    prompt.token_ids.emplace().mutable_ids()->Assign(options.token_ids->begin(),
                                                     options.token_ids->end());
  }
  return prompt;
}

void PrintJson(const nlohmann::ordered_json& object) {
  using ErrorHandler = nlohmann::ordered_json::error_handler_t;
  const std::string text = object.dump(-1, ' ', false, ErrorHandler::replace);
  std::fwrite(text.data(), 1, text.size(), stdout);
  std::fputc('\n', stdout);
  std::fflush(stdout);
}

double RoundTripFloat(float value) {
  return std::strtod(absl::StrFormat("%.9g", value).c_str(), nullptr);
}

}  // namespace cohort
