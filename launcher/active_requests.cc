#include "launcher/active_requests.h"

#include <utility>

#include "launcher/status_details.h"

namespace cohort {

absl::Status ActiveRequest::Submit(Request request, std::shared_ptr<RequestSink> sink) {
  const absl::StatusOr<RequestId> id = engine_.Submit(std::move(request), std::move(sink));
  if (!id.ok()) return id.status();
  bool cancelled = false;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    id_ = *id;
    cancelled = cancelled_;
  }
  if (cancelled) engine_.Cancel(*id);
  return absl::OkStatus();
}

void ActiveRequest::Cancel() {
  std::optional<RequestId> id;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    cancelled_ = true;
    id = id_;
  }
  if (id.has_value()) engine_.Cancel(*id);
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
