// The JSON object of `cohort generate --json`.
#include <google/protobuf/util/json_util.h>

#include "kernels/check.h"
#include "launcher/client.h"
#include "launcher/generate_command.h"
#include "launcher/generation_sequence.h"

namespace cohort {
namespace {

using nlohmann::ordered_json;

ordered_json ParameterJson(const google::protobuf::Message& message) {
  google::protobuf::util::JsonPrintOptions options;
  options.preserve_proto_field_names = true;
  std::string text;
  CHECK(google::protobuf::util::MessageToJsonString(message, &text, options).ok());
  return ordered_json::parse(text);
}

// The values in effect, by the names of the fields of the request.
ordered_json ParametersJson(const v1::Accepted& accepted) {
  ordered_json parameters = {{"sampling", ParameterJson(accepted.sampling())},
                             {"stopping", ParameterJson(accepted.stopping())},
                             {"output", ParameterJson(accepted.output())},
                             {"cache", ParameterJson(accepted.cache())},
                             {"scheduling", ParameterJson(accepted.scheduling())}};
  // Protobuf's JSON has 64-bit numbers as text.
  parameters["sampling"]["seed"] = accepted.sampling().seed();
  return parameters;
}

template <class Logprobs>
ordered_json LogprobsJson(const Logprobs& logprobs) {
  ordered_json array = ordered_json::array();
  for (const v1::TokenLogprob& logprob : logprobs) array.push_back(ToJson(logprob));
  return array;
}

ordered_json SequenceJson(const SequenceOutcome& sequence, const GenerateOutcome& outcome) {
  ordered_json json = {{"token_ids", sequence.token_ids},
                       {"text", sequence.text},
                       {"finish_reason", FinishReasonOf(sequence, outcome.status)}};
  if (sequence.finished.has_value() && sequence.finished->has_stop()) {
    json["stop"] = ParameterJson(sequence.finished->stop());
  }
  if (outcome.accepted.has_value() && outcome.accepted->output().has_logprobs()) {
    json["logprobs"] = LogprobsJson(sequence.logprobs);
  }
  return json;
}

// What is known of the sequences, finished or not.
void Summarize(const GenerateOutcome& outcome, v1::Usage& usage, v1::Timing& timing) {
  for (const SequenceOutcome& sequence : outcome.sequences) {
    if (sequence.finished.has_value()) {
      AddSequence(*sequence.finished, usage, timing);
    } else {
      usage.set_completion_tokens(usage.completion_tokens() +
                                  static_cast<uint32_t>(sequence.token_ids.size()));
    }
  }
  if (outcome.accepted.has_value()) usage.set_prompt_tokens(outcome.accepted->prompt_tokens());
}

}  // namespace

ordered_json ToJson(const GenerateOutcome& outcome) {
  v1::Usage usage;
  v1::Timing times;
  Summarize(outcome, usage, times);
  ordered_json timing = ordered_json::object();
  ordered_json outputs = ordered_json::array();
  for (const SequenceOutcome& sequence : outcome.sequences) {
    outputs.push_back(SequenceJson(sequence, outcome));
    if (!sequence.finished.has_value()) continue;
    timing["queued_milliseconds"] = times.queued_milliseconds();
    timing["time_to_first_token_milliseconds"] = times.time_to_first_token_milliseconds();
    timing["total_milliseconds"] = times.total_milliseconds();
  }
  ordered_json json = {{"outputs", outputs},
                       {"usage",
                        {{"prompt_tokens", usage.prompt_tokens()},
                         {"completion_tokens", usage.completion_tokens()},
                         {"cached_tokens", usage.cached_tokens()}}},
                       {"timing", timing}};
  if (!outcome.accepted.has_value()) return json;
  if (outcome.accepted->output().has_prompt_logprobs() &&
      outcome.sequences[0].finished.has_value()) {
    json["prompt_logprobs"] = LogprobsJson(outcome.sequences[0].finished->prompt_logprobs());
  }
  json["request_id"] = outcome.accepted->request_id();
  json["parameters"] = ParametersJson(*outcome.accepted);
  return json;
}

}  // namespace cohort
