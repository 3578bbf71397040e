// Which ranks of an epoch share a node: what its members say, checked.
#ifndef COHORT_LAUNCHER_EPOCH_HOSTS_H_
#define COHORT_LAUNCHER_EPOCH_HOSTS_H_

#include <string>
#include <vector>

#include "cohort/v1/cluster.pb.h"
#include "parallel/cluster_communicator.h"

namespace cohort {

struct EpochHosts {
  ClusterLayout layout;
  std::vector<std::string> agents;  // by host

  bool spans_hosts() const { return agents.size() > 1; }
};

// INVALID_ARGUMENT unless members are in rank order and those of an agent are consecutive.
absl::StatusOr<EpochHosts> HostsOf(const v1::BeginEpoch& begin);

}  // namespace cohort

#endif  // COHORT_LAUNCHER_EPOCH_HOSTS_H_
