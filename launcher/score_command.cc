#include "launcher/score_command.h"

#include <cstdio>
#include <utility>

#include "absl/strings/str_format.h"
#include "cohort/v1/generation.grpc.pb.h"
#include "launcher/client.h"
#include "launcher/status_details.h"
#include "launcher/stop_signals.h"

namespace cohort {
namespace {

// "  5 -0.125000" for each of the likeliest ids.
std::string TopColumns(const v1::TokenLogprob& token) {
  std::string columns;
  for (const v1::TopLogprob& candidate : token.top()) {
    absl::StrAppendFormat(&columns, "  %d %.6f", candidate.token_id(), candidate.logprob());
  }
  return columns;
}

void PrintTable(const v1::ScoreResult& result) {
  absl::PrintF("%8s %10s %14s%s\n", "position", "token_id", "logprob",
               result.tokens().empty() ? "" : "  likeliest");
  for (int i = 0; i < result.token_ids_size(); ++i) {
    const std::string logprob = i == 0 ? "-" : absl::StrFormat("%.6f", result.logprobs(i - 1));
    absl::PrintF("%8d %10d %14s%s\n", i, result.token_ids(i), logprob,
                 i < result.tokens_size() ? TopColumns(result.tokens(i)) : "");
  }
}

}  // namespace

nlohmann::ordered_json ToJson(const v1::ScoreResult& result) {
  nlohmann::ordered_json logprobs = nlohmann::ordered_json::array();
  if (!result.token_ids().empty()) logprobs.push_back(nullptr);
  for (const float logprob : result.logprobs()) logprobs.push_back(RoundTripFloat(logprob));
  const std::vector<uint32_t> ids(result.token_ids().begin(), result.token_ids().end());
  nlohmann::ordered_json json = {{"token_ids", ids}, {"logprobs", logprobs}};
  if (result.tokens().empty()) return json;
  nlohmann::ordered_json top = nlohmann::ordered_json::array();
  for (const v1::TokenLogprob& token : result.tokens()) top.push_back(ToJson(token)["top"]);
  json["top"] = std::move(top);
  return json;
}

int RunScore(const ScoreOptions& options) {
  StopSignals signals;
  absl::StatusOr<PromptInput> prompt = ReadPrompt(options.prompt);
  if (!prompt.ok()) return PrintError(DescribeStatus(ToGrpcStatus(prompt.status())));
  v1::ScoreRequest request;
  request.set_model(options.model);
  SetPrompt(*std::move(prompt), request);
  FieldViolations violations;
  if (options.top) request.set_top(ToWire(*options.top, "top", 0, violations));
  if (!violations.empty()) return PrintError(violations.ToStatus().message());

  grpc::ClientContext context;
  SetTimeout(options.timeout, context);
  v1::ScoreResult result;
  grpc::Status status;
  {
    const SignalWatcher watcher(signals, [&context] { context.TryCancel(); });
    status = v1::Generation::NewStub(Connect(options.server))->Score(&context, request, &result);
  }
  if (!status.ok()) return PrintError(options.server, status);
  if (result.logprobs_size() + 1 != result.token_ids_size()) {
    return PrintError(absl::StrCat(options.server.ToString(), ": ", result.token_ids_size(),
                                   " token ids came with ", result.logprobs_size(),
                                   " log-probabilities"));
  }
  if (options.json) {
    PrintJson(ToJson(result));
  } else {
    PrintTable(result);
  }
  return 0;
}

}  // namespace cohort
