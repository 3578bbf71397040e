#include "launcher/cluster_setup.h"

#include <utility>

#include "launcher/network_address.h"

namespace cohort {
namespace {

// Heartbeats in the time that a silent agent has.
constexpr int kHeartbeatsPerTimeout = 5;

absl::Status CheckAgents(const ServeOptions& options) {
  if (options.agents > 1 && !options.cluster_listen.has_value()) {
    return absl::InvalidArgumentError(
        absl::StrCat("--agents ", options.agents,
                     " needs --cluster-listen HOST:PORT, where the other nodes join"));
  }
  if (options.agents == 1 && options.cluster_listen.has_value()) {
    return absl::InvalidArgumentError(
        absl::StrCat("--cluster-listen ", options.cluster_listen->ToString(),
                     " needs --agents of at least 2, this node included"));
  }
  if (options.agents > options.world()) {
    const std::string groups = options.dp > 1 ? absl::StrCat(" x --dp ", options.dp) : "";
    return absl::InvalidArgumentError(absl::StrCat("--agents ", options.agents,
                                                   " is more than --tp ", options.tp, groups,
                                                   ": every node needs a rank"));
  }
  return absl::OkStatus();
}

absl::Status CheckListener(const HostPort& listen, const std::string& token) {
  ASSIGN_OR_RETURN(const AddressScope scope, ScopeOf(listen.host));
  if (scope == AddressScope::kWildcard) {
    return absl::InvalidArgumentError(
        absl::StrCat("--cluster-listen ", listen.ToString(),
                     " is every address: give the one of this machine that other nodes reach"));
  }
  if (scope == AddressScope::kNetwork && token.empty()) {
    return absl::FailedPreconditionError(absl::StrCat(
        "--cluster-listen ", listen.ToString(),
        " can be reached from other machines: it needs --join-token-file (or --join-token, or the "
        "environment variable ",
        kJoinTokenVariable, ")"));
  }
  return CheckListenAddress("--cluster-listen", listen);
}

}  // namespace

absl::Status SetUpCluster(const ServeOptions& options, const ModelSetup& setup,
                          CoordinatorOptions& coordinator) {
  RETURN_IF_ERROR(CheckAgents(options));
  if (options.agents == 1) return absl::OkStatus();
  ASSIGN_OR_RETURN(std::string token, ReadJoinToken(options.join_token));
  RETURN_IF_ERROR(CheckListener(*options.cluster_listen, token));
  coordinator.agents = static_cast<int>(options.agents);
  coordinator.cluster_listen = ClusterListenOptions{*options.cluster_listen, std::move(token)};
  coordinator.agents_timeout = options.agents_timeout;
  coordinator.node_heartbeat = {.period = options.agent_timeout / kHeartbeatsPerTimeout,
                                .timeout = options.agent_timeout};
  ASSIGN_OR_RETURN(coordinator.checkpoint,
                   DigestCheckpoint(setup.model, !options.dummy_weights, [] { return false; }));
  return absl::OkStatus();
}

}  // namespace cohort
