#include "launcher/node.h"

#include <unistd.h>

#include <array>
#include <filesystem>
#include <memory>
#include <utility>

#include "launcher/client.h"
#include "launcher/log.h"
#include "launcher/network_address.h"
#include "launcher/node_agent.h"
#include "launcher/pocket_checkpoint.h"
#include "launcher/stop_signals.h"

namespace cohort {
namespace {

// How often a wait looks at the other things that may end it.
constexpr absl::Duration kTick = absl::Milliseconds(100);

std::string DefaultName() {
  std::array<char, 256> host{};
  gethostname(host.data(), host.size() - 1);
  return absl::StrCat(host.data(), "-", getpid());
}

// The ranks are started with the folder of this process, but the path is also shown elsewhere.
absl::StatusOr<std::string> CheckModel(const std::string& model) {
  ASSIGN_OR_RETURN(const std::string directory, ResolveModel(model));
  std::error_code error;
  const std::filesystem::path path = std::filesystem::canonical(directory, error);
  if (error || !std::filesystem::is_directory(path, error)) {
    return absl::NotFoundError(absl::StrCat("--model '", model, "' is no checkpoint directory"));
  }
  return path.string();
}

absl::StatusOr<NodeAgentOptions> MakeAgentOptions(const NodeOptions& options) {
  NodeAgentOptions agent;
  agent.name = options.name.empty() ? DefaultName() : options.name;
  agent.coordinator = options.join.ToString();
  agent.join_timeout = options.join_timeout;
  ASSIGN_OR_RETURN(agent.token, ReadJoinToken(options.join_token));
  if (!options.model.empty()) {
    ASSIGN_OR_RETURN(agent.model, CheckModel(options.model));
  }
  agent.address = options.address;
  if (agent.address.empty()) {
    ASSIGN_OR_RETURN(agent.address, AddressTowards(options.join));
  }
  ASSIGN_OR_RETURN(const AddressScope scope, ScopeOf(agent.address));
  if (scope == AddressScope::kWildcard) {
    return absl::InvalidArgumentError(absl::StrCat(
        "--address ", agent.address, " is every address: give the one that other nodes reach"));
  }
  return agent;
}

absl::Status ServeAsNode(const NodeOptions& options, StopSignals& signals) {
  ASSIGN_OR_RETURN(NodeAgentOptions agent_options, MakeAgentOptions(options));
  LogInfo("joining", {{"coordinator", agent_options.coordinator},
                      {"agent", agent_options.name},
                      {"address", agent_options.address}});
  const std::unique_ptr<NodeAgent> agent = NodeAgent::Start(std::move(agent_options));
  while (!agent->WaitUntilDone(kTick)) {
    if (signals.Wait(absl::ZeroDuration())) agent->Stop("it was told to stop");
  }
  const absl::Status failure = agent->failure();
  if (absl::IsUnimplemented(failure)) {
    return absl::InvalidArgumentError(
        absl::StrCat("--join ", options.join.ToString(),
                     ": no cluster is served there; give the address of --cluster-listen"));
  }
  return Annotate(failure, absl::StrCat("--join ", options.join.ToString()));
}

}  // namespace

int RunNode(const NodeOptions& options) {
  StopSignals signals;
  const absl::Status status = ServeAsNode(options, signals);
  if (!status.ok()) return PrintError(status.message());
  LogInfo("stopped");
  return 0;
}

}  // namespace cohort
