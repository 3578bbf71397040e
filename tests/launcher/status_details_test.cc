#include "launcher/status_details.h"

#include <gtest/gtest.h>

#include "google/rpc/error_details.pb.h"
#include "tests/launcher/service_fixture.h"

namespace cohort {
namespace {

TEST(StatusDetails, ViolationsAreInMessageAndTrailer) {
  FieldViolations violations;
  EXPECT_TRUE(violations.ToStatus().ok());
  violations.Add("sampling.top_p", "2 is outside (0, 1]");
  violations.Add("input", "missing");
  const grpc::Status status = ToGrpcStatus(violations.ToStatus());
  EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(status.error_message(), "sampling.top_p: 2 is outside (0, 1]; input: missing");
  const auto bad_request = DetailOf<google::rpc::BadRequest>(status);
  ASSERT_EQ(bad_request.field_violations_size(), 2);
  EXPECT_EQ(bad_request.field_violations(1).field(), "input");
  EXPECT_EQ(DetailOf<google::rpc::ErrorInfo>(status).domain(), "cohort");
}

TEST(StatusDetails, EveryErrorHasAnErrorInfo) {
  const grpc::Status status = ToGrpcStatus(absl::DataLossError("gone"));
  EXPECT_EQ(status.error_code(), grpc::StatusCode::DATA_LOSS);
  const auto info = DetailOf<google::rpc::ErrorInfo>(status);
  EXPECT_EQ(info.reason(), "DATA_LOSS");
  EXPECT_EQ(info.domain(), "cohort");
  EXPECT_TRUE(ToGrpcStatus(absl::OkStatus()).ok());
}

TEST(StatusDetails, RefusalsSayWhenToRetry) {
  const grpc::Status full = ToGrpcStatus(DescribeRefusal(absl::ResourceExhaustedError("full")));
  EXPECT_EQ(DetailOf<google::rpc::RetryInfo>(full).retry_delay().seconds(), 1);
  EXPECT_EQ(DetailOf<google::rpc::QuotaFailure>(full).violations_size(), 1);
  EXPECT_EQ(DetailOf<google::rpc::ErrorInfo>(full).reason(), "QUEUE_FULL");
  const grpc::Status gone = ToGrpcStatus(DescribeRefusal(absl::UnavailableError("draining")));
  EXPECT_EQ(DetailOf<google::rpc::RetryInfo>(gone).retry_delay().seconds(), 1);
}

TEST(StatusDetails, DescribeAddsOnlyViolationsThatTheMessageLacks) {
  FieldViolations violations;
  violations.Add("input", "missing");
  const grpc::Status ours = ToGrpcStatus(violations.ToStatus());
  EXPECT_EQ(DescribeStatus(ours), "INVALID_ARGUMENT: input: missing");
  const grpc::Status other(ours.error_code(), "bad request", ours.error_details());
  EXPECT_EQ(DescribeStatus(other), "INVALID_ARGUMENT: bad request\n  input: missing");
  EXPECT_EQ(DescribeStatus(grpc::Status(grpc::StatusCode::UNAVAILABLE, "no")), "UNAVAILABLE: no");
}

}  // namespace
}  // namespace cohort
