#include "kernels/cuda/peers.h"

#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstring>
#include <random>
#include <string_view>

#include "kernels/cuda/communicator.h"
#include "kernels/cuda/entries.h"
#include "kernels/cuda/peer_sizes.h"

namespace cohort::cuda {
namespace {

// A rank as the others get to know it.
struct Identity {
  uint64_t host = 0;     // of the running system
  uint64_t process = 0;  // a random number of its own
  uint64_t buffer = 0;   // its address in that process; 0: none
  int32_t multiprocessors = 0;
  int32_t has_handle = 0;
  char bus_id[16] = {};  // of the GPU
  cudaIpcMemHandle_t handle{};
};

// Up to here everything is sent everywhere: that is `world` times the message over every link, and
// one wait less. By the number of ranks; starting points until measured.
int64_t DefaultOneShotBytes(int32_t world) {
  return (world <= 2 ? int64_t{1024} : world <= 4 ? int64_t{512} : int64_t{256}) << 10;
}

uint64_t HashOf(std::string_view text) {
  uint64_t hash = 0xcbf29ce484222325u;
  for (const char c : text) {
    hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3u;
  }
  return hash;
}

// Equal for all processes of a running system, whatever names their containers have.
uint64_t HostNumber() {
  char text[64] = {};
  if (std::FILE* file = std::fopen("/proc/sys/kernel/random/boot_id", "re"); file != nullptr) {
    const std::size_t bytes = std::fread(text, 1, sizeof(text) - 1, file);
    std::fclose(file);
    return HashOf({text, bytes});
  }
  gethostname(text, sizeof(text) - 1);
  return HashOf(text);
}

uint64_t ProcessNumber() {
  static const uint64_t number = [] {
    std::random_device random;
    return uint64_t{random()} << 32 | random();
  }();
  return number;
}

// Buffers go back to the device, not to the system: a peer whose kernel is late may still write
// there. Its next join comes after that kernel.
CohortCudaError TakeBuffer(CohortCudaCommunicator* c) {
  std::vector<void*>& free = c->device->free_peer_buffers;
  if (free.empty()) {
    return FromCuda(c, cudaMalloc(&c->peers.buffer, kPeerBufferBytes), "memory of peers");
  }
  c->peers.buffer = free.back();
  free.pop_back();
  return Ok();
}

CohortCudaError MakeIdentity(CohortCudaCommunicator* c, Identity* own) {
  own->host = HostNumber();
  own->process = ProcessNumber();
  own->multiprocessors = c->device->multiprocessors;
  const cudaError_t result =
      cudaDeviceGetPCIBusId(own->bus_id, sizeof(own->bus_id), c->device->index);
  if (result != cudaSuccess) {
    return FromCuda(c, result, "cudaDeviceGetPCIBusId");
  }
  if (c->world > kMaxPeers || c->peer_mode == kCohortCudaPeersNever) {
    return Ok();
  }
  const CohortCudaError error = TakeBuffer(c);
  own->buffer = reinterpret_cast<uint64_t>(c->peers.buffer);
  // Not every system lets processes share memory; those ranks go over NCCL.
  own->has_handle = error.code == kCohortCudaOk &&
                    cudaIpcGetMemHandle(&own->handle, c->peers.buffer) == cudaSuccess;
  cudaGetLastError();
  return error;
}

// The ordinal here of a GPU of this host; negative when this process does not see it.
int OrdinalOf(const Identity& peer) {
  int ordinal = -1;
  if (cudaDeviceGetByPCIBusId(&ordinal, peer.bus_id) != cudaSuccess) {
    cudaGetLastError();
    return -1;
  }
  return ordinal;
}

// CUDA tells whether a GPU reaches another's memory, and whether with atomics: those pass NVLink
// and not PCIe.
int32_t LinkTo(const CohortCudaCommunicator* c, const Identity& own, const Identity& peer) {
  if (peer.host != own.host) {
    return kCohortCudaLinkNetwork;
  }
  if (std::memcmp(peer.bus_id, own.bus_id, sizeof(own.bus_id)) == 0) {
    return kCohortCudaLinkSameGpu;
  }
  const int ordinal = OrdinalOf(peer);
  int reaches = 0;
  int has_atomics = 0;
  if (ordinal < 0 || cudaDeviceCanAccessPeer(&reaches, c->device->index, ordinal) != cudaSuccess ||
      reaches == 0) {
    cudaGetLastError();
    return kCohortCudaLinkHost;
  }
  const bool is_known = cudaDeviceGetP2PAttribute(&has_atomics, cudaDevP2PAttrNativeAtomicSupported,
                                                  c->device->index, ordinal) == cudaSuccess;
  cudaGetLastError();
  return is_known && has_atomics != 0 ? kCohortCudaLinkNvlink : kCohortCudaLinkPcie;
}

bool WantsToReduce(const CohortCudaCommunicator* c) {
  const std::vector<int32_t>& links = c->peers.links;
  return c->peers.buffer != nullptr && std::all_of(links.begin(), links.end(), [&](int32_t link) {
           switch (link) {
             case kCohortCudaLinkSelf:
             case kCohortCudaLinkNvlink:
               return true;
             case kCohortCudaLinkPcie:
             case kCohortCudaLinkSameGpu:
               return c->peer_mode == kCohortCudaPeersAlways;
             default:
               return false;
           }
         });
}

// The peer's buffer as this rank's kernels reach it; null: not at all.
void* OpenBuffer(CohortCudaCommunicator* c, const Identity& own, const Identity& peer) {
  if (peer.buffer == 0) {
    return nullptr;
  }
  if (peer.process == own.process) {
    const int ordinal = OrdinalOf(peer);
    const cudaError_t enabled =
        ordinal == c->device->index ? cudaSuccess : cudaDeviceEnablePeerAccess(ordinal, 0);
    cudaGetLastError();
    return enabled == cudaSuccess || enabled == cudaErrorPeerAccessAlreadyEnabled
               ? reinterpret_cast<void*>(peer.buffer)
               : nullptr;
  }
  void* mapped = nullptr;
  if (peer.has_handle == 0 ||
      cudaIpcOpenMemHandle(&mapped, peer.handle, cudaIpcMemLazyEnablePeerAccess) != cudaSuccess) {
    cudaGetLastError();
    return nullptr;
  }
  c->peers.opened.push_back(mapped);
  return mapped;
}

bool OpenBuffers(CohortCudaCommunicator* c, const std::vector<Identity>& all) {
  const Identity& own = all[static_cast<std::size_t>(c->rank)];
  for (int32_t rank = 0; rank < c->world; ++rank) {
    void* const buffer =
        rank == c->rank ? c->peers.buffer : OpenBuffer(c, own, all[static_cast<std::size_t>(rank)]);
    if (buffer == nullptr) {
      return false;
    }
    c->peers.group.buffer[rank] = static_cast<unsigned char*>(buffer);
  }
  return true;
}

// Memory for what kernels say, a clean head of the own buffer, and the sizes.
CohortCudaError Prepare(CohortCudaCommunicator* c, const std::vector<Identity>& all) {
  Peers& peers = c->peers;
  peers.sizes.one_shot = c->peer_sizes.one_shot > 0
                             ? std::min(c->peer_sizes.one_shot, MostOneShotBytes(c->world))
                             : DefaultOneShotBytes(c->world);
  peers.sizes.two_shot =
      c->peer_sizes.two_shot > 0 ? std::min(c->peer_sizes.two_shot, kMaxPeerBytes) : kMaxPeerBytes;
  peers.blocks = kMaxPeerBlocks;
  for (const Identity& peer : all) {
    peers.blocks = std::min(peers.blocks, peer.multiprocessors);
  }
  const std::vector<int32_t>& links = peers.links;
  if (std::find(links.begin(), links.end(), kCohortCudaLinkSameGpu) != links.end()) {
    peers.blocks = std::max(1, peers.blocks / c->world);
  }
  void* report = nullptr;
  const cudaError_t result =
      cudaHostAlloc(&report, sizeof(PeerReport), cudaHostAllocPortable | cudaHostAllocMapped);
  if (result != cudaSuccess) {
    return FromCuda(c, result, "memory for reports of kernels");
  }
  std::memset(report, 0, sizeof(PeerReport));
  peers.group.world = c->world;
  peers.group.rank = c->rank;
  peers.group.bound_nanoseconds =
      static_cast<uint64_t>(std::chrono::nanoseconds(c->timeout_after_join).count());
  const std::lock_guard<std::mutex> lock(c->mutex);
  peers.group.report = static_cast<PeerReport*>(report);
  if (c->is_aborted) {
    peers.group.report->abort = 1;
  }
  return FromCuda(c, cudaMemsetAsync(peers.buffer, 0, sizeof(PeerControl), c->device->stream),
                  "memory of peers");
}

uint32_t Read(const uint32_t& word) {
  return std::atomic_ref<uint32_t>(const_cast<uint32_t&>(word)).load(std::memory_order_acquire);
}

}  // namespace

CohortCudaError GatherBytes(CohortCudaCommunicator* c, const void* own, std::size_t bytes,
                            void* all) {
  char* const gathered = c->scratch;
  char* const of_rank = gathered + static_cast<std::size_t>(c->rank) * bytes;
  cudaError_t result =
      cudaMemcpyAsync(of_rank, own, bytes, cudaMemcpyHostToDevice, c->device->stream);
  if (result != cudaSuccess) {
    return FromCuda(c, result, "meeting the other ranks");
  }
  CohortCudaError error = Enqueue(c, "meeting the other ranks", [&](ncclComm_t comm) {
    return ncclAllGather(of_rank, gathered, bytes, ncclInt8, comm, c->device->stream);
  });
  if (error.code == kCohortCudaOk) {
    error = Barrier(c);
  }
  if (error.code != kCohortCudaOk) {
    return error;
  }
  result = cudaMemcpyAsync(all, gathered, bytes * static_cast<std::size_t>(c->world),
                           cudaMemcpyDeviceToHost, c->device->stream);
  return FromCuda(c, result == cudaSuccess ? cudaStreamSynchronize(c->device->stream) : result,
                  "meeting the other ranks");
}

CohortCudaError MeetPeers(CohortCudaCommunicator* c) {
  Identity own;
  CohortCudaError error = MakeIdentity(c, &own);
  std::vector<Identity> all;
  if (error.code == kCohortCudaOk) {
    error = GatherFromAll(c, own, &all);
  }
  if (error.code != kCohortCudaOk) {
    return error;
  }
  for (int32_t rank = 0; rank < c->world; ++rank) {
    c->peers.links.push_back(rank == c->rank ? kCohortCudaLinkSelf
                                             : LinkTo(c, own, all[static_cast<std::size_t>(rank)]));
  }
  int32_t can_reduce = WantsToReduce(c) && OpenBuffers(c, all);
  if (can_reduce) {
    error = Prepare(c, all);
  }
  // Also tells that every head is clean.
  std::vector<int32_t> all_can;
  if (error.code == kCohortCudaOk) {
    error = GatherFromAll(c, can_reduce, &all_can);
  }
  c->peers.can_reduce =
      error.code == kCohortCudaOk && std::find(all_can.begin(), all_can.end(), 0) == all_can.end();
  return error;
}

void AbortPeers(CohortCudaCommunicator* c) {
  if (c->peers.group.report != nullptr) {
    std::atomic_ref<uint32_t>(c->peers.group.report->abort).store(1, std::memory_order_release);
  }
}

CohortCudaError PeerFailure(const CohortCudaCommunicator* c) {
  const PeerReport* report = c->peers.group.report;
  if (report == nullptr || Read(report->failed) == 0) {
    return Ok();
  }
  if (Read(report->abort) != 0) {
    return Aborted(c, "all-reduce");
  }
  return MakeError(
      kCohortCudaDeadline,
      "rank %d of %d: all-reduce %u over peer memory waited %lld ms for the %s of rank %u", c->rank,
      c->world, report->epoch, static_cast<long long>(c->timeout_after_join.count()),
      report->phase == 0 ? "summands" : "sums", report->peer);
}

void LeavePeers(CohortCudaCommunicator* c) {
  for (void* mapped : c->peers.opened) {
    cudaIpcCloseMemHandle(mapped);
  }
  if (c->peers.buffer != nullptr) {
    c->device->free_peer_buffers.push_back(c->peers.buffer);
  }
  if (c->peers.group.report != nullptr) {
    cudaFreeHost(c->peers.group.report);
  }
  cudaGetLastError();
}

}  // namespace cohort::cuda
