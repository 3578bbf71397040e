#include "launcher/generate_call.h"

#include <algorithm>
#include <utility>

#include "launcher/generation_validation.h"
#include "launcher/status_details.h"

namespace cohort {
namespace {

double Milliseconds(absl::Time from, absl::Time to) {
  if (from == absl::InfinitePast() || to == absl::InfinitePast()) return 0;
  return std::max(0.0, absl::ToDoubleMilliseconds(to - from));
}

}  // namespace

absl::Time EngineDeadline(absl::Time client_deadline, absl::Time now) {
  if (client_deadline == absl::InfiniteFuture()) return client_deadline;
  const absl::Duration left = std::max(client_deadline - now, absl::ZeroDuration());
  return client_deadline - std::min(absl::Milliseconds(250), left / 10);
}

void FillTiming(const RequestTiming& timing, v1::Timing& message) {
  message.set_queued_milliseconds(Milliseconds(timing.submitted, timing.scheduled));
  message.set_time_to_first_token_milliseconds(Milliseconds(timing.submitted, timing.first_token));
  message.set_total_milliseconds(Milliseconds(timing.submitted, timing.finished));
}

void FillUsage(const Finish& finish, v1::Usage& message) {
  message.set_prompt_tokens(static_cast<uint32_t>(finish.prompt_tokens));
  message.set_completion_tokens(static_cast<uint32_t>(finish.completion_tokens));
  message.set_cached_tokens(static_cast<uint32_t>(finish.cached_tokens));
}

v1::FinishReason ToProto(FinishReason reason) {
  switch (reason) {
    case FinishReason::kStop:
      return v1::FINISH_REASON_STOP;
    case FinishReason::kLength:
      return v1::FINISH_REASON_LENGTH;
    case FinishReason::kCancelled:
      return v1::FINISH_REASON_CANCELLED;
    case FinishReason::kDeadline:
      return v1::FINISH_REASON_DEADLINE;
    case FinishReason::kError:
      return v1::FINISH_REASON_ERROR;
  }
  return v1::FINISH_REASON_UNSPECIFIED;
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
  v1::Accepted accepted;
  accepted.set_request_id(start.request_id);
  accepted.set_prompt_tokens(static_cast<uint32_t>(start.request.prompt.size()));
  accepted.set_instance_id(start.context->server_info.instance_id());
  accepted.set_epoch(start.context->engine->load().epoch);
  *accepted.mutable_sampling() = ToProto(start.request.sampling);
  *accepted.mutable_stopping() = ToProto(start.request.stopping);
  return accepted;
}

StreamCall::StreamCall(CallStart start)
    : context_(*start.context),
      active_(*start.active),
      request_id_(start.request_id),
      text_(*start.context, start.request.stopping) {
  *accepted_.emplace().mutable_accepted() = MakeAccepted(start);
}

grpc::ServerWriteReactor<v1::GenerateEvent>* StreamCall::Start(CallStart start) {
  auto call = std::make_shared<StreamCall>(start);
  call->self_ = call;
  call->Submit(std::move(start.request));
  return call.get();
}

void StreamCall::Submit(Request request) {
  absl::StatusOr<std::shared_ptr<ActiveRequest>> reserved = active_.Reserve(request_id_);
  absl::Status status = reserved.status();
  if (status.ok()) {
    request_ = *std::move(reserved);
    status = request_->Submit(std::move(request), shared_from_this());
    if (!status.ok()) active_.Release(request_id_);
  }
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    submitted_ = true;
    if (!status.ok()) {
      accepted_.reset();
      status_ = ToGrpcStatus(DescribeRefusal(status));
    }
  }
  Pump();
}

SinkAnswer StreamCall::OnTokens(const GeneratedTokens& tokens) {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    const std::string text = text_.Append(tokens.ids);
    if (broken_) return SinkAnswer::kContinue;  // its cancellation is on the way
    if (!delta_.has_value()) {
      delta_.emplace().mutable_delta()->set_first_position(
          static_cast<uint32_t>(tokens.first_index));
    }
    v1::Delta& delta = *delta_->mutable_delta();
    for (const int32_t id : tokens.ids) delta.add_token_ids(static_cast<uint32_t>(id));
    delta.mutable_text()->append(text);
  }
  Pump();
  return SinkAnswer::kContinue;
}

void StreamCall::OnFinish(const cohort::Finish& finish) {
  // Before the client hears of the end, so that it may use the id again at once.
  active_.Release(request_id_);
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (const std::string text = text_.Flush(); !text.empty()) {
      if (!delta_.has_value()) {
        delta_.emplace().mutable_delta()->set_first_position(
            static_cast<uint32_t>(finish.completion_tokens));
      }
      delta_->mutable_delta()->mutable_text()->append(text);
    }
    v1::Finished& finished = *finished_.emplace().mutable_finished();
    finished.set_reason(ToProto(finish.reason));
    FillUsage(finish, *finished.mutable_usage());
    FillTiming(finish.timing, *finished.mutable_timing());
    status_ = StatusOf(finish);
  }
  Pump();
}

