#include "launcher/active_requests.h"

#include <utility>

#include "launcher/status_details.h"

namespace cohort {

namespace {

// Passes on what the engine says of one sequence.
class SequenceSink final : public RequestSink {
 public:
  SequenceSink(std::shared_ptr<SequenceReceiver> receiver, uint32_t index)
      : receiver_(std::move(receiver)), index_(index) {}

  SinkAnswer OnTokens(const GeneratedTokens& tokens) override {
    return receiver_->OnTokens(index_, tokens);
  }
  void OnFinish(const Finish& finish) override { receiver_->OnFinish(index_, finish); }

 private:
  const std::shared_ptr<SequenceReceiver> receiver_;
  const uint32_t index_;
};

}  // namespace

absl::Status ActiveRequest::Submit(const Request& request, uint32_t sequences,
                                   const std::shared_ptr<SequenceReceiver>& receiver) {
  for (uint32_t index = 0; index < sequences; ++index) {
    Request sequence = request;
    sequence.sequence_index = index;
    if (index > 0) sequence.prompt_logprobs = -1;  // they are those of the first
    const absl::StatusOr<RequestId> id =
        engine_.Submit(std::move(sequence), std::make_shared<SequenceSink>(receiver, index));
    if (!id.ok()) {
      Cancel();
      return id.status();
    }
    const std::lock_guard<std::mutex> lock(mutex_);
    ids_.push_back(*id);
    if (paused_) engine_.Pause(*id);
    if (cancelled_) engine_.Cancel(*id);
  }
  return absl::OkStatus();
}

void ActiveRequest::Cancel() {
  const std::lock_guard<std::mutex> lock(mutex_);
  cancelled_ = true;
  for (const RequestId id : ids_) engine_.Cancel(id);
}

void ActiveRequest::SetPaused(bool paused) {
  const std::lock_guard<std::mutex> lock(mutex_);
  paused_ = paused;
  for (const RequestId id : ids_) {
    paused ? engine_.Pause(id) : engine_.Resume(id);
  }
}

absl::StatusOr<std::shared_ptr<ActiveRequest>> ActiveRequests::Reserve(
    const std::string& request_id) {
  auto request = std::make_shared<ActiveRequest>(engine_);
  const std::lock_guard<std::mutex> lock(mutex_);
  if (!requests_.emplace(request_id, request).second) {
    return WithReason(absl::AlreadyExistsError(absl::StrCat("request_id '", request_id,
                                                            "' belongs to a request in progress")),
                      "DUPLICATE_REQUEST_ID");
  }
  return request;
}

void ActiveRequests::Release(const std::string& request_id) {
  const std::lock_guard<std::mutex> lock(mutex_);
  requests_.erase(request_id);
}

std::vector<std::string> ActiveRequests::Abort(const std::vector<std::string>& request_ids) {
  std::vector<std::string> aborted;
  for (const std::string& request_id : request_ids) {
    std::shared_ptr<ActiveRequest> request;
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      const auto found = requests_.find(request_id);
      if (found == requests_.end()) continue;
      request = found->second;
    }
    request->Cancel();
    aborted.push_back(request_id);
  }
  return aborted;
}

}  // namespace cohort
