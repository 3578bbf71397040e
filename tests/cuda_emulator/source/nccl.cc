// NCCL between the processes and threads of one host. Calls enqueue on the stream, where they wait
// for their peers; abort wakes them.
#include <nccl.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <random>

#include "nccl_channels.h"
#include "runtime.h"

namespace cuda_emulator {
namespace {

struct Communicator {
  Communicator(const std::string& name, int world_size, int own_rank)
      : region(name, world_size), world(world_size), rank(own_rank) {}
  SharedRegion region;
  int world;
  int rank;
  int device = 0;
  bool is_blocking = true;
  std::atomic<bool> is_aborted{false};
  std::atomic<bool> is_finalizing{false};
  std::atomic<bool> has_joined{false};
  std::atomic<ncclResult_t> state{ncclInProgress};
};

thread_local std::string last_error;

ncclResult_t Refuse(ncclResult_t result, const std::string& why) {
  last_error = why;
  return result;
}

size_t BytesOf(ncclDataType_t type) {
  switch (type) {
    case ncclInt8:
    case ncclUint8:
      return 1;
    case ncclFloat16:
    case ncclBfloat16:
      return 2;
    case ncclInt64:
    case ncclUint64:
    case ncclFloat64:
      return 8;
    default:
      return 4;
  }
}

// What NCCL takes for a host: all processes of this one, but for those that NCCL_HOSTID sets apart.
int HostNumber() {
  const char* id = std::getenv("NCCL_HOSTID");
  return id == nullptr ? 0 : 1 + static_cast<int>(std::hash<std::string>()(id) % 1000000);
}

// As NCCL writes it where NCCL_DEBUG=INFO has it log to a file.
void LogTransports(const Communicator& c) {
  const char* level = std::getenv("NCCL_DEBUG");
  const char* path = std::getenv("NCCL_DEBUG_FILE");
  if (level == nullptr || path == nullptr || std::string(level) != "INFO") {
    return;
  }
  static std::FILE* const file = std::fopen(path, "w");
  if (file == nullptr) {
    return;
  }
  for (int peer = 0; peer < c.world; ++peer) {
    if (peer != c.rank) {
      const bool is_near = c.region.HostOf(peer) == c.region.HostOf(c.rank);
      std::fprintf(file, "emulated NCCL INFO Channel 00/0 : %d[%d] -> %d[%d] %s\n", c.rank,
                   c.device, peer, c.region.DeviceOf(peer),
                   is_near ? "via P2P/CUMEM" : "[send] via NET/Socket/0");
    }
  }
  std::fflush(file);
}

// Looks whether the others have come.
void Look(Communicator* c) {
  if (c->state != ncclInProgress || !c->region.HaveAllJoined()) {
    return;
  }
  c->region.Unlink();
  c->state = c->region.HasTwiceTheSameDevice() ? ncclInvalidUsage : ncclSuccess;
  LogTransports(*c);
}

// What one call contributes to its group.
struct Pending {
  std::shared_ptr<Communicator> communicator;
  cudaStream_t stream;
  std::vector<Transfer> transfers;
};

thread_local int group_depth = 0;
thread_local std::vector<Pending> group;

ncclResult_t EnqueuePending(const Pending& pending) {
  const auto run = [c = pending.communicator, transfers = pending.transfers] {
    const bool is_done = c->region.Run(c->rank, transfers, [&] { return c->is_aborted.load(); });
    if (!is_done && !c->is_aborted) {
      c->state = ncclInvalidUsage;
    }
    return cudaSuccess;
  };
  return Enqueue(pending.stream, {cudaGraphNodeTypeKernel, false, run}) == cudaSuccess
             ? ncclSuccess
             : Refuse(ncclUnhandledCudaError, "the stream takes no more work");
}

// The calls of a group on one communicator and stream become one piece of work.
ncclResult_t EndGroup() {
  ncclResult_t result = ncclSuccess;
  bool is_blocking = true;
  std::vector<Pending> merged;
  for (Pending& pending : group) {
    is_blocking = is_blocking && pending.communicator->is_blocking;
    if (!merged.empty() && merged.back().communicator == pending.communicator &&
        merged.back().stream == pending.stream) {
      merged.back().transfers.insert(merged.back().transfers.end(), pending.transfers.begin(),
                                     pending.transfers.end());
    } else {
      merged.push_back(std::move(pending));
    }
  }
  group.clear();
  for (const Pending& pending : merged) {
    const ncclResult_t enqueued = EnqueuePending(pending);
    result = result == ncclSuccess ? enqueued : result;
  }
  return result == ncclSuccess && !is_blocking ? ncclInProgress : result;
}

bool IsOnDevice(const void* data, size_t bytes) {
  return bytes == 0 || (RangeOf(data).kind != MemoryKind::kUnknown && IsWholeRange(data, bytes));
}

ncclResult_t Add(const std::shared_ptr<Communicator>& c, cudaStream_t stream,
                 std::vector<Transfer> transfers) {
  for (const Transfer& transfer : transfers) {
    if (transfer.peer < 0 || transfer.peer >= c->world) {
      return Refuse(ncclInvalidArgument, "there is no such rank");
    }
    if (!IsOnDevice(transfer.data, transfer.bytes)) {
      return Refuse(ncclInvalidArgument, "a buffer does not lie in device memory");
    }
  }
  if (c->state != ncclSuccess) {
    return Refuse(ncclInvalidUsage, "the communicator is not ready");
  }
  const bool is_alone = group_depth == 0;
  group.push_back({c, stream, std::move(transfers)});
  return is_alone ? EndGroup() : ncclSuccess;
}

// Whether a stream or a graph holds work of the communicator, of which the caller has one pointer.
// Like NCCL, finalizing and what frees it last until that is gone; abort does too, in every mode.
bool HasWork(const std::shared_ptr<Communicator>& c) { return c.use_count() > 1; }

void AwaitWork(const std::shared_ptr<Communicator>& c) {
  while (HasWork(c)) {
    usleep(100);
  }
}

}  // namespace
}  // namespace cuda_emulator

