#include "launcher/generate_command.h"

#include <cstdio>
#include <limits>
#include <utility>

#include "absl/strings/str_format.h"
#include "cohort/v1/control.grpc.pb.h"
#include "cohort/v1/generation.grpc.pb.h"
#include "launcher/client.h"
#include "launcher/status_details.h"
#include "launcher/stop_signals.h"

namespace cohort {
namespace {

// Numbers in the range of a uint32 go to the server as they are; the others it could not even see.
uint32_t ToWire(int64_t value, StringView field, int64_t least, FieldViolations& violations) {
  constexpr int64_t kMost = std::numeric_limits<uint32_t>::max();
  if (value < 0 || value > kMost) {
    violations.Add(field, absl::StrCat(value, " is outside ", least, " to ", kMost));
    return 0;
  }
  return static_cast<uint32_t>(value);
}

// What is shown while events come: text, or ids where the server has no tokenizer.
class LivePrinter {
 public:
  explicit LivePrinter(bool as_ids) : as_ids_(as_ids) {}

  void Print(const v1::Delta& delta) {
    if (!as_ids_) {
      Write(delta.text());
      return;
    }
    for (const uint32_t id : delta.token_ids()) {
      Write(absl::StrCat(any_ ? " " : "", id));
    }
  }
  void End() { Write("\n"); }

 private:
  void Write(StringView text) {
    std::fwrite(text.data(), 1, text.size(), stdout);
    std::fflush(stdout);
    any_ = true;
  }

