#include "launcher/generate_command.h"

#include <cstdio>
#include <limits>
#include <utility>

#include "absl/strings/str_format.h"
#include "absl/strings/str_replace.h"
#include "cohort/v1/control.grpc.pb.h"
#include "cohort/v1/generation.grpc.pb.h"
#include "launcher/client.h"
#include "launcher/status_details.h"
#include "launcher/stop_signals.h"
#include "runtime/utf8.h"

namespace cohort {
namespace {

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

  // A sequence that was not shown as it came.
  void PrintWhole(const SequenceOutcome& sequence, const std::string& heading) {
    Write(heading + "\n");
    Write(as_ids_ ? absl::StrReplaceAll(JoinIds(sequence.token_ids), {{",", " "}}) : sequence.text);
    Write("\n");
  }

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

// An index that was not asked for is a fault of the server, and dropped.
SequenceOutcome* Find(uint32_t index, GenerateOutcome& outcome) {
  return index < outcome.sequences.size() ? &outcome.sequences[index] : nullptr;
}

void Take(const v1::Delta& delta, SequenceOutcome& sequence) {
  sequence.token_ids.insert(sequence.token_ids.end(), delta.token_ids().begin(),
                            delta.token_ids().end());
  sequence.text += delta.text();
  sequence.logprobs.insert(sequence.logprobs.end(), delta.logprobs().begin(),
                           delta.logprobs().end());
}

void Take(const v1::GenerateEvent& event, GenerateOutcome& outcome) {
  if (event.has_accepted()) {
    outcome.accepted = event.accepted();
    if (event.accepted().sampling().n() > 1)
      outcome.sequences.resize(event.accepted().sampling().n());
  } else if (event.has_delta()) {
    if (SequenceOutcome* sequence = Find(event.delta().index(), outcome); sequence != nullptr) {
      Take(event.delta(), *sequence);
    }
  } else if (event.has_finished()) {
    if (SequenceOutcome* sequence = Find(event.finished().index(), outcome); sequence != nullptr) {
      sequence->finished = event.finished();
    }
  }
}

// `live` is null with --json. Sequences that come interleaved are not printed as they come.
GenerateOutcome Run(const GenerateOptions& options, const v1::GenerateRequest& request,
                    const std::shared_ptr<grpc::Channel>& channel, StopSignals& signals,
                    LivePrinter* live) {
  GenerateOutcome outcome;
  grpc::ClientContext context;
  SetTimeout(options.timeout, context);
  const SignalWatcher watcher(signals, [&context] { context.TryCancel(); });
  const auto stub = v1::Generation::NewStub(channel);
  const auto stream = stub->GenerateStream(&context, request);
  for (v1::GenerateEvent event; stream->Read(&event);) {
    Take(event, outcome);
    if (event.has_delta() && live != nullptr && outcome.sequences.size() == 1) {
      live->Print(event.delta());
    }
  }
  outcome.status = stream->Finish();
  return outcome;
}

// The end of what a person sees: the last line, or all sequences under a heading each.
void PrintRest(const GenerateOutcome& outcome, LivePrinter& live) {
  if (outcome.sequences.size() == 1) {
    live.End();
    return;
  }
  for (size_t i = 0; i < outcome.sequences.size(); ++i) {
    const std::string reason = FinishReasonOf(outcome.sequences[i], outcome.status);
    live.PrintWhole(outcome.sequences[i], absl::StrCat("--- output ", i, ": ", reason, " ---"));
  }
}

void PrintSummary(const GenerateOutcome& outcome) {
  for (size_t i = 0; i < outcome.sequences.size(); ++i) {
    const SequenceOutcome& sequence = outcome.sequences[i];
    if (!sequence.finished.has_value()) continue;
    const v1::Usage& usage = sequence.finished->usage();
    const v1::Timing& timing = sequence.finished->timing();
    if (outcome.sequences.size() > 1) absl::FPrintF(stderr, "output %d: ", i);
    absl::FPrintF(stderr,
                  "%d prompt tokens (%d cached), %d completion tokens, finish %s, first token "
                  "%.1f ms, total %.1f ms\n",
                  usage.prompt_tokens(), usage.cached_tokens(), usage.completion_tokens(),
                  FinishReasonOf(sequence, outcome.status),
                  timing.time_to_first_token_milliseconds(), timing.total_milliseconds());
  }
}

// A request that the server refused has no result to print; one that it took, or that ended for
// lack of time, has.
bool HasResult(const GenerateOutcome& outcome) {
  const grpc::StatusCode code = outcome.status.error_code();
  return outcome.accepted.has_value() || code == grpc::StatusCode::DEADLINE_EXCEEDED ||
         code == grpc::StatusCode::CANCELLED;
}

v1::Stopping MakeStopping(const StoppingOptions& options, FieldViolations& violations) {
  v1::Stopping stopping;
  if (options.max_tokens) {
    stopping.set_max_tokens(ToWire(*options.max_tokens, "stopping.max_tokens", 1, violations));
  }
  if (options.min_tokens) {
    stopping.set_min_tokens(ToWire(*options.min_tokens, "stopping.min_tokens", 0, violations));
  }
  stopping.mutable_stop_token_ids()->Assign(options.stop_token_ids.begin(),
                                            options.stop_token_ids.end());
  for (size_t i = 0; i < options.stop_strings.size(); ++i) {
    AddText(options.stop_strings[i], absl::StrCat("stopping.stop_strings[", i, "]"),
            *stopping.mutable_stop_strings(), violations);
  }
  if (options.include_stop) stopping.set_include_stop(true);
  if (options.ignore_eos) stopping.set_ignore_eos(true);
  return stopping;
}

absl::Status SetRest(const GenerateOptions& options, v1::GenerateRequest& request,
                     FieldViolations& violations) {
  const auto count = [&violations](int64_t value, StringView field) {
    return ToWire(value, field, 0, violations);
  };
  v1::OutputOptions& output = *request.mutable_output();
  if (options.logprobs) output.set_logprobs(count(*options.logprobs, "output.logprobs"));
  if (options.prompt_logprobs) {
    output.set_prompt_logprobs(count(*options.prompt_logprobs, "output.prompt_logprobs"));
  }
  if (options.bypass_prefix_cache) request.mutable_cache()->set_bypass_prefix(true);
  if (!IsUtf8(options.cache_salt)) violations.Add("cache.salt", "not UTF-8");
  if (!options.cache_salt.empty()) request.mutable_cache()->set_salt(options.cache_salt);
  if (options.priority) {
    using Limits = std::numeric_limits<int32_t>;
    if (*options.priority < Limits::min() || *options.priority > Limits::max()) {
      violations.Add("scheduling.priority", absl::StrCat(*options.priority, " is outside ",
                                                         Limits::min(), " to ", Limits::max()));
    }
    request.mutable_scheduling()->set_priority(static_cast<int32_t>(*options.priority));
  }
  return violations.ToStatus();
}

}  // namespace

absl::StatusOr<v1::GenerateRequest> MakeGenerateRequest(const GenerateOptions& options) {
  v1::GenerateRequest request;
  ASSIGN_OR_RETURN(PromptInput prompt, ReadPrompt(options.prompt));
  SetPrompt(std::move(prompt), request);
  request.set_request_id(options.request_id);
  request.set_model(options.model);
  FieldViolations violations;
  *request.mutable_sampling() = MakeSampling(options.sampling, violations);
  *request.mutable_stopping() = MakeStopping(options.stopping, violations);
  RETURN_IF_ERROR(SetRest(options, request, violations));
  return request;
}

std::string FinishReasonOf(const SequenceOutcome& sequence, const grpc::Status& status) {
  switch (sequence.finished.has_value() ? sequence.finished->reason()
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
  switch (status.error_code()) {
    case grpc::StatusCode::DEADLINE_EXCEEDED:
      return "deadline";
    case grpc::StatusCode::CANCELLED:
      return "cancelled";
    default:
      return "error";
  }
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
      PrintRest(outcome, *live);
    }
  }
  if (!options.json) PrintSummary(outcome);
  if (outcome.status.ok()) return 0;
  PrintError(options.server, outcome.status);
  const bool cancelled = FinishReasonOf(outcome.sequences[0], outcome.status) == "cancelled";
  return HasResult(outcome) && cancelled ? 0 : 1;
}

}  // namespace cohort
