#include "launcher/generate_call.h"

#include <algorithm>

#include "launcher/status_details.h"

namespace cohort {

absl::Time EngineDeadline(absl::Time client_deadline, absl::Time now, absl::Duration step) {
  if (client_deadline == absl::InfiniteFuture()) return client_deadline;
  const absl::Duration left = std::max(client_deadline - now, absl::ZeroDuration());
  const absl::Duration to_deliver = std::min(absl::Milliseconds(250), left / 10);
  const absl::Duration to_notice = std::min(step, left / 4);
  return client_deadline - to_deliver - to_notice;
}

grpc::Status StatusOf(const Finish& finish) {
  const auto or_else = [&finish](absl::Status status) {
    return ToGrpcStatus(finish.status.ok() ? status : finish.status);
  };
  switch (finish.reason) {
    case FinishReason::kStop:
    case FinishReason::kLength:
      return grpc::Status::OK;
    case FinishReason::kCancelled:
      return or_else(absl::CancelledError("the request was cancelled"));
    case FinishReason::kDeadline:
      return ToGrpcStatus(
          absl::DeadlineExceededError("the deadline of the request passed; it was ended"));
    case FinishReason::kError:
      if (absl::IsUnavailable(finish.status)) {
        return ToGrpcStatus(WithReason(WithRetry(finish.status, absl::Seconds(1)), "GROUP_LOST"));
      }
      return or_else(absl::InternalError("the request failed"));
  }
  return grpc::Status::OK;
}

v1::Accepted MakeAccepted(const CallStart& start) {
  const Generation& generation = start.generation;
  v1::Accepted accepted;
  accepted.set_request_id(start.request_id);
  accepted.set_prompt_tokens(static_cast<uint32_t>(generation.request.prompt.size()));
  accepted.set_instance_id(start.context->server_info.instance_id());
  accepted.set_epoch(start.context->engine->load().epoch);
  *accepted.mutable_sampling() = generation.sampling;
  *accepted.mutable_stopping() = generation.stopping;
  *accepted.mutable_output() = generation.output;
  *accepted.mutable_cache() = generation.cache;
  *accepted.mutable_scheduling() = generation.scheduling;
  return accepted;
}

}  // namespace cohort
