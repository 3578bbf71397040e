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

// Likewise the ids of groups of GPUs.
std::string& UniqueIdOf(size_t group, v1::EpochListeners& message) {
  return group == 0 ? *message.mutable_unique_id() : *message.mutable_data_unique_id();
}
const std::string& UniqueIdOf(size_t group, const v1::EpochListeners& message) {
  return group == 0 ? message.unique_id() : message.data_unique_id();
}

// What `rank` has said; null: nothing.
const v1::EpochListeners* FindListeners(const v1::EpochPeers& peers, int rank) {
  const auto found = absl::c_find_if(peers.agents(), [rank](const auto& listeners) {
    return listeners.rank() == static_cast<uint32_t>(rank);
  });
  return found == peers.agents().end() ? nullptr : &*found;
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
  if (options_.gpu != nullptr) {
    member.is_first = member.group.ranks.front() == options_.rank && member.group.ranks.size() > 1;
    if (!member.is_first) return absl::OkStatus();
    ASSIGN_OR_RETURN(member.unique_id, CreatePluginUniqueId(*options_.gpu));
    return absl::OkStatus();
  }
  const EpochHosts& hosts = member.group.hosts;
  const int index = member.group.IndexOf(options_.rank);
  if (!hosts.spans_hosts() || !hosts.layout.IsLeader(index)) return absl::OkStatus();
  ASSIGN_OR_RETURN(member.mesh, ListenForHosts(hosts.layout, index, hosts.agents, options_.address,
                                               options_.connect_timeout));
  return absl::OkStatus();
}

bool RankGroups::listens() const {
  return absl::c_any_of(
      members_, [](const Member& member) { return member.mesh != nullptr || member.is_first; });
}

v1::EpochListeners RankGroups::listeners() const {
  v1::EpochListeners message;
  message.set_rank(static_cast<uint32_t>(options_.rank));
  for (size_t i = 0; i < members_.size(); ++i) {
    if (members_[i].is_first) UniqueIdOf(i, message) = members_[i].unique_id;
    if (members_[i].mesh == nullptr) continue;
    for (const std::string& listener : members_[i].mesh->listeners()) {
      *ListenersOf(i, message).Add() = listener;
    }
  }
  return message;
}

bool RankGroups::connects() const {
  if (options_.gpu == nullptr) return listens();
  return absl::c_any_of(members_,
                        [](const Member& member) { return member.group.ranks.size() > 1; });
}

absl::Status RankGroups::Connect(const v1::EpochPeers& peers) {
  for (size_t i = 0; i < members_.size(); ++i) {
    RETURN_IF_ERROR(options_.gpu == nullptr ? ConnectMesh(i, peers) : FindUniqueId(i, peers));
  }
  return absl::OkStatus();
}

absl::Status RankGroups::ConnectMesh(size_t index, const v1::EpochPeers& peers) {
  const Member& member = members_[index];
  GlooMesh* const mesh = member.mesh.get();
  if (mesh == nullptr) return absl::OkStatus();
  std::vector<std::string> addresses;
  for (int host = 0; host < mesh->hosts(); ++host) {
    const int leader = member.group.LeaderOf(host);
    const v1::EpochListeners* const said = FindListeners(peers, leader);
    if (said == nullptr || ListenersOf(index, *said).size() != mesh->hosts()) {
      return absl::InvalidArgumentError(
          absl::StrCat("rank ", leader, " does not listen for ", mesh->hosts(), " agents"));
    }
    addresses.push_back(ListenersOf(index, *said)[mesh->host()]);
  }
  return mesh->Connect(addresses);
}

absl::Status RankGroups::FindUniqueId(size_t index, const v1::EpochPeers& peers) {
  Member& member = members_[index];
  if (member.group.ranks.size() == 1 || member.is_first) return absl::OkStatus();
  const int first = member.group.ranks.front();
  const v1::EpochListeners* const said = FindListeners(peers, first);
  if (said == nullptr || UniqueIdOf(index, *said).empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat("rank ", first, " has made no id for its group"));
  }
  member.unique_id = UniqueIdOf(index, *said);
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<Communicator>> RankGroups::JoinGpus(const Member& member) {
  PluginCommunicatorOptions options;
  options.rank = member.group.IndexOf(options_.rank);
  options.size = static_cast<int>(member.group.ranks.size());
  options.unique_id = member.unique_id;
  options.join_timeout = options_.connect_timeout;
  options.timeout = options_.timeout;
  options.peer_reduction = options_.peer_reduction;
  options.measures_sizes = options_.reduction_sizes.are_measured;
  options.one_shot_bytes = options_.reduction_sizes.one_shot;
  options.two_shot_bytes = options_.reduction_sizes.two_shot;
  if (options_.nccl_log != nullptr) options_.nccl_log->Take();  // of other groups
  ASSIGN_OR_RETURN(std::unique_ptr<PluginCommunicator> communicator,
                   MakePluginCommunicator(*options_.gpu, options));
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    joining_ = communicator.get();
    if (is_aborted_) communicator->Abort();
  }
  const absl::Status joined = communicator->Join();
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    joining_ = nullptr;
  }
  RETURN_IF_ERROR(joined);
  RETURN_IF_ERROR(ReportTransport(member, communicator->links()));
  return communicator;
}

absl::Status RankGroups::ReportTransport(const Member& member, const PeerLinks& links) {
  const RankList& ranks = member.group.ranks;
  const std::vector<std::string> nccl =
      TransportsOf(options_.nccl_log == nullptr ? "" : options_.nccl_log->Take(),
                   member.group.IndexOf(options_.rank), static_cast<int>(ranks.size()));
  std::vector<GpuPeer> peers;
  for (size_t i = 0; i < ranks.size(); ++i) peers.push_back({ranks[i], links.of_rank[i], nccl[i]});
  const std::string words = DescribeTransport(peers);
  if (!words.empty()) {
    absl::StrAppend(&transport_, transport_.empty() ? "" : "; data group: ", words,
                    DescribeReductions(links));
  }
  return CheckTransport(options_.requirements, options_.rank, peers);
}

absl::StatusOr<std::unique_ptr<Communicator>> RankGroups::MakeCommunicator(const Member& member) {
  if (options_.gpu != nullptr) return JoinGpus(member);
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
  communicators.transport = transport_;
  return communicators;
}

void RankGroups::Abort() {
  for (const Member& member : members_) {
    if (member.mesh != nullptr) member.mesh->Abort();
  }
  const std::lock_guard<std::mutex> lock(mutex_);
  is_aborted_ = true;
  if (joining_ != nullptr) joining_->Abort();
}

}  // namespace cohort
