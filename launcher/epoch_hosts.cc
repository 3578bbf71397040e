#include "launcher/epoch_hosts.h"

#include "absl/algorithm/container.h"

namespace cohort {

absl::StatusOr<EpochHosts> HostsOf(const v1::BeginEpoch& begin) {
  EpochHosts hosts;
  for (int i = 0; i < begin.members_size(); ++i) {
    const v1::BeginEpoch::Member& member = begin.members(i);
    if (member.rank() != static_cast<uint32_t>(i)) {
      return absl::InvalidArgumentError("an epoch's members are not in rank order");
    }
    if (hosts.agents.empty() || hosts.agents.back() != member.agent()) {
      if (absl::c_linear_search(hosts.agents, member.agent())) {
        return absl::InvalidArgumentError(
            absl::StrCat("the ranks of agent '", member.agent(), "' are not consecutive"));
      }
      hosts.agents.push_back(member.agent());
      hosts.layout.hosts.push_back({i, i});
    }
    hosts.layout.hosts.back().end = i + 1;
  }
  if (hosts.agents.empty()) return absl::InvalidArgumentError("an epoch without members");
  return hosts;
}

}  // namespace cohort