struct ncclComm {
  std::shared_ptr<cuda_emulator::Communicator> inside;
};

extern "C" {

ncclResult_t ncclGetVersion(int* version) {
  *version = NCCL_VERSION_CODE;
  return ncclSuccess;
}

ncclResult_t ncclGetUniqueId(ncclUniqueId* id) {
  std::random_device random;
  *id = {};
  std::snprintf(id->internal, sizeof(id->internal), "/cohort-emulated-nccl-%d-%08x%08x", getpid(),
                random(), random());
  return ncclSuccess;
}

ncclResult_t ncclCommInitRankConfig(ncclComm_t* comm, int world, ncclUniqueId id, int rank,
                                    ncclConfig_t* config) {
  *comm = nullptr;
  if (world < 1 || world > cuda_emulator::kMaxRanks || rank < 0 || rank >= world ||
      memchr(id.internal, '\0', sizeof(id.internal)) == nullptr) {
    return cuda_emulator::Refuse(ncclInvalidArgument, "no such rank or not a unique id");
  }
  auto made = std::make_shared<cuda_emulator::Communicator>(id.internal, world, rank);
  if (!made->region.is_open()) {
    return cuda_emulator::Refuse(ncclSystemError, "no shared memory for the communicator");
  }
  made->device = cuda_emulator::CurrentDevice();
  made->is_blocking = config == nullptr || config->blocking != 0;
  made->region.Join(rank, cuda_emulator::HostNumber(), made->device);
  *comm = new ncclComm{made};
  if (!made->is_blocking) {
    return ncclInProgress;
  }
  while (made->state == ncclInProgress) {
    cuda_emulator::Look(made.get());
    usleep(100);
  }
  return made->state;
}

ncclResult_t ncclCommInitRank(ncclComm_t* comm, int world, ncclUniqueId id, int rank) {
  return ncclCommInitRankConfig(comm, world, id, rank, nullptr);
}

ncclResult_t ncclCommGetAsyncError(ncclComm_t comm, ncclResult_t* error) {
  cuda_emulator::Look(comm->inside.get());
  *error = comm->inside->is_finalizing && cuda_emulator::HasWork(comm->inside)
               ? ncclInProgress
               : comm->inside->state.load();
  return ncclSuccess;
}

ncclResult_t ncclCommFinalize(ncclComm_t comm) {
  comm->inside->is_finalizing = true;
  if (!comm->inside->is_blocking) {
    return ncclInProgress;
  }
  cuda_emulator::AwaitWork(comm->inside);
  return ncclSuccess;
}

ncclResult_t ncclCommDestroy(ncclComm_t comm) {
  cuda_emulator::AwaitWork(comm->inside);
  delete comm;
  return ncclSuccess;
}

ncclResult_t ncclCommAbort(ncclComm_t comm) {
  comm->inside->is_aborted = true;
  cuda_emulator::AwaitWork(comm->inside);
  delete comm;
  return ncclSuccess;
}

ncclResult_t ncclCommCount(const ncclComm_t comm, int* count) {
  *count = comm->inside->world;
  return ncclSuccess;
}

ncclResult_t ncclCommUserRank(const ncclComm_t comm, int* rank) {
  *rank = comm->inside->rank;
  return ncclSuccess;
}

ncclResult_t ncclCommCuDevice(const ncclComm_t comm, int* device) {
  *device = comm->inside->device;
  return ncclSuccess;
}

const char* ncclGetErrorString(ncclResult_t result) {
  switch (result) {
    case ncclSuccess:
      return "no error";
    case ncclInProgress:
      return "NCCL operation in progress";
    case ncclInvalidUsage:
      return "invalid usage";
    case ncclInvalidArgument:
      return "invalid argument";
    case ncclRemoteError:
      return "remote process exited or there was a network error";
    default:
      return "an error of the emulated NCCL";
  }
}

const char* ncclGetLastError(ncclComm_t) { return cuda_emulator::last_error.c_str(); }

ncclResult_t ncclGroupStart() {
  ++cuda_emulator::group_depth;
  return ncclSuccess;
}

ncclResult_t ncclGroupEnd() {
  if (cuda_emulator::group_depth == 0) {
    return cuda_emulator::Refuse(ncclInvalidUsage, "ncclGroupEnd without ncclGroupStart");
  }
  return --cuda_emulator::group_depth == 0 ? cuda_emulator::EndGroup() : ncclSuccess;
}

ncclResult_t ncclSend(const void* data, size_t count, ncclDataType_t type, int peer,
                      ncclComm_t comm, cudaStream_t stream) {
  char* bytes = const_cast<char*>(static_cast<const char*>(data));
  return cuda_emulator::Add(comm->inside, stream,
                            {{true, peer, bytes, count * cuda_emulator::BytesOf(type)}});
}

ncclResult_t ncclRecv(void* data, size_t count, ncclDataType_t type, int peer, ncclComm_t comm,
                      cudaStream_t stream) {
  return cuda_emulator::Add(
      comm->inside, stream,
      {{false, peer, static_cast<char*>(data), count * cuda_emulator::BytesOf(type)}});
}

ncclResult_t ncclAllGather(const void* sent, void* received, size_t count, ncclDataType_t type,
                           ncclComm_t comm, cudaStream_t stream) {
  const auto& c = comm->inside;
  const size_t bytes = count * cuda_emulator::BytesOf(type);
  char* own = const_cast<char*>(static_cast<const char*>(sent));
  char* all = static_cast<char*>(received);
  std::vector<cuda_emulator::Transfer> transfers;
  for (int peer = 0; peer < c->world; ++peer) {
    char* part = all + bytes * static_cast<size_t>(peer);
    if (peer != c->rank || part != own) {
      transfers.push_back({true, peer, own, bytes});
      transfers.push_back({false, peer, part, bytes});
    }
  }
  return cuda_emulator::Add(c, stream, std::move(transfers));
}

ncclResult_t ncclBroadcast(const void* sent, void* received, size_t count, ncclDataType_t type,
                           int root, ncclComm_t comm, cudaStream_t stream) {
  const auto& c = comm->inside;
  const size_t bytes = count * cuda_emulator::BytesOf(type);
  std::vector<cuda_emulator::Transfer> transfers;
  if (c->rank == root) {
    char* own = const_cast<char*>(static_cast<const char*>(sent));
    for (int peer = 0; peer < c->world; ++peer) {
      if (peer != root || sent != received) {
        transfers.push_back({true, peer, own, bytes});
      }
    }
  }
  if (c->rank != root || sent != received) {
    transfers.push_back({false, root, static_cast<char*>(received), bytes});
  }
  return cuda_emulator::Add(c, stream, std::move(transfers));
}

}  // extern "C"
