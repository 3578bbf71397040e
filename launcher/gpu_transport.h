// How a rank's GPU reaches those of its group: in words, and whether that is good enough.
#ifndef COHORT_LAUNCHER_GPU_TRANSPORT_H_
#define COHORT_LAUNCHER_GPU_TRANSPORT_H_

#include <string>
#include <vector>

#include "kernels/cuda_plugin.h"
#include "kernels/status.h"
#include "parallel/plugin_communicator.h"

namespace cohort {

struct GpuPeer {
  int rank = 0;  // of the world
  CohortCudaLink link = kCohortCudaLinkSelf;
  std::string nccl;  // what NCCL sends by, as TransportsOf; empty: it did not say
};

struct TransportRequirements {
  bool nvlink = false;  // between GPUs of a host
  bool rdma = false;    // between hosts
};

// "NVLink (P2P/CUMEM) to rank 1, 2; NET/IB/GDRDMA to rank 8". Empty without peers.
std::string DescribeTransport(const std::vector<GpuPeer>& peers);

// "; small reductions over peer memory (one shot to 262144, two to 1048576 bytes)"; empty where
// none do.
std::string DescribeReductions(const PeerLinks& links);

// FAILED_PRECONDITION names the flag, two ranks and what lies between them. A transport that is not
// known does not pass.
absl::Status CheckTransport(const TransportRequirements& requirements, int rank,
                            const std::vector<GpuPeer>& peers);

}  // namespace cohort

#endif  // COHORT_LAUNCHER_GPU_TRANSPORT_H_
