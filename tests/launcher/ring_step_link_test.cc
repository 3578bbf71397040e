#include "launcher/ring_step_link.h"

#include <gtest/gtest.h>

#include "absl/time/clock.h"

namespace cohort {
namespace {

absl::Time InAMinute() { return absl::Now() + absl::Minutes(1); }

TEST(StepOutcome, CarriesTheResultOrTheStatus) {
  EXPECT_EQ(DecodeOutcome(EncodeOutcome(std::string("result"))).value(), "result");
  const absl::Status failed = absl::ResourceExhaustedError("no memory for 12 bytes");
  EXPECT_EQ(DecodeOutcome(EncodeOutcome(failed)).status(), failed);
}

TEST(StepOutcome, RefusesWhatIsNone) {
  EXPECT_TRUE(absl::IsDataLoss(DecodeOutcome("abc").status()));
  EXPECT_EQ(DecodeOutcome(std::string("\xff\xff\xff\xff words", 10)).status(),
            absl::UnknownError(" words"));
}

// Both ends: the coordinator's link and what the rank has.
struct Link {
  std::unique_ptr<RingStepLink> link;
  std::unique_ptr<ByteRingReader> plans;
  std::unique_ptr<ByteRingWriter> outcomes;
};

Link MakeLink() {
  const FileDescriptor plans = CreateByteRing(4096).value();
  const FileDescriptor outcomes = CreateByteRing(4096).value();
  return {RingStepLink::Map("rank 0", plans.get(), outcomes.get(), 0).value(),
          ByteRingReader::Map(plans.get(), 0).value(),
          ByteRingWriter::Map(outcomes.get(), 0).value()};
}

TEST(RingStepLink, CarriesPlansOutAndOutcomesBack) {
  const Link link = MakeLink();
  ASSERT_TRUE(link.link->Send("plan", InAMinute()).ok());
  EXPECT_EQ(link.plans->Receive(InAMinute()).value(), "plan");
  ASSERT_TRUE(link.outcomes->Send(EncodeOutcome(std::string("result")), InAMinute()).ok());
  EXPECT_EQ(link.link->Receive(InAMinute()).value(), "result");
}

TEST(RingStepLink, ARanksFailureComesBackAsItsStatus) {
  const Link link = MakeLink();
  const absl::Status failed = absl::InternalError("step 3 failed");
  ASSERT_TRUE(link.outcomes->Send(EncodeOutcome(failed), InAMinute()).ok());
  EXPECT_EQ(link.link->Receive(InAMinute()).status(), failed);
}

TEST(RingStepLink, AbortEndsBothDirections) {
  const Link link = MakeLink();
  link.link->Abort(absl::AbortedError("rank 1 was lost"));
  EXPECT_EQ(link.link->Send("plan", InAMinute()), absl::UnavailableError("rank 1 was lost"));
  EXPECT_EQ(link.link->Receive(InAMinute()).status(), absl::UnavailableError("rank 1 was lost"));
}

}  // namespace
}  // namespace cohort
