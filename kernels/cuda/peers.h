// What the ranks of a communicator know of each other's GPUs: how they are linked, and the buffers
// through which they reduce (peer_reduce.h).
#ifndef COHORT_KERNELS_CUDA_PEERS_H_
#define COHORT_KERNELS_CUDA_PEERS_H_

#include <cstdint>
#include <vector>

#include "kernels/cuda/peer_reduce.h"

namespace cohort::cuda {

// When a message of at most so many bytes goes over peer memory, in one or two shots; larger ones
// go over NCCL.
struct PeerSizes {
  int64_t one_shot = 0;
  int64_t two_shot = 0;
  int64_t most() const { return one_shot > two_shot ? one_shot : two_shot; }
};

struct Peers {
  std::vector<int32_t> links;  // CohortCudaLink, by rank; empty before the ranks have met
  bool can_reduce = false;     // on every rank or on none
  PeerSizes sizes;
  int32_t blocks = 0;  // of a reduction, at most
  PeerGroup group{};
  std::vector<void*> opened;  // mappings of other processes' buffers
  void* buffer = nullptr;     // this rank's, of the device's store
};

// Makes the ranks known to each other. Collective.
CohortCudaError MeetPeers(CohortCudaCommunicator* c);

// Any thread: waits in kernels end.
void AbortPeers(CohortCudaCommunicator* c);

// The wait that a kernel gave up, if one did. Any thread.
CohortCudaError PeerFailure(const CohortCudaCommunicator* c);

// Nothing of the communicator runs any more.
void LeavePeers(CohortCudaCommunicator* c);

}  // namespace cohort::cuda

#endif  // COHORT_KERNELS_CUDA_PEERS_H_
