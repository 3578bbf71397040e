// What the client commands share: the channel, the prompt, the deadline and how errors are told.
#ifndef COHORT_LAUNCHER_CLIENT_H_
#define COHORT_LAUNCHER_CLIENT_H_

#include <grpcpp/channel.h>
#include <grpcpp/client_context.h>

#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>

#include "absl/time/time.h"
#include "cohort/v1/generation.pb.h"
#include "launcher/client_options.h"
#include "launcher/status_details.h"

namespace cohort {

std::shared_ptr<grpc::Channel> Connect(const HostPort& server);

void SetTimeout(const std::optional<absl::Duration>& timeout, grpc::ClientContext& context);

// One line on standard error; returns the exit code 1.
int PrintError(StringView message);
// The same for what a server answered, with its field violations.
int PrintError(const HostPort& server, const grpc::Status& status);

// The prompt as given: reads the file, refuses what is not UTF-8 (with the field's name). Exactly
// one of the results is set.
struct PromptInput {
  std::optional<std::string> text;
  std::optional<v1::TokenIds> token_ids;
  std::optional<v1::Chat> chat;
};
absl::StatusOr<PromptInput> ReadPrompt(const PromptOptions& options);

template <class R>
void SetPrompt(PromptInput prompt, R& request) {
  if (prompt.text.has_value()) request.set_text(*std::move(prompt.text));
  if (prompt.token_ids.has_value()) *request.mutable_token_ids() = *std::move(prompt.token_ids);
  if (prompt.chat.has_value()) *request.mutable_chat() = *std::move(prompt.chat);
}

// Numbers in the range of a uint32 go to the server as they are, so that its refusal names the
// field; of the others, which the wire cannot carry, this one does. `least`: what is legal.
uint32_t ToWire(int64_t value, StringView field, int64_t least, FieldViolations& violations);

// Adds a text that is UTF-8.
void AddText(const std::string& text, StringView field,
             google::protobuf::RepeatedPtrField<std::string>& texts, FieldViolations& violations);

// Sampling that was given; values that were not are left out.
v1::Sampling MakeSampling(const SamplingOptions& options, FieldViolations& violations);

// One line on standard output. Text that is not UTF-8 is replaced, never an error.
void PrintJson(const nlohmann::ordered_json& object);

// The number whose shortest decimal form has at most the 9 digits that identify a float.
double RoundTripFloat(float value);

// {"token_id":5,"logprob":-0.5,"top":[{"token_id":5,"logprob":-0.5}]}; null for none.
nlohmann::ordered_json ToJson(const v1::TokenLogprob& logprob);

// "1,2,3", as --token-ids takes them.
template <class Ids>
std::string JoinIds(const Ids& ids) {
  std::string text;
  for (const auto id : ids) absl::StrAppend(&text, text.empty() ? "" : ",", id);
  return text;
}

}  // namespace cohort

#endif  // COHORT_LAUNCHER_CLIENT_H_
