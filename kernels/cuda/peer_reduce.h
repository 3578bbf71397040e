// The all-reduce of one node's ranks over each other's memory, for messages so small that NCCL's
// latency is most of the time: peer_reduce.cu has the kernels, peers.cc finds the memory.
#ifndef COHORT_KERNELS_CUDA_PEER_REDUCE_H_
#define COHORT_KERNELS_CUDA_PEER_REDUCE_H_

#include <cstdint>

#include "kernels/cuda_plugin.h"

namespace cohort::cuda {

inline constexpr int kMaxPeers = 8;
// Of one kernel, on every rank the same: they must all run at the same time.
inline constexpr int kMaxPeerBlocks = 64;
inline constexpr int64_t kMaxPeerRowBytes = int64_t{64} << 10;
inline constexpr int64_t kMaxPeerBytes = int64_t{1} << 20;  // of a message
// A message comes in full from every peer (one shot), or in parts and as the sums of them (two).
inline constexpr int64_t kPeerSlotBytes = 2 * kMaxPeerBytes + kMaxPeers * kMaxPeerRowBytes;
// A rank that begins a reduction knows that its peers have ended the one before the last: it may
// write where that one was read.
inline constexpr uint32_t kPeerSlots = 3;

// The head of a rank's buffer; kPeerSlots slots follow.
struct alignas(256) PeerControl {
  uint32_t epoch;  // reductions done; the rest counts in it, so that replays go on from it
  uint32_t finished_blocks;  // of the present one
  uint32_t failed;           // a wait was given up: all that comes later returns at once
  // flag[phase][peer][block]: the epoch whose data of that block of the peer is here.
  alignas(128) uint32_t flag[2][kMaxPeers][kMaxPeerBlocks];
};
inline constexpr int64_t kPeerBufferBytes = sizeof(PeerControl) + kPeerSlots * kPeerSlotBytes;

// Host memory that kernels read and write: how the two speak while the stream waits.
struct PeerReport {
  uint32_t abort;   // the host's word: leave
  uint32_t failed;  // 1: the rest says which wait was given up
  uint32_t peer;
  uint32_t phase;
  uint32_t epoch;
};

// What a kernel has to know of the group.
struct PeerGroup {
  unsigned char* buffer[kMaxPeers];  // by rank
  PeerReport* report;
  int32_t world;
  int32_t rank;
  uint64_t bound_nanoseconds;  // of a wait
};

// Whether a message of this shape can go this way: rows that cut into 16 bytes and fit.
bool FitsPeers(const CohortCudaTensor& message);

// x = the sum over ranks in rank order, rounded once; as Communicator::AllReduceSum. `is_two_shot`:
// every row is summed by one rank, which then sends the sum; else by every rank.
void PeerAllReduce(CohortCudaDevice* device, const PeerGroup& group, bool is_two_shot,
                   int32_t blocks, const CohortCudaTensor& x);

// The same, then AddRmsNorm of the sums; x is left as it was.
void PeerAllReduceAddRmsNorm(CohortCudaDevice* device, const PeerGroup& group, bool is_two_shot,
                             int32_t blocks, const CohortCudaTensor& x,
                             const CohortCudaTensor& residual, const CohortCudaTensor& gamma,
                             float eps, const CohortCudaTensor& out);

}  // namespace cohort::cuda

#endif  // COHORT_KERNELS_CUDA_PEER_REDUCE_H_
