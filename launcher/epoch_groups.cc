#include "launcher/epoch_groups.h"

#include <utility>

#include "absl/algorithm/container.h"
#include "kernels/check.h"

namespace cohort {
namespace {

absl::StatusOr<Parallelism> ParallelismOf(const v1::BeginEpoch& begin) {
  const int world = begin.members_size();
  Parallelism parallelism;
  parallelism.tp = begin.tensor_parallel() > 0 ? static_cast<int>(begin.tensor_parallel()) : world;
  if (world == 0 || world % parallelism.tp != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("an epoch of ", world, " members has groups of ", parallelism.tp, " ranks"));
  }
  parallelism.dp = world / parallelism.tp;
  return parallelism;
}

EpochGroup MakeGroup(const EpochHosts& all, RankList ranks) {
  EpochGroup group{.ranks = std::move(ranks), .hosts = {}};
  int last_host = -1;
  for (size_t i = 0; i < group.ranks.size(); ++i) {
    const int host = all.layout.HostOf(group.ranks[i]);
    const int64_t index = static_cast<int64_t>(i);
    if (host != std::exchange(last_host, host)) {
      group.hosts.agents.push_back(all.agents[static_cast<size_t>(host)]);
      group.hosts.layout.hosts.push_back({index, index});
    }
    group.hosts.layout.hosts.back().end = index + 1;
  }
  return group;
}

}  // namespace

int EpochGroup::IndexOf(int rank) const {
  const auto found = absl::c_find(ranks, rank);
  CHECK(found != ranks.end()) << "rank " << rank << " is not in its group";
  return static_cast<int>(found - ranks.begin());
}

int EpochGroup::LeaderOf(int host) const {
  const Range part = hosts.layout.hosts[static_cast<size_t>(host)];
  return ranks[static_cast<size_t>(part.begin)];
}

absl::StatusOr<std::vector<EpochGroup>> GroupsOf(const v1::BeginEpoch& begin, int rank) {
  ASSIGN_OR_RETURN(const EpochHosts hosts, HostsOf(begin));
  ASSIGN_OR_RETURN(const Parallelism parallelism, ParallelismOf(begin));
  if (rank < 0 || rank >= parallelism.world()) {
    return absl::InvalidArgumentError(
        absl::StrCat("rank ", rank, " is not of an epoch of ", parallelism.world(), " members"));
  }
  std::vector<EpochGroup> groups = {MakeGroup(hosts, TensorGroup(parallelism, rank))};
  if (begin.exchanges_experts()) groups.push_back(MakeGroup(hosts, DataGroup(parallelism, rank)));
  return groups;
}

absl::StatusOr<std::vector<uint32_t>> ListeningRanks(const v1::BeginEpoch& begin) {
  std::vector<uint32_t> listening;
  for (int rank = 0; rank < begin.members_size(); ++rank) {
    ASSIGN_OR_RETURN(const std::vector<EpochGroup> groups, GroupsOf(begin, rank));
    const bool listens = absl::c_any_of(groups, [&](const EpochGroup& group) {
      if (begin.on_gpus()) return group.ranks.size() > 1 && group.ranks.front() == rank;
      return group.spans_hosts() && group.hosts.layout.IsLeader(group.IndexOf(rank));
    });
    if (listens) listening.push_back(static_cast<uint32_t>(rank));
  }
  return listening;
}

}  // namespace cohort
