#include "launcher/network_address.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace cohort {
namespace {

using testing::HasSubstr;

TEST(CheckListenAddress, RefusesWhatIsNotOfThisMachineAndNamesTheFlag) {
  EXPECT_TRUE(CheckListenAddress("--listen", {"127.0.0.1", 0}).ok());
  const absl::Status status = CheckListenAddress("--cluster-listen", {"256.0.0.1", 9000});
  EXPECT_THAT(std::string(status.message()), HasSubstr("--cluster-listen 256.0.0.1:9000"));
  EXPECT_FALSE(CheckListenAddress("--listen", {"192.0.2.1", 9000}).ok());
}

TEST(ScopeOf, TellsWhoCanReachAnAddress) {
  EXPECT_EQ(ScopeOf("127.0.0.1").value(), AddressScope::kLoopback);
  EXPECT_EQ(ScopeOf("127.9.9.9").value(), AddressScope::kLoopback);
  EXPECT_EQ(ScopeOf("::1").value(), AddressScope::kLoopback);
  EXPECT_EQ(ScopeOf("localhost").value(), AddressScope::kLoopback);
  EXPECT_EQ(ScopeOf("0.0.0.0").value(), AddressScope::kWildcard);
  EXPECT_EQ(ScopeOf("::").value(), AddressScope::kWildcard);
  EXPECT_EQ(ScopeOf("192.0.2.1").value(), AddressScope::kNetwork);
  EXPECT_EQ(ScopeOf("2001:db8::1").value(), AddressScope::kNetwork);
  EXPECT_TRUE(absl::IsInvalidArgument(ScopeOf("256.0.0.1").status()));
}

TEST(AddressTowards, IsTheOneThatPacketsLeaveFrom) {
  EXPECT_EQ(AddressTowards({"127.0.0.1", 9100}).value(), "127.0.0.1");
  EXPECT_EQ(AddressTowards({"localhost", 9100}).value().rfind("192.", 0), std::string::npos);
  const absl::Status status = AddressTowards({"256.0.0.1", 9100}).status();
  EXPECT_TRUE(absl::IsUnavailable(status));
  EXPECT_THAT(std::string(status.message()), HasSubstr("256.0.0.1:9100"));
}

}  // namespace
}  // namespace cohort
