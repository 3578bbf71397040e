#include "launcher/chat_session.h"

#include <grpcpp/client_context.h>

#include <atomic>
#include <utility>

#include "launcher/client.h"
#include "launcher/status_details.h"
#include "runtime/utf8.h"

namespace cohort {
namespace {

v1::ChatMessage Turn(const char* role, const std::string& content) {
  v1::ChatMessage turn;
  turn.set_role(role);
  turn.set_content(content);
  return turn;
}

}  // namespace

ChatSession::ChatSession(const ChatOptions& options, const std::shared_ptr<grpc::Channel>& channel)
    : options_(options), stub_(v1::Generation::NewStub(channel)), system_(options.system) {}

absl::StatusOr<v1::GenerateRequest> ChatSession::MakeRequest(const std::string& message) const {
  FieldViolations violations;
  v1::GenerateRequest request;
  request.set_model(options_.model);
  *request.mutable_sampling() = MakeSampling(options_.sampling, violations);
  if (options_.max_tokens) {
    request.mutable_stopping()->set_max_tokens(
        ToWire(*options_.max_tokens, "stopping.max_tokens", 1, violations));
  }
  request.mutable_output()->set_token_ids(false);
  v1::Chat& chat = *request.mutable_chat();
  if (system_.has_value()) *chat.add_messages() = Turn("system", *system_);
  chat.mutable_messages()->Add(turns_.begin(), turns_.end());
  *chat.add_messages() = Turn("user", message);
  for (int i = 0; i < chat.messages_size(); ++i) {
    if (IsUtf8(chat.messages(i).content())) continue;
    violations.Add(absl::StrCat("chat.messages[", i, "].content"), "not UTF-8");
  }
  RETURN_IF_ERROR(violations.ToStatus());
  return request;
}

ChatAnswer ChatSession::Ask(const std::string& message, StopSignals& signals,
                            const std::function<void(StringView text)>& print) {
  last_message_ = message;
  last_is_in_turns_ = false;
  ChatAnswer answer;
  const absl::StatusOr<v1::GenerateRequest> request = MakeRequest(message);
  if (!request.ok()) {
    answer.status = ToGrpcStatus(request.status());
    return answer;
  }
  std::atomic<bool> interrupted{false};
  {
    grpc::ClientContext context;
    SetTimeout(options_.timeout, context);
    const SignalWatcher watcher(signals, [&] {
      interrupted = true;
      context.TryCancel();
    });
    const auto stream = stub_->GenerateStream(&context, *request);
    for (v1::GenerateEvent event; stream->Read(&event);) {
      if (event.has_finished()) answer.finished = event.finished();
      if (event.delta().text().empty()) continue;
      answer.text += event.delta().text();
      print(event.delta().text());
    }
    answer.status = stream->Finish();
  }
  answer.interrupted = interrupted && !answer.status.ok();
  if (answer.text.empty() && !answer.status.ok()) return answer;
  turns_.push_back(Turn("user", message));
  turns_.push_back(Turn("assistant", answer.text));
  last_is_in_turns_ = true;
  return answer;
}

std::optional<std::string> ChatSession::Retry() {
  if (last_is_in_turns_) turns_.resize(turns_.size() - 2);
  last_is_in_turns_ = false;
  return last_message_;
}

void ChatSession::Reset() {
  turns_.clear();
  last_message_.reset();
  last_is_in_turns_ = false;
}

void ChatSession::SetSystem(const std::string& text) {
  Reset();
  system_ = text;
}

}  // namespace cohort
