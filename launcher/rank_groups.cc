#include "launcher/rank_groups.h"

#include <utility>

#include "absl/algorithm/container.h"
#include "absl/memory/memory.h"
#include "parallel/host_communicator.h"

namespace cohort {
namespace {

// Where the groups' listeners are in a message.
auto& ListenersOf(size_t group, v1::EpochListeners& message) {
  return group == 0 ? *message.mutable_listeners() : *message.mutable_data_listeners();
}
const auto& ListenersOf(size_t group, const v1::EpochListeners& message) {
  return group == 0 ? message.listeners() : message.data_listeners();
}

}  // namespace

absl::StatusOr<std::unique_ptr<RankGroups>> RankGroups::Prepare(
    const RankGroupsOptions& options, const v1::BeginEpoch& begin,
    std::vector<FileDescriptor> regions) {
  ASSIGN_OR_RETURN(std::vector<EpochGroup> groups, GroupsOf(begin, options.rank));
  if (regions.size() != groups.size()) {
    return absl::InvalidArgumentError(absl::StrCat("an epoch came with the memory of ",
                                                   regions.size(), " groups, of ", groups.size()));
  }
  auto prepared = absl::WrapUnique(new RankGroups(options));
  for (size_t i = 0; i < groups.size(); ++i) {
    Member& member = prepared->members_.emplace_back();
    member.group = std::move(groups[i]);
    member.region = std::move(regions[i]);
    RETURN_IF_ERROR(prepared->Listen(member));
  }
  return prepared;
}

absl::Status RankGroups::Listen(Member& member) const {
  const EpochHosts& hosts = member.group.hosts;
  const int index = member.group.IndexOf(options_.rank);
  if (!hosts.spans_hosts() || !hosts.layout.IsLeader(index)) return absl::OkStatus();
  ASSIGN_OR_RETURN(member.mesh, ListenForHosts(hosts.layout, index, hosts.agents, options_.address,
                                               options_.connect_timeout));
  return absl::OkStatus();
}

bool RankGroups::connects() const {
  return absl::c_any_of(members_, [](const Member& member) { return member.mesh != nullptr; });
}

v1::EpochListeners RankGroups::listeners() const {
  v1::EpochListeners message;
  message.set_rank(static_cast<uint32_t>(options_.rank));
  for (size_t i = 0; i < members_.size(); ++i) {
    if (members_[i].mesh == nullptr) continue;
    for (const std::string& listener : members_[i].mesh->listeners()) {
      *ListenersOf(i, message).Add() = listener;
    }
  }
  return message;
}

absl::Status RankGroups::Connect(const v1::EpochPeers& peers) {
  for (size_t i = 0; i < members_.size(); ++i) {
    GlooMesh* const mesh = members_[i].mesh.get();
    if (mesh == nullptr) continue;
    std::vector<std::string> addresses;
    for (int host = 0; host < mesh->hosts(); ++host) {
      const uint32_t leader = static_cast<uint32_t>(members_[i].group.LeaderOf(host));
      const auto peer = absl::c_find_if(
          peers.agents(), [leader](const auto& listeners) { return listeners.rank() == leader; });
      if (peer == peers.agents().end() || ListenersOf(i, *peer).size() != mesh->hosts()) {
        return absl::InvalidArgumentError(
            absl::StrCat("rank ", leader, " does not listen for ", mesh->hosts(), " agents"));
      }
      addresses.push_back(ListenersOf(i, *peer)[mesh->host()]);
    }
    RETURN_IF_ERROR(mesh->Connect(addresses));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<Communicator>> RankGroups::MakeCommunicator(
    const Member& member) const {
  const EpochGroup& group = member.group;
  const HostCommunicatorOptions options = {.rank = group.IndexOf(options_.rank),
                                           .size = static_cast<int>(group.ranks.size()),
                                           .timeout = options_.timeout,
                                           .spin_iterations = options_.spin_iterations};
  if (!group.spans_hosts()) return MakeHostCommunicator(member.region.get(), options);
  return MakeClusterCommunicator(member.region.get(), options, group.hosts.layout, member.mesh);
}

absl::StatusOr<RankCommunicators> RankGroups::MakeCommunicators() {
  RankCommunicators communicators;
  ASSIGN_OR_RETURN(communicators.tensor, MakeCommunicator(members_.front()));
  if (members_.size() > 1) {
    ASSIGN_OR_RETURN(communicators.data, MakeCommunicator(members_.back()));
  }
  return communicators;
}

void RankGroups::Abort() {
  for (const Member& member : members_) {
    if (member.mesh != nullptr) member.mesh->Abort();
  }
}

}  // namespace cohort
