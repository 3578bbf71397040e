#include "launcher/epoch_hosts.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace cohort {
namespace {

using testing::ElementsAre;

v1::BeginEpoch EpochOf(const std::vector<std::string>& agents) {
  v1::BeginEpoch begin;
  for (size_t rank = 0; rank < agents.size(); ++rank) {
    v1::BeginEpoch::Member& member = *begin.add_members();
    member.set_rank(static_cast<uint32_t>(rank));
    member.set_agent(agents[rank]);
  }
  return begin;
}

TEST(EpochHosts, RanksOfAnAgentShareAHost) {
  const EpochHosts hosts = HostsOf(EpochOf({"a", "a", "b", "c", "c"})).value();
  EXPECT_TRUE(hosts.spans_hosts());
  EXPECT_THAT(hosts.agents, ElementsAre("a", "b", "c"));
  EXPECT_THAT(hosts.layout.hosts, ElementsAre(Range{0, 2}, Range{2, 3}, Range{3, 5}));
  EXPECT_FALSE(HostsOf(EpochOf({"a", "a"}))->spans_hosts());
}

TEST(EpochHosts, RefusesMembersThatNoCoordinatorSends) {
  EXPECT_TRUE(absl::IsInvalidArgument(HostsOf({}).status()));
  EXPECT_TRUE(absl::IsInvalidArgument(HostsOf(EpochOf({"a", "b", "a"})).status()));
  v1::BeginEpoch begin = EpochOf({"a", "a"});
  begin.mutable_members(0)->set_rank(1);
  EXPECT_TRUE(absl::IsInvalidArgument(HostsOf(begin).status()));
}

}  // namespace
}  // namespace cohort
