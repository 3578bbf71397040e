// Collectives over NCCL: the only file that knows it.
//
// NCCL moves bytes; the sums are ours (reduce.cu), because its own add in an order that depends on
// the topology and, in bf16, round at every hop. A communicator is non-blocking, so that no call
// into NCCL lasts and abort can always get in between: every call holds `mutex`, and what NCCL
// still does afterwards is waited for in short looks with the communicator's own deadline.
#include <nccl.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstring>
#include <memory>
#include <mutex>
#include <thread>

#include "kernels/cuda/device.h"
#include "kernels/cuda/entries.h"
#include "kernels/cuda/reduce.h"

// Used from the device's thread, but for poll and abort.
struct CohortCudaCommunicator {
  CohortCudaDevice* device = nullptr;
  int32_t world = 1;
  int32_t rank = 0;
  std::chrono::milliseconds timeout{0};
  char* staging = nullptr;              // kStagingBytes of device memory
  cudaEvent_t barrier_event = nullptr;  // the device's thread only
  std::atomic<bool> is_aborted{false};

  std::mutex mutex;           // guards what follows and every call into NCCL
  ncclComm_t comm = nullptr;  // null once aborted
  uint64_t enqueued = 0;      // collectives
  uint64_t recorded = 0;      // collectives before progress_event
  uint64_t finished = 0;      // collectives known to be done
  cudaEvent_t progress_event = nullptr;
};