  const bool as_ids_;
  bool any_ = false;
};

bool HasTokenizer(const std::shared_ptr<grpc::Channel>& channel) {
  grpc::ClientContext context;
  SetTimeout(absl::Seconds(10), context);
  v1::ModelInfo info;
  const auto stub = v1::Control::NewStub(channel);
  // Without an answer the request itself will tell what is wrong.
  return !stub->GetModelInfo(&context, {}, &info).ok() || info.has_tokenizer();
}

// `live` is null with --json.
GenerateOutcome Run(const GenerateOptions& options, const v1::GenerateRequest& request,
                    const std::shared_ptr<grpc::Channel>& channel, StopSignals& signals,
                    LivePrinter* live) {
  GenerateOutcome outcome;
  grpc::ClientContext context;
  SetTimeout(options.timeout, context);
  const SignalWatcher watcher(signals, [&context] { context.TryCancel(); });
  const auto stub = v1::Generation::NewStub(channel);
  const auto stream = stub->GenerateStream(&context, request);
  v1::GenerateEvent event;
  while (stream->Read(&event)) {
    if (event.has_accepted()) outcome.accepted = event.accepted();
    if (event.has_finished()) outcome.finished = event.finished();
    if (!event.has_delta()) continue;
    const v1::Delta& delta = event.delta();
    outcome.token_ids.insert(outcome.token_ids.end(), delta.token_ids().begin(),
                             delta.token_ids().end());
    outcome.text += delta.text();
    if (live != nullptr) live->Print(delta);
  }
  outcome.status = stream->Finish();
  return outcome;
}

v1::Usage UsageOf(const GenerateOutcome& outcome) {
  if (outcome.finished.has_value()) return outcome.finished->usage();
  v1::Usage usage;
  usage.set_completion_tokens(static_cast<uint32_t>(outcome.token_ids.size()));
  if (outcome.accepted.has_value()) {
    usage.set_prompt_tokens(outcome.accepted->prompt_tokens());
    usage.set_cached_tokens(outcome.accepted->cached_tokens());
  }
  return usage;
}

void PrintSummary(const GenerateOutcome& outcome) {
  const v1::Usage usage = UsageOf(outcome);
  const v1::Timing& timing = outcome.finished->timing();
  absl::FPrintF(stderr,
                "%d prompt tokens, %d completion tokens, finish %s, first token %.1f ms, total "
                "%.1f ms\n",
                usage.prompt_tokens(), usage.completion_tokens(), FinishReasonOf(outcome),
                timing.time_to_first_token_milliseconds(), timing.total_milliseconds());
}

// A request that the server refused has no result to print; one that it took, or that ended for
// lack of time, has.
bool HasResult(const GenerateOutcome& outcome) {
  const grpc::StatusCode code = outcome.status.error_code();
  return outcome.accepted.has_value() || code == grpc::StatusCode::DEADLINE_EXCEEDED ||
         code == grpc::StatusCode::CANCELLED;
}

}  // namespace

absl::StatusOr<v1::GenerateRequest> MakeGenerateRequest(const GenerateOptions& options) {
  v1::GenerateRequest request;
  ASSIGN_OR_RETURN(PromptInput prompt, ReadPrompt(options.prompt));
  SetPrompt(std::move(prompt), request);
  request.set_request_id(options.request_id);
  request.set_model(options.model);
  FieldViolations violations;
  v1::Sampling& sampling = *request.mutable_sampling();
  if (options.temperature) sampling.set_temperature(static_cast<float>(*options.temperature));
  if (options.top_p) sampling.set_top_p(static_cast<float>(*options.top_p));
  if (options.top_k) {
    sampling.set_top_k(ToWire(*options.top_k, "sampling.top_k", 0, violations));
  }
  if (options.seed) sampling.set_seed(*options.seed);
  v1::Stopping& stopping = *request.mutable_stopping();
  if (options.max_tokens) {
    stopping.set_max_tokens(ToWire(*options.max_tokens, "stopping.max_tokens", 1, violations));
  }
  stopping.mutable_stop_token_ids()->Assign(options.stop_token_ids.begin(),
                                            options.stop_token_ids.end());
  if (options.ignore_eos) stopping.set_ignore_eos(true);
  RETURN_IF_ERROR(violations.ToStatus());
  return request;
}

std::string FinishReasonOf(const GenerateOutcome& outcome) {
  switch (outcome.finished.has_value() ? outcome.finished->reason()
                                       : v1::FINISH_REASON_UNSPECIFIED) {
    case v1::FINISH_REASON_STOP:
      return "stop";
    case v1::FINISH_REASON_LENGTH:
      return "length";
    case v1::FINISH_REASON_CANCELLED:
      return "cancelled";
    case v1::FINISH_REASON_DEADLINE:
      return "deadline";
    case v1::FINISH_REASON_ERROR:
      return "error";
    default:
      break;
  }
  switch (outcome.status.error_code()) {
    case grpc::StatusCode::DEADLINE_EXCEEDED:
      return "deadline";
    case grpc::StatusCode::CANCELLED:
      return "cancelled";
    default:
      return "error";
  }
}

nlohmann::ordered_json ToJson(const GenerateOutcome& outcome) {
  const v1::Usage usage = UsageOf(outcome);
  nlohmann::ordered_json timing = nlohmann::ordered_json::object();
  if (outcome.finished.has_value()) {
    const v1::Timing& times = outcome.finished->timing();
    timing["queued_milliseconds"] = times.queued_milliseconds();
    timing["time_to_first_token_milliseconds"] = times.time_to_first_token_milliseconds();
    timing["total_milliseconds"] = times.total_milliseconds();
  }
  nlohmann::ordered_json output = {{"token_ids", outcome.token_ids},
                                   {"text", outcome.text},
                                   {"finish_reason", FinishReasonOf(outcome)}};
  return {{"outputs", nlohmann::ordered_json::array({output})},
          {"usage",
           {{"prompt_tokens", usage.prompt_tokens()},
            {"completion_tokens", usage.completion_tokens()},
            {"cached_tokens", usage.cached_tokens()}}},
          {"timing", timing}};
}

int RunGenerate(const GenerateOptions& options) {
  StopSignals signals;
  const absl::StatusOr<v1::GenerateRequest> request = MakeGenerateRequest(options);
  if (!request.ok()) return PrintError(DescribeStatus(ToGrpcStatus(request.status())));
  const std::shared_ptr<grpc::Channel> channel = Connect(options.server);
  std::optional<LivePrinter> live;
  if (!options.json) live.emplace(request->has_token_ids() && !HasTokenizer(channel));
  const GenerateOutcome outcome =
      Run(options, *request, channel, signals, live.has_value() ? &*live : nullptr);
  if (HasResult(outcome)) {
    if (options.json) {
      PrintJson(ToJson(outcome));
    } else if (outcome.accepted.has_value()) {
      live->End();
    }
  }
  if (!options.json && outcome.finished.has_value()) PrintSummary(outcome);
  if (outcome.status.ok()) return 0;
  PrintError(options.server, outcome.status);
  return HasResult(outcome) && FinishReasonOf(outcome) == "cancelled" ? 0 : 1;
}

}  // namespace cohort