std::optional<v1::GenerateEvent> StreamCall::NextEvent() {
  std::optional<v1::GenerateEvent> next;
  if (broken_) return next;
  for (std::optional<v1::GenerateEvent>* event : {&accepted_, &delta_, &finished_}) {
    if (!event->has_value()) continue;
    next.swap(*event);
    next->set_request_id(request_id_);
    next->set_event_sequence(next_sequence_++);
    break;
  }
  return next;
}

void StreamCall::Pump() {
  // gRPC is called without the mutex; `busy_` keeps everyone else from calling it meanwhile.
  std::optional<grpc::Status> status;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (!submitted_ || busy_) return;
    if (std::optional<v1::GenerateEvent> event = NextEvent(); event.has_value()) {
      writing_ = *std::move(event);
    } else if (status_.has_value()) {
      status = status_;
    } else {
      return;
    }
    busy_ = true;
  }
  if (status.has_value()) {
    Finish(*status);
  } else {
    StartWrite(&writing_);
  }
}

void StreamCall::OnWriteDone(bool ok) {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    busy_ = false;
    broken_ = broken_ || !ok;
  }
  if (!ok) request_->Cancel();
  Pump();
}

void StreamCall::OnCancel() {
  // The engine answers with OnFinish, which ends the call.
  if (request_ != nullptr) request_->Cancel();
}

void StreamCall::OnDone() { const std::shared_ptr<StreamCall> last = std::move(self_); }

UnaryCall::UnaryCall(const CallStart& start, v1::GenerateResult* generated, v1::ScoreResult* scored)
    : active_(*start.active),
      request_id_(start.request_id),
      generated_(generated),
      scored_(scored),
      text_(*start.context, start.request.stopping) {}

grpc::ServerUnaryReactor* UnaryCall::Start(CallStart start, v1::GenerateResult* response) {
  response->set_request_id(start.request_id);
  *response->mutable_accepted() = MakeAccepted(start);
  response->add_outputs();
  auto call = std::make_shared<UnaryCall>(start, response, nullptr);
  return Run(std::move(call), std::move(start));
}

grpc::ServerUnaryReactor* UnaryCall::Start(CallStart start, v1::ScoreResult* response) {
  response->set_request_id(start.request_id);
  for (const int32_t id : start.request.prompt) {
    response->add_token_ids(static_cast<uint32_t>(id));
  }
  auto call = std::make_shared<UnaryCall>(start, nullptr, response);
  return Run(std::move(call), std::move(start));
}

grpc::ServerUnaryReactor* UnaryCall::Run(std::shared_ptr<UnaryCall> call, CallStart start) {
  call->self_ = call;
  absl::StatusOr<std::shared_ptr<ActiveRequest>> reserved =
      call->active_.Reserve(call->request_id_);
  absl::Status status = reserved.status();
  if (status.ok()) {
    call->request_ = *std::move(reserved);
    status = call->request_->Submit(std::move(start.request), call);
    if (!status.ok()) call->active_.Release(call->request_id_);
  }
  if (!status.ok()) call->Finish(ToGrpcStatus(DescribeRefusal(status)));
  return call.get();
}

SinkAnswer UnaryCall::OnTokens(const GeneratedTokens& tokens) {
  if (generated_ == nullptr) return SinkAnswer::kContinue;
  v1::GenerateOutput& output = *generated_->mutable_outputs(0);
  for (const int32_t id : tokens.ids) output.add_token_ids(static_cast<uint32_t>(id));
  output.mutable_text()->append(text_.Append(tokens.ids));
  return SinkAnswer::kContinue;
}

void UnaryCall::OnFinish(const cohort::Finish& finish) {
  active_.Release(request_id_);
  if (generated_ != nullptr) {
    v1::GenerateOutput& output = *generated_->mutable_outputs(0);
    output.mutable_text()->append(text_.Flush());
    output.set_finish_reason(ToProto(finish.reason));
    FillUsage(finish, *generated_->mutable_usage());
    FillTiming(finish.timing, *generated_->mutable_timing());
  } else {
    scored_->mutable_logprobs()->Assign(finish.prompt_logprobs.begin(),
                                        finish.prompt_logprobs.end());
  }
  Finish(StatusOf(finish));
}

void UnaryCall::OnCancel() {
  if (request_ != nullptr) request_->Cancel();
}

void UnaryCall::OnDone() { const std::shared_ptr<UnaryCall> last = std::move(self_); }

}  // namespace cohort