namespace cohort::cuda {
namespace {

using Clock = std::chrono::steady_clock;

constexpr int64_t kStagingBytes = int64_t{64} << 20;
// Up to this size, all ranks' data together, one exchange costs less than two smaller ones.
constexpr int64_t kOneShotBytes = int64_t{256} << 10;
constexpr std::chrono::microseconds kLookInterval{20};

static_assert(sizeof(ncclUniqueId) == sizeof(CohortCudaUniqueId));

int64_t ElementBytes(int32_t dtype) { return dtype == kCohortCudaBF16 ? 2 : 4; }

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
  const CohortCudaError error = cohort::cuda::FromCuda(result, what);
  return MakeError(error.code, "rank %d of %d: %s", c->rank, c->world, error.message);
}

// Whether `event` has happened; an error of the device goes to `result`.
bool HasHappened(cudaEvent_t event, cudaError_t* result) {
  const cudaError_t state = cudaEventQuery(event);
  if (state == cudaErrorNotReady) {
    cudaGetLastError();  // or the next launch would report it
    *result = cudaSuccess;
    return false;
  }
  *result = state;
  return state == cudaSuccess;
}

// Looks until `look()` says true, sets an error or the communicator's deadline is over.
// look(CohortCudaError* error) -> whether it is done.
template <class Look>
CohortCudaError WaitUntil(CohortCudaCommunicator* c, const char* what, Look look) {
  const Clock::time_point deadline = Clock::now() + c->timeout;
  while (true) {
    if (c->is_aborted) {
      return Aborted(c, what);
    }
    CohortCudaError error = Ok();
    if (look(&error) || error.code != kCohortCudaOk) {
      return error;
    }
    if (Clock::now() >= deadline) {
      return MakeError(kCohortCudaDeadline, "rank %d of %d: %s: not all ranks came within %lld ms",
                       c->rank, c->world, what, static_cast<long long>(c->timeout.count()));
    }
    std::this_thread::sleep_for(kLookInterval);
  }
}

// Waits for what NCCL does in the background after a call.
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

// The first error of `call` or of the group around it.
template <class Call>
ncclResult_t InGroup(Call call) {
  if (const ncclResult_t started = ncclGroupStart(); started != ncclSuccess) {
    return started;
  }
  const ncclResult_t called = call();
  const ncclResult_t ended = ncclGroupEnd();
  return called != ncclSuccess && called != ncclInProgress ? called : ended;
}

// Device memory on its way.
struct Piece {
  void* data;
  int64_t bytes;
};

// Sends send_of(peer) to every other rank and receives into receive_of(peer) from it.
template <class SendOf, class ReceiveOf>
ncclResult_t Exchange(const CohortCudaCommunicator* c, ncclComm_t comm, SendOf send_of,
                      ReceiveOf receive_of) {
  return InGroup([&] {
    for (int32_t peer = 0; peer < c->world; ++peer) {
      const Piece sent = send_of(peer);
      const Piece received = receive_of(peer);
      ncclResult_t result = ncclSuccess;
      if (peer != c->rank && sent.bytes > 0) {
        result = ncclSend(sent.data, static_cast<size_t>(sent.bytes), ncclInt8, peer, comm,
                          c->device->stream);
      }
      if (peer != c->rank && received.bytes > 0 && result == ncclSuccess) {
        result = ncclRecv(received.data, static_cast<size_t>(received.bytes), ncclInt8, peer, comm,
                          c->device->stream);
      }
      if (result != ncclSuccess && result != ncclInProgress) {
        return result;
      }
    }
    return ncclSuccess;
  });
}

// Every rank gathers everything and sums. `count` elements at `data`.
CohortCudaError ReduceInOneShot(CohortCudaCommunicator* c, int32_t dtype, char* data,
                                int64_t count) {
  const int64_t bytes = count * ElementBytes(dtype);
  CohortCudaError error = Enqueue(c, "AllReduceSum", [&](ncclComm_t comm) {
    return ncclAllGather(data, c->staging, static_cast<size_t>(bytes), ncclInt8, comm,
                         c->device->stream);
  });
  if (error.code == kCohortCudaOk) {
    SumInRankOrder(c->device, dtype, c->staging, c->world, c->rank, count, data);
  }
  return error;
}

// Rank r sums the r-th of `world` equal parts of `part` elements, then all gather the sums.
CohortCudaError ReduceInTwoShots(CohortCudaCommunicator* c, int32_t dtype, char* data,
                                 int64_t part) {
  const int64_t bytes = part * ElementBytes(dtype);
  char* own = data + c->rank * bytes;
  CohortCudaError error = Enqueue(c, "AllReduceSum", [&](ncclComm_t comm) {
    return Exchange(
        c, comm,
        [&](int32_t peer) {
          return Piece{data + peer * bytes, bytes};
        },
        [&](int32_t peer) {
          return Piece{c->staging + peer * bytes, bytes};
        });
  });
  if (error.code != kCohortCudaOk) {
    return error;
  }
  SumInRankOrder(c->device, dtype, c->staging, c->world, c->rank, part, own);
  return Enqueue(c, "AllReduceSum", [&](ncclComm_t comm) {
    return ncclAllGather(own, data, static_cast<size_t>(bytes), ncclInt8, comm, c->device->stream);
  });
}

// Counts a collective whose work is on the stream.
CohortCudaError Count(CohortCudaCommunicator* c, const CohortCudaError& error) {
  if (error.code == kCohortCudaOk) {
    const std::lock_guard<std::mutex> lock(c->mutex);
    ++c->enqueued;
  }
  return error;
}

// Copies `rows` rows of `width` bytes between pitches.
cudaError_t CopyRows(const CohortCudaCommunicator* c, const void* source, int64_t source_pitch,
                     void* destination, int64_t destination_pitch, int64_t width, int64_t rows) {
  return width == 0 || rows == 0
             ? cudaSuccess
             : cudaMemcpy2DAsync(destination, static_cast<size_t>(destination_pitch), source,
                                 static_cast<size_t>(source_pitch), static_cast<size_t>(width),
                                 static_cast<size_t>(rows), cudaMemcpyDeviceToDevice,
                                 c->device->stream);
}

// One chunk of rows of an all-gather. In the staging area rank i's part lies dense, [rows, part],
// at parts[i].begin * rows elements.
struct Gather {
  CohortCudaCommunicator* c;
  const CohortCudaRange* parts;
  int64_t element;  // bytes
  int64_t rows;
  const char* shard;
  int64_t shard_pitch;  // bytes
  char* out;
  int64_t out_pitch;  // bytes

