// A rank's end of an NCCL communicator: joining, watching, leaving.
#include "kernels/cuda/communicator.h"

#include <cstring>
#include <future>
#include <memory>
#include <thread>
#include <utility>

#include "kernels/cuda/entries.h"
#include "kernels/cuda/peer_sizes.h"

namespace cohort::cuda {
namespace {

static_assert(sizeof(ncclUniqueId) == sizeof(CohortCudaUniqueId));

// What the plugin was compiled with must be what is loaded, but for the patch.
CohortCudaError CheckVersion(const CohortCudaCommunicator* c) {
  const int loaded = NcclVersion();
  if (loaded / 100 == NCCL_VERSION_CODE / 100) {
    return Ok();
  }
  return MakeError(
      kCohortCudaFailed,
      "rank %d of %d: NCCL %d.%d is loaded, this program was built with %d.%d: install "
      "that one",
      c->rank, c->world, loaded / 10000, loaded / 100 % 100, NCCL_MAJOR, NCCL_MINOR);
}

CohortCudaError AllocateMemory(CohortCudaCommunicator* c) {
  cudaError_t result = cudaEventCreateWithFlags(&c->barrier_event, cudaEventDisableTiming);
  void* memory = nullptr;
  if (result == cudaSuccess) {
    result = cudaMalloc(&memory, kStagingBytes + kScratchBytes);
  }
  if (result == cudaSuccess) {
    c->staging = static_cast<char*>(memory);
    c->scratch = c->staging + kStagingBytes;
    result = cudaMemsetAsync(c->scratch, 0, kScratchBytes, c->device->stream);
  }
  return FromCuda(c, result, "memory for a communicator");
}

// On an error the caller destroys what is there.
CohortCudaError Initialize(CohortCudaCommunicator* c, const CohortCudaUniqueId& id) {
  Activate(c->device);
  if (c->world == 1) {
    return Ok();
  }
  CohortCudaError error = CheckVersion(c);
  if (error.code == kCohortCudaOk) {
    error = AllocateMemory(c);
  }
  if (error.code != kCohortCudaOk) {
    return error;
  }
  ncclUniqueId nccl_id;
  std::memcpy(&nccl_id, &id, sizeof(nccl_id));
  ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
  config.blocking = 0;
  const std::lock_guard<std::mutex> lock(c->mutex);
  const ncclResult_t started =
      ncclCommInitRankConfig(&c->comm, c->world, nccl_id, c->rank, &config);
  return FromNccl(c, started, "joining the communicator", ncclGetLastError(nullptr));
}

// Makes NCCL's kernels leave. ncclCommAbort sets their word and then lasts until no recording that
// they are part of is left (commDestroySync in NCCL 2.28, for non-blocking communicators too), and
// those belong to the device's thread: so it has a thread of its own, which outlives `c` if need
// be. The mutex is held.
void AbortNccl(CohortCudaCommunicator* c) {
  std::packaged_task<void()> abort([comm = std::exchange(c->comm, nullptr)] {
    ncclCommAbort(comm);  // frees it, whatever it returns
  });
  c->abort_is_over = abort.get_future();
  std::thread(std::move(abort)).detach();
}

}  // namespace

CohortCudaError Aborted(const CohortCudaCommunicator* c, const char* what) {
  return MakeError(kCohortCudaAborted, "rank %d of %d: %s: the communicator was aborted", c->rank,
                   c->world, what);
}

CohortCudaError FromNccl(const CohortCudaCommunicator* c, ncclResult_t result, const char* what,
                         const char* detail) {
  if (result == ncclSuccess || result == ncclInProgress) {
    return Ok();
  }
  return MakeError(result == ncclRemoteError ? kCohortCudaPeerLost : kCohortCudaFailed,
                   "rank %d of %d: %s: %s (%s)", c->rank, c->world, what,
                   ncclGetErrorString(result), detail);
}

CohortCudaError FromCuda(const CohortCudaCommunicator* c, cudaError_t result, const char* what) {
  if (result == cudaSuccess) {
    return Ok();
  }
  const CohortCudaError error = FromCuda(result, what);
  return MakeError(error.code, "rank %d of %d: %s", c->rank, c->world, error.message);
}

CohortCudaError Settle(CohortCudaCommunicator* c, const char* what) {
  return WaitUntil(c, what, [&](CohortCudaError* error) {
    const std::lock_guard<std::mutex> lock(c->mutex);
    if (c->comm == nullptr) {
      *error = Aborted(c, what);
      return true;
    }
    ncclResult_t state = ncclSuccess;
    const ncclResult_t asked = ncclCommGetAsyncError(c->comm, &state);
    *error = FromNccl(c, asked != ncclSuccess ? asked : state, what, ncclGetLastError(c->comm));
    return state != ncclInProgress;
  });
}

int32_t NcclVersion() noexcept {
  int version = 0;
  return ncclGetVersion(&version) == ncclSuccess ? version : 0;
}

CohortCudaError UniqueIdCreate(CohortCudaUniqueId* id) noexcept {
  ncclUniqueId created;
  if (const ncclResult_t result = ncclGetUniqueId(&created); result != ncclSuccess) {
    return MakeError(kCohortCudaFailed, "ncclGetUniqueId: %s (%s)", ncclGetErrorString(result),
                     ncclGetLastError(nullptr));
  }
  std::memcpy(id, &created, sizeof(created));
  return Ok();
}

CohortCudaError CommunicatorCreate(CohortCudaDevice* device, const CohortCudaGroup* group,
                                   CohortCudaCommunicator** communicator) noexcept {
  auto created = std::make_unique<CohortCudaCommunicator>();
  created->device = device;
  created->world = group->world;
  created->rank = group->rank;
  created->timeout = std::chrono::milliseconds(group->join_timeout_ms);
  const CohortCudaError error = Initialize(created.get(), group->id);
  created->peer_mode = group->peer_mode;
  created->peer_sizes = {group->one_shot_bytes, group->two_shot_bytes};
  created->measures_sizes = group->measures_sizes != 0;
  created->timeout_after_join = std::chrono::milliseconds(group->timeout_ms);
  *communicator = created.release();
  if (error.code != kCohortCudaOk) {
    CommunicatorDestroy(*communicator);
    *communicator = nullptr;
  }
  return error;
}

CohortCudaError CommunicatorJoin(CohortCudaCommunicator* c) noexcept {
  Activate(c->device);
  CohortCudaError error = Ok();
  if (c->world > 1) {
    error = Settle(c, "joining the communicator");
  }
  if (c->world > 1 && error.code == kCohortCudaOk) {
    error = MeetPeers(c);
  }
  if (c->world > 1 && error.code == kCohortCudaOk) {
    error = WarmUp(c);
  }
  if (c->measures_sizes && c->peers.can_reduce && error.code == kCohortCudaOk) {
    error = MeasureSizes(c);
  }
  c->timeout = c->timeout_after_join;
  return error;
}

CohortCudaError CommunicatorPoll(CohortCudaCommunicator* c, uint64_t* submitted,
                                 uint64_t* finished) noexcept {
  cudaError_t result = cudaSetDevice(c->device->index);
  if (result == cudaSuccess) {
    result = c->device->progress.Look(submitted, finished);
  }
  if (c->is_aborted) {
    return Aborted(c, "poll");
  }
  if (const CohortCudaError error = PeerFailure(c); error.code != kCohortCudaOk) {
    return error;
  }
  if (result != cudaSuccess) {
    return FromCuda(c, result, "a collective");
  }
  const std::lock_guard<std::mutex> lock(c->mutex);
  if (c->comm == nullptr) {
    return Ok();
  }
  ncclResult_t state = ncclSuccess;
  const ncclResult_t asked = ncclCommGetAsyncError(c->comm, &state);
  return FromNccl(c, asked != ncclSuccess ? asked : state, "a collective",
                  ncclGetLastError(c->comm));
}

int32_t CommunicatorLinks(CohortCudaCommunicator* c, int32_t* links) noexcept {
  for (int32_t rank = 0; rank < c->world; ++rank) {
    links[rank] = c->world == 1 ? static_cast<int32_t>(kCohortCudaLinkSelf)
                                : c->peers.links[static_cast<std::size_t>(rank)];
  }
  return c->peers.can_reduce && c->peers.sizes.most() > 0 ? 1 : 0;
}

void CommunicatorSizes(CohortCudaCommunicator* c, int64_t* one_shot_bytes,
                       int64_t* two_shot_bytes) noexcept {
  const PeerSizes sizes = c->peers.can_reduce ? c->peers.sizes : PeerSizes();
  *one_shot_bytes = sizes.one_shot;
  *two_shot_bytes = sizes.two_shot > sizes.one_shot ? sizes.two_shot : 0;
}

void CommunicatorAbort(CohortCudaCommunicator* c) noexcept {
  c->is_aborted = true;  // ends waits before the lock is free
  const std::lock_guard<std::mutex> lock(c->mutex);
  AbortPeers(c);
  if (c->comm != nullptr) {
    AbortNccl(c);
  }
}

void CommunicatorDestroy(CohortCudaCommunicator* c) noexcept {
  const std::unique_ptr<CohortCudaCommunicator> owner(c);
  Activate(c->device);
  const bool is_idle =
      c->comm != nullptr && cudaStreamQuery(c->device->stream) == cudaSuccess &&
      Enqueue(c, "leaving the communicator", ncclCommFinalize).code == kCohortCudaOk;
  cudaGetLastError();  // of the query
  if (is_idle) {
    ncclCommDestroy(c->comm);
  } else {
    CommunicatorAbort(c);
  }
  if (c->abort_is_over.valid()) {
    c->abort_is_over.wait_for(c->timeout);
  }
  cudaFree(c->staging);  // waits for what still runs
  LeavePeers(c);
  if (c->barrier_event != nullptr) {
    cudaEventDestroy(c->barrier_event);
  }
}

}  // namespace cohort::cuda
