// The state behind CohortCudaCommunicator, and how its files call NCCL: communicator.cc joins,
// watches and leaves a group, collectives.cc has the collectives.
//
// A communicator is non-blocking, so that no call into NCCL lasts and abort can always get in
// between: every call holds `mutex`, and what NCCL still does afterwards is waited for in short
// looks with the communicator's own deadline. Abort itself does last, and has a thread of its own.
#ifndef COHORT_KERNELS_CUDA_COMMUNICATOR_H_
#define COHORT_KERNELS_CUDA_COMMUNICATOR_H_

#include <nccl.h>

#include <atomic>
#include <chrono>
#include <cstddef>
#include <future>
#include <mutex>
#include <thread>
#include <type_traits>
#include <vector>

#include "kernels/cuda/device.h"
#include "kernels/cuda/peers.h"

// Used from the device's thread, but for poll and abort.
struct CohortCudaCommunicator {
  CohortCudaDevice* device = nullptr;
  int32_t world = 1;
  int32_t rank = 0;
  std::chrono::milliseconds timeout{0};  // of waits; that of the join until it is over
  std::chrono::milliseconds timeout_after_join{0};
  // Device memory, none in a world of one.
  char* staging = nullptr;  // cohort::cuda::kStagingBytes, of the collectives
  char* scratch = nullptr;  // cohort::cuda::kScratchBytes, of the join
  cudaEvent_t barrier_event = nullptr;
  int32_t peer_mode = kCohortCudaPeersAuto;
  cohort::cuda::PeerSizes peer_sizes;  // asked for; 0: not
  bool measures_sizes = false;
  cohort::cuda::Peers peers;
  std::atomic<bool> is_aborted{false};

  std::mutex mutex;                 // guards what follows and every call into NCCL but the abort
  ncclComm_t comm = nullptr;        // null in a world of one and once aborted
  std::future<void> abort_is_over;  // of NCCL's part of an abort, where there was one
};

namespace cohort::cuda {

inline constexpr int64_t kStagingBytes = int64_t{64} << 20;
inline constexpr int64_t kScratchBytes = int64_t{1} << 20;
inline constexpr std::chrono::microseconds kLookInterval{20};

// Errors that name the rank.
CohortCudaError Aborted(const CohortCudaCommunicator* c, const char* what);
CohortCudaError FromNccl(const CohortCudaCommunicator* c, ncclResult_t result, const char* what,
                         const char* detail);
CohortCudaError FromCuda(const CohortCudaCommunicator* c, cudaError_t result, const char* what);

// Looks until `look()` says true, sets an error or the communicator's deadline is over.
// look(CohortCudaError* error) -> whether it is done.
template <class Look>
CohortCudaError WaitUntil(CohortCudaCommunicator* c, const char* what, Look look) {
  const auto deadline = std::chrono::steady_clock::now() + c->timeout;
  while (true) {
    if (c->is_aborted) {
      return Aborted(c, what);
    }
    CohortCudaError error = Ok();
    if (look(&error) || error.code != kCohortCudaOk) {
      return error;
    }
    if (std::chrono::steady_clock::now() >= deadline) {
      return MakeError(kCohortCudaDeadline, "rank %d of %d: %s: not all ranks came within %lld ms",
                       c->rank, c->world, what, static_cast<long long>(c->timeout.count()));
    }
    std::this_thread::sleep_for(kLookInterval);
  }
}

// Waits for what NCCL does in the background after a call. (communicator.cc)
CohortCudaError Settle(CohortCudaCommunicator* c, const char* what);

// call(ncclComm_t) -> ncclResult_t, then whatever NCCL still does for it.
template <class Call>
CohortCudaError Enqueue(CohortCudaCommunicator* c, const char* what, Call call) {
  ncclResult_t result = ncclSuccess;
  {
    const std::lock_guard<std::mutex> lock(c->mutex);
    if (c->comm == nullptr) {
      return Aborted(c, what);
    }
    result = call(c->comm);
    if (result != ncclSuccess && result != ncclInProgress) {
      return FromNccl(c, result, what, ncclGetLastError(c->comm));
    }
  }
  return result == ncclInProgress ? Settle(c, what) : Ok();
}

// all[rank] = `own` of that rank, by way of the host. Waits for all. In a group of several.
CohortCudaError GatherBytes(CohortCudaCommunicator* c, const void* own, std::size_t bytes,
                            void* all);  // peers.cc
template <class T>
CohortCudaError GatherFromAll(CohortCudaCommunicator* c, const T& own, std::vector<T>* all) {
  static_assert(std::is_trivially_copyable_v<T>);
  all->resize(static_cast<std::size_t>(c->world));
  return GatherBytes(c, &own, sizeof(T), all->data());
}

// AllReduceSum whatever the peers' memory could do. (collectives.cc)
CohortCudaError ReduceOverNccl(CohortCudaCommunicator* c, const CohortCudaTensor& inout);

// Runs every collective once, so that NCCL has connected what they use and loaded its kernels
// before a step is recorded. (collectives.cc)
CohortCudaError WarmUp(CohortCudaCommunicator* c);

}  // namespace cohort::cuda

#endif  // COHORT_KERNELS_CUDA_COMMUNICATOR_H_
