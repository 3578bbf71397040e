#include "launcher/client.h"

#include <grpcpp/create_channel.h>
#include <grpcpp/security/credentials.h>

#include <cstdio>
#include <cstdlib>
#include <limits>
#include <utility>

#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
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

uint32_t ToWire(int64_t value, StringView field, int64_t least, FieldViolations& violations) {
  constexpr int64_t kMost = std::numeric_limits<uint32_t>::max();
  if (value < 0 || value > kMost) {
    violations.Add(field, absl::StrCat(value, " is outside ", least, " to ", kMost));
    return 0;
  }
  return static_cast<uint32_t>(value);
}

v1::Sampling MakeSampling(const SamplingOptions& options, FieldViolations& violations) {
  v1::Sampling sampling;
  const auto set = [&sampling](const std::optional<double>& value, auto setter) {
    if (value.has_value()) (sampling.*setter)(static_cast<float>(*value));
  };
  set(options.temperature, &v1::Sampling::set_temperature);
  set(options.top_p, &v1::Sampling::set_top_p);
  set(options.min_p, &v1::Sampling::set_min_p);
  set(options.repetition_penalty, &v1::Sampling::set_repetition_penalty);
  set(options.presence_penalty, &v1::Sampling::set_presence_penalty);
  set(options.frequency_penalty, &v1::Sampling::set_frequency_penalty);
  if (options.top_k) sampling.set_top_k(ToWire(*options.top_k, "sampling.top_k", 0, violations));
  if (options.seed) sampling.set_seed(*options.seed);
  if (options.n) sampling.set_n(ToWire(*options.n, "sampling.n", 1, violations));
  for (const auto& [id, bias] : options.logit_bias) {
    (*sampling.mutable_logit_bias())[id] = static_cast<float>(bias);
  }
  sampling.mutable_allowed_token_ids()->Assign(options.allowed_token_ids.begin(),
                                               options.allowed_token_ids.end());
  for (size_t i = 0; i < options.bad_words.size(); ++i) {
    AddText(options.bad_words[i], absl::StrCat("sampling.bad_words[", i, "]"),
            *sampling.mutable_bad_words(), violations);
  }
  return sampling;
}

void AddText(const std::string& text, StringView field,
             google::protobuf::RepeatedPtrField<std::string>& texts, FieldViolations& violations) {
  if (IsUtf8(text)) {
    *texts.Add() = text;
  } else {
    violations.Add(field, absl::StrCat("not UTF-8 at byte ", Utf8Prefix(text)));
  }
}

void PrintJson(const nlohmann::ordered_json& object) {
  using ErrorHandler = nlohmann::ordered_json::error_handler_t;
  const std::string text = object.dump(-1, ' ', false, ErrorHandler::replace);
  std::fwrite(text.data(), 1, text.size(), stdout);
  std::fputc('\n', stdout);
  std::fflush(stdout);
}

nlohmann::ordered_json ToJson(const v1::TokenLogprob& logprob) {
  nlohmann::ordered_json top = nlohmann::ordered_json::array();
  for (const v1::TopLogprob& candidate : logprob.top()) {
    top.push_back(
        {{"token_id", candidate.token_id()}, {"logprob", RoundTripFloat(candidate.logprob())}});
  }
  nlohmann::ordered_json json = {
      {"token_id", logprob.token_id()}, {"logprob", nullptr}, {"top", std::move(top)}};
  if (logprob.has_logprob()) json["logprob"] = RoundTripFloat(logprob.logprob());
  return json;
}

double RoundTripFloat(float value) {
  return std::strtod(absl::StrFormat("%.9g", value).c_str(), nullptr);
}

}  // namespace cohort
