#include "launcher/generate_call.h"

#include <gtest/gtest.h>

namespace cohort {
namespace {

TEST(EngineDeadline, IsALittleBeforeTheClients) {
  const absl::Time now = absl::UnixEpoch();
  EXPECT_EQ(EngineDeadline(absl::InfiniteFuture(), now), absl::InfiniteFuture());
  EXPECT_EQ(EngineDeadline(now + absl::Seconds(60), now),
            now + absl::Seconds(60) - absl::Milliseconds(250));
  EXPECT_EQ(EngineDeadline(now + absl::Milliseconds(100), now), now + absl::Milliseconds(90));
  EXPECT_EQ(EngineDeadline(now - absl::Seconds(1), now), now - absl::Seconds(1));
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

TEST(FillTiming, LeavesWhatNeverHappenedAtZero) {
  RequestTiming timing;
  timing.submitted = absl::UnixEpoch();
  timing.scheduled = timing.first_token = absl::InfinitePast();
  timing.finished = absl::UnixEpoch() + absl::Milliseconds(5);
  v1::Timing message;
  FillTiming(timing, message);
  EXPECT_EQ(message.queued_milliseconds(), 0);
  EXPECT_EQ(message.time_to_first_token_milliseconds(), 0);
  EXPECT_EQ(message.total_milliseconds(), 5);
}

}  // namespace
}  // namespace cohort
