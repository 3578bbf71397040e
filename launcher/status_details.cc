#include "launcher/status_details.h"

#include "absl/strings/match.h"
#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"

namespace cohort {
namespace {

constexpr char kTypePrefix[] = "type.googleapis.com/";
constexpr char kDomain[] = "cohort";

std::string TypeUrl(const google::protobuf::Message& message) {
  return kTypePrefix + message.GetDescriptor()->full_name();
}

absl::Status WithDetail(absl::Status status, const google::protobuf::Message& detail) {
  status.SetPayload(TypeUrl(detail), absl::Cord(detail.SerializeAsString()));
  return status;
}

google::rpc::ErrorInfo MakeErrorInfo(StringView reason) {
  google::rpc::ErrorInfo info;
  info.set_reason(std::string(reason));
  info.set_domain(kDomain);
  return info;
}

}  // namespace

void FieldViolations::Add(StringView field, StringView description) {
  violations_.emplace_back(field, description);
}

void FieldViolations::Append(const FieldViolations& others) {
  violations_.insert(violations_.end(), others.violations_.begin(), others.violations_.end());
}

absl::Status FieldViolations::ToStatus() const {
  if (violations_.empty()) return absl::OkStatus();
  google::rpc::BadRequest bad_request;
  std::string message;
  for (const auto& [field, description] : violations_) {
    google::rpc::BadRequest::FieldViolation* violation = bad_request.add_field_violations();
    violation->set_field(field);
    violation->set_description(description);
    absl::StrAppend(&message, message.empty() ? "" : "; ", field, ": ", description);
  }
  return WithReason(WithDetail(absl::InvalidArgumentError(message), bad_request),
                    "INVALID_REQUEST");
}

absl::Status WithReason(absl::Status status, StringView reason) {
  return WithDetail(std::move(status), MakeErrorInfo(reason));
}

absl::Status WithRetry(absl::Status status, absl::Duration delay) {
  google::rpc::RetryInfo retry;
  retry.mutable_retry_delay()->set_seconds(absl::ToInt64Seconds(delay));
  retry.mutable_retry_delay()->set_nanos(static_cast<int32_t>(
      absl::ToInt64Nanoseconds(delay - absl::Seconds(absl::ToInt64Seconds(delay)))));
  return WithDetail(std::move(status), retry);
}

absl::Status WithQuota(absl::Status status, StringView subject) {
  google::rpc::QuotaFailure quota;
  google::rpc::QuotaFailure::Violation* violation = quota.add_violations();
  violation->set_subject(std::string(subject));
  violation->set_description(std::string(status.message()));
  return WithDetail(std::move(status), quota);
}

absl::Status WithPrecondition(absl::Status status, StringView type, StringView subject) {
  google::rpc::PreconditionFailure failure;
  google::rpc::PreconditionFailure::Violation* violation = failure.add_violations();
  violation->set_type(std::string(type));
  violation->set_subject(std::string(subject));
  violation->set_description(std::string(status.message()));
  return WithDetail(std::move(status), failure);
}

absl::Status DescribeRefusal(const absl::Status& status) {
  if (absl::IsResourceExhausted(status)) {
    return WithReason(WithRetry(WithQuota(status, "waiting requests"), absl::Seconds(1)),
                      "QUEUE_FULL");
  }
  if (absl::IsUnavailable(status)) {
    return WithReason(WithRetry(status, absl::Seconds(1)), "NOT_SERVING");
  }
  return status;
}

grpc::Status ToGrpcStatus(const absl::Status& status) {
  if (status.ok()) return grpc::Status::OK;
  google::rpc::Status details;
  details.set_code(static_cast<int32_t>(status.code()));
  details.set_message(std::string(status.message()));
  bool has_info = false;
  const std::string info_url = TypeUrl(google::rpc::ErrorInfo::default_instance());
  status.ForEachPayload([&](StringView url, const absl::Cord& payload) {
    google::protobuf::Any* detail = details.add_details();
    detail->set_type_url(std::string(url));
    detail->set_value(std::string(payload));
    has_info = has_info || url == info_url;
  });
  if (!has_info) {
    details.add_details()->PackFrom(MakeErrorInfo(absl::StatusCodeToString(status.code())));
  }
  return grpc::Status(static_cast<grpc::StatusCode>(status.code()), std::string(status.message()),
                      details.SerializeAsString());
}

std::string ReasonOf(const grpc::Status& status) {
  google::rpc::Status details;
  if (!details.ParseFromString(status.error_details())) return "";
  for (const google::protobuf::Any& detail : details.details()) {
    google::rpc::ErrorInfo info;
    if (detail.UnpackTo(&info)) return info.reason();
  }
  return "";
}

std::string DescribeStatus(const grpc::Status& status) {
  std::string text =
      absl::StrCat(absl::StatusCodeToString(static_cast<absl::StatusCode>(status.error_code())),
                   ": ", status.error_message());
  google::rpc::Status details;
  if (!details.ParseFromString(status.error_details())) return text;
  for (const google::protobuf::Any& detail : details.details()) {
    google::rpc::BadRequest bad_request;
    if (!detail.UnpackTo(&bad_request)) continue;
    for (const auto& violation : bad_request.field_violations()) {
      const std::string line = absl::StrCat(violation.field(), ": ", violation.description());
      if (!absl::StrContains(text, line)) absl::StrAppend(&text, "\n  ", line);
    }
  }
  return text;
}

}  // namespace cohort