  int64_t Width(int32_t i) const { return (parts[i].end - parts[i].begin) * element; }
  Piece Staged(int32_t i) const {
    return {c->staging + parts[i].begin * element * rows, Width(i) * rows};
  }
  CohortCudaError Run() const;
};

CohortCudaError Gather::Run() const {
  const Piece own = Staged(c->rank);
  CohortCudaError error =
      FromCuda(c, CopyRows(c, shard, shard_pitch, own.data, Width(c->rank), Width(c->rank), rows),
               "AllGather");
  if (error.code != kCohortCudaOk) {
    return error;
  }
  error = Enqueue(c, "AllGather", [&](ncclComm_t comm) {
    return Exchange(
        c, comm, [&](int32_t) { return own; }, [&](int32_t peer) { return Staged(peer); });
  });
  for (int32_t i = 0; i < c->world && error.code == kCohortCudaOk; ++i) {
    error = FromCuda(c,
                     CopyRows(c, Staged(i).data, Width(i), out + parts[i].begin * element,
                              out_pitch, Width(i), rows),
                     "AllGather");
  }
  return error;
}

// Memory, events and the NCCL communicator itself; on an error the caller destroys what is there.
CohortCudaError Initialize(CohortCudaCommunicator* c, const CohortCudaUniqueId* id) {
  Activate(c->device);
  void* staging = nullptr;
  cudaError_t result = cudaMalloc(&staging, kStagingBytes);
  c->staging = static_cast<char*>(staging);
  for (cudaEvent_t* event : {&c->barrier_event, &c->progress_event}) {
    if (result == cudaSuccess) {
      result = cudaEventCreateWithFlags(event, cudaEventDisableTiming);
    }
  }
  if (result != cudaSuccess) {
    return FromCuda(c, result, "memory for a communicator");
  }
  ncclUniqueId nccl_id;
  std::memcpy(&nccl_id, id, sizeof(nccl_id));
  ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
  config.blocking = 0;
  const ncclResult_t started =
      ncclCommInitRankConfig(&c->comm, c->world, nccl_id, c->rank, &config);
  if (started != ncclSuccess && started != ncclInProgress) {
    return FromNccl(c, started, "joining the communicator", ncclGetLastError(nullptr));
  }
  return Settle(c, "joining the communicator");
}

// Brings `finished` up to date. The mutex is held.
cudaError_t Look(CohortCudaCommunicator* c) {
  if (c->recorded > c->finished) {
    cudaError_t result = cudaSuccess;
    if (!HasHappened(c->progress_event, &result)) {
      return result;
    }
    c->finished = c->recorded;
  }
  if (c->enqueued == c->recorded) {
    return cudaSuccess;
  }
  const cudaError_t result = cudaEventRecord(c->progress_event, c->device->stream);
  if (result == cudaSuccess) {
    c->recorded = c->enqueued;
  }
  return result;
}

}  // namespace

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

CohortCudaError CommunicatorCreate(CohortCudaDevice* device, int32_t world, int32_t rank,
                                   const CohortCudaUniqueId* id, int64_t timeout_ms,
                                   CohortCudaCommunicator** communicator) noexcept {
  auto created = std::make_unique<CohortCudaCommunicator>();
  created->device = device;
  created->world = world;
  created->rank = rank;
  created->timeout = std::chrono::milliseconds(timeout_ms);
  const CohortCudaError error = Initialize(created.get(), id);
  *communicator = created.release();
  if (error.code != kCohortCudaOk) {
    CommunicatorAbort(*communicator);
    CommunicatorDestroy(*communicator);
    *communicator = nullptr;
  }
  return error;
}

CohortCudaError AllReduceSum(CohortCudaCommunicator* c, const CohortCudaTensor* inout) noexcept {
  Activate(c->device);
  const int64_t element = ElementBytes(inout->dtype);
  int64_t left = 1;
  for (int32_t axis = 0; axis < inout->rank; ++axis) {
    left *= inout->dims[axis];
  }
  char* data = static_cast<char*>(inout->data);
  CohortCudaError error = Ok();
  while (left > 0 && c->world > 1 && error.code == kCohortCudaOk) {
    int64_t count = left;
    if (left * element <= kOneShotBytes / c->world || left < c->world) {
      error = ReduceInOneShot(c, inout->dtype, data, count);
    } else {
      const int64_t part = std::min(left, kStagingBytes / element) / c->world;
      count = part * c->world;
      error = ReduceInTwoShots(c, inout->dtype, data, part);
    }
    data += count * element;
    left -= count;
  }
  return Count(c, error);
}

