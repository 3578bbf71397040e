#include "launcher/gpu_placement.h"

#include <cstdlib>
#include <iterator>

#include "launcher/network_address.h"

namespace cohort {
namespace {

// Sockets between processes of one GPU, with as few blocks and buffers as NCCL can do with: blocks
// of one rank must not keep those of another from running.
constexpr const char* kSharedGpuVariables[] = {"NCCL_SOCKET_FAMILY=AF_INET",
                                               "NCCL_IB_DISABLE=1",
                                               "NCCL_NET=Socket",
                                               "NCCL_P2P_DISABLE=1",
                                               "NCCL_SHM_DISABLE=1",
                                               "NCCL_MNNVL_ENABLE=0",
                                               "NCCL_NVLS_ENABLE=0",
                                               "NCCL_CUMEM_ENABLE=0",
                                               "NCCL_MAX_CTAS=1",
                                               "NCCL_ALGO=Ring",
                                               "NCCL_PROTO=Simple",
                                               "CUDA_MODULE_LOADING=EAGER"};

bool IsLoopback(const std::string& address) {
  if (address.empty()) return true;
  const absl::StatusOr<AddressScope> scope = ScopeOf(address);
  return scope.ok() && *scope == AddressScope::kLoopback;
}

}  // namespace

absl::StatusOr<int> GpuOf(int local_index, int local_ranks, int gpus, bool allow_shared) {
  if (local_ranks <= gpus) return local_index;
  if (allow_shared && gpus > 0) return local_index % gpus;
  return absl::FailedPreconditionError(absl::StrCat(
      local_ranks, " ranks on this node, which has ", gpus, gpus == 1 ? " GPU" : " GPUs",
      ": start fewer (--tp x --dp), add nodes (--agents), use --device cpu, or, for tests, let "
      "ranks share a GPU with --allow-shared-gpu"));
}

std::vector<std::string> RankEnvironment(const v1::RankConfiguration& configuration, uint32_t rank,
                                         const std::string& address) {
  if (configuration.device() != "cuda") return {};
  std::vector<std::string> variables;
  // A listener without authentication, unless it is asked for.
  if (std::getenv("NCCL_RAS_ENABLE") == nullptr) variables.push_back("NCCL_RAS_ENABLE=0");
  if (!configuration.allow_shared_gpu()) return variables;
  variables.push_back(absl::StrCat("NCCL_HOSTID=cohort-rank-", rank));
  variables.insert(variables.end(), std::begin(kSharedGpuVariables), std::end(kSharedGpuVariables));
  if (IsLoopback(address)) variables.push_back("NCCL_SOCKET_IFNAME==lo");
  return variables;
}

}  // namespace cohort
