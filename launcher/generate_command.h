// `cohort generate`: one request through GenerateStream, its text as it comes or one JSON object.
#ifndef COHORT_LAUNCHER_GENERATE_COMMAND_H_
#define COHORT_LAUNCHER_GENERATE_COMMAND_H_

#include <grpcpp/support/status.h>

#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "cohort/v1/generation.pb.h"
#include "launcher/client_options.h"

namespace cohort {

// What came back of one sequence.
struct SequenceOutcome {
  std::vector<uint32_t> token_ids;
  std::string text;
  std::vector<v1::TokenLogprob> logprobs;
  std::optional<v1::Finished> finished;
};

// Everything that came back, also when the stream broke.
struct GenerateOutcome {
  std::optional<v1::Accepted> accepted;
  std::vector<SequenceOutcome> sequences = std::vector<SequenceOutcome>(1);  // at least one
  grpc::Status status;
};

// INVALID_ARGUMENT for a prompt that cannot be read and numbers that the wire cannot carry.
absl::StatusOr<v1::GenerateRequest> MakeGenerateRequest(const GenerateOptions& options);

// "stop", "length", "cancelled", "deadline" or "error": what `finished` said, otherwise what the
// status means.
std::string FinishReasonOf(const SequenceOutcome& sequence, const grpc::Status& status);

nlohmann::ordered_json ToJson(const GenerateOutcome& outcome);

int RunGenerate(const GenerateOptions& options);

}  // namespace cohort

#endif  // COHORT_LAUNCHER_GENERATE_COMMAND_H_
