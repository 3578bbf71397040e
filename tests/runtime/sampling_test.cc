#include "runtime/sampling.h"

#include <gtest/gtest.h>

#include <limits>

#include "runtime/request.h"

namespace cohort {
namespace {

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kInfinity = std::numeric_limits<float>::infinity();

void ExpectRefused(const SamplingParameters& parameters, StringView field) {
  const absl::Status status = Validate(parameters);
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << field;
  EXPECT_NE(status.message().find(field), StringView::npos) << status;
}

TEST(Sampling, DefaultsAreGreedyAndValid) { EXPECT_TRUE(Validate({}).ok()); }

TEST(Sampling, BordersAreValid) {
  EXPECT_TRUE(Validate({.temperature = 0, .top_p = 1, .top_k = 0, .seed = 0}).ok());
  EXPECT_TRUE(Validate({.temperature = std::numeric_limits<float>::max(),
                        .top_p = std::numeric_limits<float>::denorm_min(),
                        .top_k = std::numeric_limits<int32_t>::max(),
                        .seed = ~uint64_t{0}})
                  .ok());
}

TEST(Sampling, ValuesOutOfRangeAreRefusedByTheirField) {
  ExpectRefused({.temperature = -0.1f}, "sampling.temperature is -0.1");
  ExpectRefused({.temperature = kNan}, "sampling.temperature");
  ExpectRefused({.temperature = kInfinity}, "sampling.temperature");
  ExpectRefused({.top_p = 0}, "sampling.top_p is 0");
  ExpectRefused({.top_p = 1.5f}, "sampling.top_p is 1.5");
  ExpectRefused({.top_p = kNan}, "sampling.top_p");
  ExpectRefused({.top_k = -1}, "sampling.top_k is -1");
}

TEST(FinishReason, NamesAreThoseOfTheCommandLine) {
  EXPECT_EQ(NameOf(FinishReason::kStop), "stop");
  EXPECT_EQ(NameOf(FinishReason::kLength), "length");
  EXPECT_EQ(NameOf(FinishReason::kCancelled), "cancelled");
  EXPECT_EQ(NameOf(FinishReason::kDeadline), "deadline");
  EXPECT_EQ(NameOf(FinishReason::kError), "error");
}

}  // namespace
}  // namespace cohort
