// Ranks of several hosts as one group. The ranks of a host meet in its shared memory as ever; one
// of them, the leader, trades what they post for what the ranks of the other hosts posted, over a
// GlooMesh. Sums are added in the order of group ranks, so the bits are those of one host.
#ifndef COHORT_PARALLEL_CLUSTER_COMMUNICATOR_H_
#define COHORT_PARALLEL_CLUSTER_COMMUNICATOR_H_

#include <memory>
#include <string>
#include <vector>

#include "parallel/communicator.h"
#include "parallel/gloo_mesh.h"
#include "parallel/host_communicator.h"

namespace cohort {

// The leader of a host is the first of its ranks.
struct ClusterLayout {
  std::vector<Range> hosts;  // the group ranks of each host, in order
  int HostOf(int rank) const;
  bool IsLeader(int rank) const { return hosts[static_cast<size_t>(HostOf(rank))].begin == rank; }
  int size() const { return static_cast<int>(hosts.back().end); }
};

// Opens the leader's end. `agents`: what each host is called in messages. INVALID_ARGUMENT for a
// layout without two hosts or with an empty one; the errors of GlooMesh::Listen.
absl::StatusOr<std::unique_ptr<GlooMesh>> ListenForHosts(const ClusterLayout& layout, int rank,
                                                         absl::Span<const std::string> agents,
                                                         const std::string& address,
                                                         absl::Duration connect_timeout);

// `region_fd` as for MakeHostCommunicator, of a region for all ranks of the group; `options` too
// count all ranks. `mesh`: connected, for a leader; null for the others.
absl::StatusOr<std::unique_ptr<Communicator>> MakeClusterCommunicator(
    int region_fd, const HostCommunicatorOptions& options, const ClusterLayout& layout,
    std::shared_ptr<GlooMesh> mesh);

}  // namespace cohort

#endif  // COHORT_PARALLEL_CLUSTER_COMMUNICATOR_H_
