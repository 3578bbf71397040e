// google.rpc details on absl::Status, as payloads under their type URL, and the edge to gRPC: code
// to code, the details in the trailer `grpc-status-details-bin`.
#ifndef COHORT_LAUNCHER_STATUS_DETAILS_H_
#define COHORT_LAUNCHER_STATUS_DETAILS_H_

#include <grpcpp/support/status.h>

#include <string>
#include <utility>
#include <vector>

#include "absl/time/time.h"
#include "kernels/status.h"

namespace cohort {

// Collects what is wrong with a request, so that one answer names every field.
class FieldViolations {
 public:
  void Add(StringView field, StringView description);
  void Append(const FieldViolations& others);
  bool empty() const { return violations_.empty(); }
  // INVALID_ARGUMENT with a BadRequest; OK when there are none.
  absl::Status ToStatus() const;

 private:
  std::vector<std::pair<std::string, std::string>> violations_;  // field, description
};

// Each returns `status` with one more detail. `reason` is UPPER_SNAKE_CASE.
absl::Status WithReason(absl::Status status, StringView reason);
absl::Status WithRetry(absl::Status status, absl::Duration delay);
absl::Status WithQuota(absl::Status status, StringView subject);
absl::Status WithPrecondition(absl::Status status, StringView type, StringView subject);

// What Engine::Submit refused, with the details that belong to its code: QuotaFailure and RetryInfo
// for a full queue, RetryInfo for a group that does not serve.
absl::Status DescribeRefusal(const absl::Status& status);

// Code to code. An ErrorInfo (domain "cohort") is added where none is, its reason the code's name.
grpc::Status ToGrpcStatus(const absl::Status& status);

// The reason of the ErrorInfo in a status; empty where there is none.
std::string ReasonOf(const grpc::Status& status);

// For people: "INVALID_ARGUMENT: message" and an indented line per field violation that the message
// does not already hold.
std::string DescribeStatus(const grpc::Status& status);

}  // namespace cohort

#endif  // COHORT_LAUNCHER_STATUS_DETAILS_H_
