#include "launcher/ring_step_link.h"

#include <utility>

#include "runtime/byte_codec.h"

namespace cohort {
namespace {

constexpr size_t kCodeBytes = 4;

}  // namespace

absl::StatusCode StatusCodeOf(int64_t number) {
  const auto last = static_cast<int64_t>(absl::StatusCode::kUnauthenticated);
  return number >= 0 && number <= last ? static_cast<absl::StatusCode>(number)
                                       : absl::StatusCode::kUnknown;
}

std::string EncodeOutcome(const absl::StatusOr<std::string>& result) {
  ByteWriter code;
  code.U32(static_cast<uint32_t>(result.status().code()));
  std::string outcome = std::move(code).Take();
  if (result.ok()) {
    outcome.append(*result);
  } else {
    outcome.append(std::string(result.status().message()));
  }
  return outcome;
}

absl::StatusOr<std::string> DecodeOutcome(StringView outcome) {
  if (outcome.size() < kCodeBytes) {
    return absl::DataLossError(
        absl::StrCat("a step's outcome of ", outcome.size(), " bytes is no outcome"));
  }
  ByteReader reader(outcome.substr(0, kCodeBytes));
  const absl::StatusCode code = StatusCodeOf(reader.U32());
  const StringView rest = outcome.substr(kCodeBytes);
  if (code != absl::StatusCode::kOk) return absl::Status(code, rest);
  return std::string(rest);
}

absl::StatusOr<std::unique_ptr<RingStepLink>> RingStepLink::Map(std::string name, int plans_fd,
                                                                int outcomes_fd,
                                                                int spin_iterations) {
  ASSIGN_OR_RETURN(auto plans, ByteRingWriter::Map(plans_fd, spin_iterations));
  ASSIGN_OR_RETURN(auto outcomes, ByteRingReader::Map(outcomes_fd, spin_iterations));
  return std::unique_ptr<RingStepLink>(
      new RingStepLink(std::move(name), std::move(plans), std::move(outcomes)));
}

absl::Status RingStepLink::Send(StringView plan_bytes, absl::Time deadline) {
  return plans_->Send(plan_bytes, deadline);
}

absl::StatusOr<std::string> RingStepLink::Receive(absl::Time deadline) {
  ASSIGN_OR_RETURN(const std::string outcome, outcomes_->Receive(deadline));
  return DecodeOutcome(outcome);
}

void RingStepLink::Abort(absl::Status reason) {
  plans_->Abort(reason);
  outcomes_->Abort(reason);
}

}  // namespace cohort
