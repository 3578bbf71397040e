#include "launcher/generate_call.h"

#include <gtest/gtest.h>

namespace cohort {
namespace {

TEST(EngineDeadline, IsALittleBeforeTheClients) {
  const absl::Time now = absl::UnixEpoch();
  const absl::Duration step = absl::Milliseconds(5);
  EXPECT_EQ(EngineDeadline(absl::InfiniteFuture(), now, step), absl::InfiniteFuture());
  EXPECT_EQ(EngineDeadline(now + absl::Seconds(60), now, step),
            now + absl::Seconds(60) - absl::Milliseconds(255));
  EXPECT_EQ(EngineDeadline(now + absl::Milliseconds(100), now, step), now + absl::Milliseconds(85));
  EXPECT_EQ(EngineDeadline(now - absl::Seconds(1), now, step), now - absl::Seconds(1));
}

TEST(EngineDeadline, LeavesTimeForAStepInProgress) {
  const absl::Time now = absl::UnixEpoch();
  const absl::Duration step = absl::Seconds(1);
  EXPECT_EQ(EngineDeadline(now + absl::Seconds(60), now, step),
            now + absl::Seconds(59) - absl::Milliseconds(250));
  EXPECT_EQ(EngineDeadline(now + absl::Seconds(2), now, step), now + absl::Milliseconds(1300));
}

TEST(StatusOf, MapsReasonsToCodes) {
  const auto code = [](FinishReason reason, absl::Status status) {
    Finish finish;
    finish.reason = reason;
    finish.status = std::move(status);
    return StatusOf(finish).error_code();
  };
  EXPECT_EQ(code(FinishReason::kStop, absl::OkStatus()), grpc::StatusCode::OK);
  EXPECT_EQ(code(FinishReason::kLength, absl::OkStatus()), grpc::StatusCode::OK);
  EXPECT_EQ(code(FinishReason::kCancelled, absl::OkStatus()), grpc::StatusCode::CANCELLED);
  EXPECT_EQ(code(FinishReason::kDeadline, absl::OkStatus()), grpc::StatusCode::DEADLINE_EXCEEDED);
  EXPECT_EQ(code(FinishReason::kError, absl::UnavailableError("lost")),
            grpc::StatusCode::UNAVAILABLE);
  EXPECT_EQ(code(FinishReason::kError, absl::OkStatus()), grpc::StatusCode::INTERNAL);
}

}  // namespace
}  // namespace cohort
