#include "launcher/generate_stream_call.h"

#include <utility>

#include "launcher/status_details.h"

namespace cohort {

StreamCall::StreamCall(CallStart start)
    : start_(std::move(start)), accepted_(MakeAccepted(start_)) {
  for (uint32_t index = 0; index < start_.generation.sequences; ++index) {
    sequences_.emplace_back(start_, index);
  }
  unfinished_ = sequences_.size();
}

grpc::ServerWriteReactor<v1::GenerateEvent>* StreamCall::Start(CallStart start) {
  auto call = std::make_shared<StreamCall>(std::move(start));
  call->self_ = call;
  call->Submit();
  return call.get();
}

void StreamCall::Submit() {
  absl::StatusOr<std::shared_ptr<ActiveRequest>> reserved =
      start_.active->Reserve(start_.request_id);
  absl::Status status = reserved.status();
  if (status.ok()) {
    request_ = *std::move(reserved);
    const Generation& generation = start_.generation;
    status = request_->Submit(generation.request, generation.sequences, shared_from_this());
    if (!status.ok()) start_.active->Release(start_.request_id);
  }
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    submitted_ = true;
    if (!status.ok()) {
      refused_ = true;
      status_ = ToGrpcStatus(DescribeRefusal(status));
    }
  }
  Pump();
}

SinkAnswer StreamCall::OnTokens(uint32_t index, const GeneratedTokens& tokens) {
  bool stopped = false;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (broken_ || refused_) return SinkAnswer::kContinue;  // its cancellation is on the way
    Outgoing& outgoing = sequences_[index];
    v1::Delta delta = outgoing.sequence.Append(tokens);
    stopped = outgoing.sequence.stopped();
    if (HasContent(delta)) Enqueue(std::move(delta), tokens.ids.size(), outgoing);
    PauseOrResume();
  }
  Pump();
  return stopped ? SinkAnswer::kStop : SinkAnswer::kContinue;
}

void StreamCall::OnFinish(uint32_t index, const cohort::Finish& finish) {
  bool is_last = false;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (refused_) return;
    Outgoing& outgoing = sequences_[index];
    v1::Delta delta = outgoing.sequence.Flush();
    if (HasContent(delta)) Enqueue(std::move(delta), 0, outgoing);
    outgoing.finished = outgoing.sequence.Finished(finish);
    is_last = --unfinished_ == 0;
    if (!status_.has_value() || status_->ok()) status_ = StatusOf(finish);
    // Before the client hears of the end, so that it may use the id again at once.
    if (is_last) start_.active->Release(start_.request_id);
  }
  Pump();
}

void StreamCall::Enqueue(v1::Delta delta, int64_t tokens, Outgoing& outgoing) {
  const int64_t bytes = static_cast<int64_t>(delta.ByteSizeLong());
  if (outgoing.delta.has_value()) {
    Extend(delta, *outgoing.delta);
  } else {
    outgoing.delta = std::move(delta);
  }
  outgoing.size.tokens += tokens;
  outgoing.size.bytes += bytes;
  backlog_.tokens += tokens;
  backlog_.bytes += bytes;
}

std::optional<v1::GenerateEvent> StreamCall::NextOf(Outgoing& outgoing) {
  std::optional<v1::GenerateEvent> next;
  if (outgoing.delta.has_value()) {
    *next.emplace().mutable_delta() = *std::move(outgoing.delta);
    outgoing.delta.reset();
    backlog_.tokens -= outgoing.size.tokens;
    backlog_.bytes -= outgoing.size.bytes;
    outgoing.size = {};
  } else if (outgoing.finished.has_value()) {
    *next.emplace().mutable_finished() = *std::move(outgoing.finished);
    outgoing.finished.reset();
  }
  return next;
}

std::optional<v1::GenerateEvent> StreamCall::NextEvent() {
  std::optional<v1::GenerateEvent> next;
  if (broken_ || refused_) return next;
  if (accepted_.has_value()) {
    *next.emplace().mutable_accepted() = *std::move(accepted_);
    accepted_.reset();
  }
  for (size_t i = 0; i < sequences_.size() && !next.has_value(); ++i) {
    next = NextOf(sequences_[next_]);
    next_ = (next_ + 1) % sequences_.size();
  }
  if (next.has_value()) {
    next->set_request_id(start_.request_id);
    next->set_event_sequence(event_sequence_++);
  }
  return next;
}

void StreamCall::PauseOrResume() {
  const int64_t most_tokens = StreamBacklog::kMostTokens * static_cast<int64_t>(sequences_.size());
  const int64_t share = paused_ ? 2 : 1;
  const bool is_behind =
      backlog_.tokens * share > most_tokens || backlog_.bytes * share > StreamBacklog::kMostBytes;
  if (is_behind == paused_) return;
  paused_ = is_behind;
  request_->SetPaused(paused_);
}

void StreamCall::Pump() {
  // gRPC is called without the mutex; `busy_` keeps everyone else from calling it meanwhile.
  std::optional<grpc::Status> status;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (!submitted_ || busy_) return;
    if (std::optional<v1::GenerateEvent> event = NextEvent(); event.has_value()) {
      writing_ = *std::move(event);
      PauseOrResume();
    } else if (status_.has_value() && (unfinished_ == 0 || refused_)) {
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

}  // namespace cohort