CohortCudaError AllGather(CohortCudaCommunicator* c, const CohortCudaTensor* shard,
                          const CohortCudaRange* parts, const CohortCudaTensor* out) noexcept {
  Activate(c->device);
  const int64_t element = ElementBytes(out->dtype);
  const int64_t row_bytes = out->dims[1] * element;
  if (row_bytes > kStagingBytes) {
    return MakeError(kCohortCudaInvalidArgument,
                     "rank %d of %d: AllGather: a row of %lld bytes, at most %lld are supported",
                     c->rank, c->world, static_cast<long long>(row_bytes),
                     static_cast<long long>(kStagingBytes));
  }
  CohortCudaError error = Ok();
  const int64_t rows_at_once = row_bytes == 0 ? 0 : kStagingBytes / row_bytes;
  for (int64_t begin = 0; rows_at_once > 0 && begin < out->dims[0] && error.code == kCohortCudaOk;
       begin += rows_at_once) {
    const int64_t shard_pitch = shard->row_stride * element;
    const int64_t out_pitch = out->row_stride * element;
    error = Gather{c,
                   parts,
                   element,
                   std::min(rows_at_once, out->dims[0] - begin),
                   static_cast<const char*>(shard->data) + begin * shard_pitch,
                   shard_pitch,
                   static_cast<char*>(out->data) + begin * out_pitch,
                   out_pitch}
                .Run();
  }
  return Count(c, error);
}

CohortCudaError Barrier(CohortCudaCommunicator* c) noexcept {
  Activate(c->device);
  CohortCudaError error = Enqueue(c, "Barrier", [&](ncclComm_t comm) {
    return ncclAllGather(c->staging + c->rank, c->staging, 1, ncclInt8, comm, c->device->stream);
  });
  if (error.code == kCohortCudaOk) {
    error = FromCuda(c, cudaEventRecord(c->barrier_event, c->device->stream), "Barrier");
  }
  if (error.code == kCohortCudaOk) {
    error = WaitUntil(c, "Barrier", [&](CohortCudaError* failure) {
      cudaError_t result = cudaSuccess;
      const bool is_done = HasHappened(c->barrier_event, &result);
      *failure = FromCuda(c, result, "Barrier");
      return is_done;
    });
  }
  return Count(c, error);
}

CohortCudaError CommunicatorPoll(CohortCudaCommunicator* c, uint64_t* finished) noexcept {
  const std::lock_guard<std::mutex> lock(c->mutex);
  *finished = c->finished;
  if (c->comm == nullptr) {
    return Aborted(c, "poll");
  }
  ncclResult_t state = ncclSuccess;
  const ncclResult_t asked = ncclCommGetAsyncError(c->comm, &state);
  CohortCudaError error =
      FromNccl(c, asked != ncclSuccess ? asked : state, "a collective", ncclGetLastError(c->comm));
  if (error.code == kCohortCudaOk) {
    cudaError_t result = cudaSetDevice(c->device->index);
    result = result == cudaSuccess ? Look(c) : result;
    error = FromCuda(c, result, "a collective");
  }
  *finished = c->finished;
  return error;
}

void CommunicatorAbort(CohortCudaCommunicator* c) noexcept {
  c->is_aborted = true;  // ends waits before the lock is free
  const std::lock_guard<std::mutex> lock(c->mutex);
  if (c->comm != nullptr) {
    ncclCommAbort(c->comm);  // frees it, whatever it returns
    c->comm = nullptr;
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
  cudaFree(c->staging);
  for (cudaEvent_t event : {c->barrier_event, c->progress_event}) {
    if (event != nullptr) {
      cudaEventDestroy(event);
    }
  }
}

}  // namespace cohort::cuda
