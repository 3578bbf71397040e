#include "parallel/cluster_communicator.h"

#include <utility>

#include "kernels/check.h"
#include "parallel/region_bridge.h"
#include "parallel/region_communicator.h"
#include "parallel/shared_region.h"

namespace cohort {
namespace {

absl::Status CheckLayout(const ClusterLayout& layout) {
  if (layout.hosts.size() < 2) {
    return absl::InvalidArgumentError(
        absl::StrCat("a group over ", layout.hosts.size(), " hosts needs no cluster communicator"));
  }
  int64_t end = 0;
  for (const Range host : layout.hosts) {
    if (host.begin != end || host.size() < 1) {
      return absl::InvalidArgumentError(
          absl::StrCat("a host has group ranks ", host.begin, " to ", host.end - 1,
                       "; it needs at least one, and the next is rank ", end));
    }
    end = host.end;
  }
  return absl::OkStatus();
}

std::string Name(Range ranks, const std::string& agent) {
  const std::string numbers =
      ranks.size() == 1 ? absl::StrCat("group rank ", ranks.begin)
                        : absl::StrCat("group ranks ", ranks.begin, " to ", ranks.end - 1);
  return absl::StrCat(numbers, " on agent '", agent, "'");
}

}  // namespace

int ClusterLayout::HostOf(int rank) const {
  for (size_t host = 0; host < hosts.size(); ++host) {
    if (rank >= hosts[host].begin && rank < hosts[host].end) return static_cast<int>(host);
  }
  CHECK(false) << "rank " << rank << " is on no host";
  return -1;
}

absl::StatusOr<std::unique_ptr<GlooMesh>> ListenForHosts(const ClusterLayout& layout, int rank,
                                                         absl::Span<const std::string> agents,
                                                         const std::string& address,
                                                         absl::Duration connect_timeout) {
  RETURN_IF_ERROR(CheckLayout(layout));
  CHECK_EQ(agents.size(), layout.hosts.size());
  GlooMeshOptions options;
  options.host = layout.HostOf(rank);
  options.address = address;
  options.connect_timeout = connect_timeout;
  for (size_t host = 0; host < layout.hosts.size(); ++host) {
    options.names.push_back(Name(layout.hosts[host], agents[host]));
    options.message_bytes.push_back(RegionBridge::MessageBytes(layout.hosts[host].size()));
  }
  return GlooMesh::Listen(std::move(options));
}

absl::StatusOr<std::unique_ptr<Communicator>> MakeClusterCommunicator(
    int region_fd, const HostCommunicatorOptions& options, const ClusterLayout& layout,
    std::shared_ptr<GlooMesh> mesh) {
  RETURN_IF_ERROR(CheckLayout(layout));
  RETURN_IF_ERROR(CheckHostCommunicatorOptions(options));
  if (options.size != layout.size()) {
    return absl::InvalidArgumentError(absl::StrCat("a communicator of size ", options.size,
                                                   " for hosts with ", layout.size(), " ranks"));
  }
  CHECK_EQ(mesh != nullptr, layout.IsLeader(options.rank)) << "rank " << options.rank;
  ASSIGN_OR_RETURN(std::shared_ptr<const SharedRegion> region,
                   SharedRegion::Map(region_fd, options.size));
  std::unique_ptr<RegionBridge> bridge;
  if (mesh != nullptr) {
    bridge = std::make_unique<RegionBridge>(region, layout.hosts, std::move(mesh));
  }
  const RegionCommunicatorOptions region_options = {.rank = options.rank,
                                                    .size = options.size,
                                                    .timeout = options.timeout,
                                                    .spin_iterations = options.spin_iterations};
  return std::make_unique<RegionCommunicator>(std::move(region), region_options, std::move(bridge));
}

}  // namespace cohort
