// Memory of devices and of the host, and copies.
//
// Fresh memory is NaN (every byte 0xff), with a page behind it that nobody may touch. Large pieces
// share the pages of one file of that pattern until they are written, so that most of a pretend
// GPU's memory costs nothing.
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>

#include "runtime.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#endif

namespace cuda_emulator {
namespace {

constexpr uint64_t kPage = 4096;
constexpr uint64_t kPatternBytes = uint64_t{16} << 20;
constexpr uint64_t kFilledBytes = uint64_t{256} << 10;  // up to here a plain memset

struct Allocation {
  uint64_t bytes = 0;
  uint64_t mapped = 0;  // with the guard page; 0 for registered memory of the program
  int file = -1;        // what other processes open, see cudaIpcGetMemHandle
  MemoryKind kind = MemoryKind::kDevice;
  int device = -1;
};

std::mutex allocations_mutex;
std::map<uint64_t, Allocation>& Allocations() {
  static auto* allocations = new std::map<uint64_t, Allocation>;
  return *allocations;
}

int PatternFile() {
  static const int file = [] {
    const int made = memfd_create("cuda-emulator-nan", MFD_CLOEXEC);
    const std::vector<unsigned char> pattern(1 << 20, 0xff);
    for (uint64_t done = 0; done < kPatternBytes; done += pattern.size()) {
      if (write(made, pattern.data(), pattern.size()) != static_cast<ssize_t>(pattern.size())) {
        std::abort();
      }
    }
    return made;
  }();
  return file;
}

// Null when the host has no more.
void* Map(uint64_t bytes, uint64_t mapped) {
  void* memory = mmap(nullptr, mapped, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) {
    return nullptr;
  }
  char* begin = static_cast<char*>(memory);
  const uint64_t usable = mapped - kPage;
  if (bytes <= kFilledBytes) {
    std::memset(begin, 0xff, bytes);
  } else {
    for (uint64_t done = 0; done < usable; done += kPatternBytes) {
      if (mmap(begin + done, std::min(kPatternBytes, usable - done), PROT_READ | PROT_WRITE,
               MAP_PRIVATE | MAP_FIXED | MAP_NORESERVE, PatternFile(), 0) == MAP_FAILED) {
        munmap(memory, mapped);
        return nullptr;
      }
    }
  }
  mprotect(begin + usable, kPage, PROT_NONE);
#if defined(__SANITIZE_ADDRESS__)
  ASAN_UNPOISON_MEMORY_REGION(begin, bytes);
  ASAN_POISON_MEMORY_REGION(begin + bytes, usable - bytes);
#endif
  return memory;
}

void* Allocate(uint64_t bytes, MemoryKind kind, int device) {
  const uint64_t mapped = (bytes + kPage - 1) / kPage * kPage + kPage;
  void* memory = Map(bytes, mapped);
  if (memory != nullptr) {
    const std::lock_guard<std::mutex> lock(allocations_mutex);
    Allocations()[reinterpret_cast<uint64_t>(memory)] = {bytes, mapped, -1, kind, device};
  }
  return memory;
}

// Gives back what begins there; its size, or nothing known.
bool Release(void* memory, MemoryKind kind, Allocation* released) {
  {
    const std::lock_guard<std::mutex> lock(allocations_mutex);
    const auto found = Allocations().find(reinterpret_cast<uint64_t>(memory));
    if (found == Allocations().end() || found->second.kind != kind) {
      return false;
    }
    *released = found->second;
    Allocations().erase(found);
  }
  if (released->mapped > 0) {
#if defined(__SANITIZE_ADDRESS__)
    ASAN_UNPOISON_MEMORY_REGION(memory, released->mapped);
#endif
    munmap(memory, released->mapped);
  }
  if (released->file >= 0) {
    close(released->file);
  }
  return true;
}

struct Copy {
  void* destination;
  size_t destination_pitch;
  const void* source;
  size_t source_pitch;
  size_t width;
  size_t height;

  void Run() const {
    for (size_t row = 0; row < height; ++row) {
      std::memcpy(static_cast<char*>(destination) + row * destination_pitch,
                  static_cast<const char*>(source) + row * source_pitch, width);
    }
  }
};

size_t Extent(size_t pitch, size_t width, size_t height) {
  return height == 0 || width == 0 ? 0 : pitch * (height - 1) + width;
}

bool IsCapturing(CUstream_st* stream) {
  const std::lock_guard<std::mutex> lock(stream->mutex);
  return stream->capture != nullptr;
}

// Whether the kind says device where the memory is the program's own.
bool FitsKind(const Copy& copy, cudaMemcpyKind kind) {
  const bool to_device = RangeOf(copy.destination).kind != MemoryKind::kUnknown;
  const bool from_device = RangeOf(copy.source).kind != MemoryKind::kUnknown;
  return (to_device || kind == cudaMemcpyDeviceToHost || kind == cudaMemcpyHostToHost ||
          kind == cudaMemcpyDefault) &&
         (from_device || kind == cudaMemcpyHostToDevice || kind == cudaMemcpyHostToHost ||
          kind == cudaMemcpyDefault);
}

cudaError_t CopyOnStream(Copy copy, cudaMemcpyKind kind, cudaStream_t handle) {
  const size_t written = Extent(copy.destination_pitch, copy.width, copy.height);
  const size_t read = Extent(copy.source_pitch, copy.width, copy.height);
  if (written == 0) {
    return cudaSuccess;
  }
  if (!IsWholeRange(copy.destination, written) || !IsWholeRange(copy.source, read) ||
      !FitsKind(copy, kind)) {
    return cudaErrorInvalidValue;
  }
  CUstream_st* stream = Resolve(handle);
  const bool is_capturing = IsCapturing(stream);
  const bool from_pageable = RangeOf(copy.source).kind == MemoryKind::kUnknown;
  const bool to_pageable = RangeOf(copy.destination).kind == MemoryKind::kUnknown;
  if (from_pageable && !is_capturing) {
    // Pageable memory has been read when the call returns.
    auto staged = std::make_shared<std::vector<char>>(static_cast<const char*>(copy.source),
                                                      static_cast<const char*>(copy.source) + read);
    copy.source = staged->data();
    return Enqueue(stream, {cudaGraphNodeTypeMemcpy, false, [copy, staged] {
                              copy.Run();
                              return cudaSuccess;
                            }});
  }
  const cudaError_t result = Enqueue(stream, {cudaGraphNodeTypeMemcpy, false, [copy] {
                                                copy.Run();
                                                return cudaSuccess;
                                              }});
  // And has been written.
  return result == cudaSuccess && to_pageable && !is_capturing ? Synchronize(stream) : result;
}

// A piece of memory as another process finds it: a file of this one.
struct IpcHandle {
  int process;
  int file;
  uint64_t bytes;
  uint64_t mapped;
};
static_assert(sizeof(IpcHandle) <= sizeof(cudaIpcMemHandle_t));

// Puts a file that can be shared in the place of the memory, with what it holds. What a kernel
// writes there meanwhile is lost: programs share memory before they use it.
cudaError_t MakeShared(void* memory, Allocation* allocation) {
  const int file = memfd_create("cuda-emulator-shared", MFD_CLOEXEC);
  const uint64_t usable = allocation->mapped - kPage;
  if (file < 0 || ftruncate(file, static_cast<off_t>(usable)) != 0 ||
      pwrite(file, memory, allocation->bytes, 0) != static_cast<ssize_t>(allocation->bytes) ||
      mmap(memory, usable, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, file, 0) == MAP_FAILED) {
    close(file);
    return cudaErrorMapBufferObjectFailed;
  }
  allocation->file = file;
  return cudaSuccess;
}

}  // namespace

MemoryRange RangeOf(const void* address) {
  const auto at = reinterpret_cast<uint64_t>(address);
  const std::lock_guard<std::mutex> lock(allocations_mutex);
  auto found = Allocations().upper_bound(at);
  if (found == Allocations().begin()) {
    return {};
  }
  --found;
  const Allocation& allocation = found->second;
  const uint64_t end = found->first + std::max<uint64_t>(allocation.bytes, 1);
  return at < end ? MemoryRange{allocation.kind, allocation.device, found->first, allocation.bytes}
                  : MemoryRange{};
}

bool IsWholeRange(const void* address, std::size_t bytes) {
  const MemoryRange range = RangeOf(address);
  return range.kind == MemoryKind::kUnknown ||
         reinterpret_cast<uint64_t>(address) + bytes <= range.begin + range.bytes;
}

}  // namespace cuda_emulator

using cuda_emulator::MemoryKind;
using cuda_emulator::Return;

extern "C" {

cudaError_t cudaMalloc(void** memory, size_t bytes) {
  *memory = nullptr;
  if (cuda_emulator::IsForbiddenByCapture()) {
    return Return(cudaErrorStreamCaptureUnsupported);
  }
  if (bytes == 0) {
    return cudaSuccess;
  }
  cuda_emulator::Device& device = cuda_emulator::DeviceOf(cuda_emulator::CurrentDevice());
  {
    const std::lock_guard<std::mutex> lock(device.mutex);
    if (bytes > device.total_bytes - device.used_bytes) {
      return Return(cudaErrorMemoryAllocation);
    }
    device.used_bytes += bytes;
  }
  *memory = cuda_emulator::Allocate(bytes, MemoryKind::kDevice, device.index);
  if (*memory == nullptr) {
    const std::lock_guard<std::mutex> lock(device.mutex);
    device.used_bytes -= bytes;
    return Return(cudaErrorMemoryAllocation);
  }
  return cudaSuccess;
}

// Waits until nothing on the device can still use the memory, as the real one does.
cudaError_t cudaFree(void* memory) {
  if (memory == nullptr) {
    return cudaSuccess;
  }
  if (cuda_emulator::IsForbiddenByCapture()) {
    return Return(cudaErrorStreamCaptureUnsupported);
  }
  cudaDeviceSynchronize();
  cuda_emulator::Allocation released;
  if (!cuda_emulator::Release(memory, MemoryKind::kDevice, &released)) {
    return Return(cudaErrorInvalidValue);
  }
  cuda_emulator::Device& device = cuda_emulator::DeviceOf(released.device);
  const std::lock_guard<std::mutex> lock(device.mutex);
  device.used_bytes -= released.bytes;
  return cudaSuccess;
}

cudaError_t cudaIpcGetMemHandle(cudaIpcMemHandle_t* handle, void* memory) {
  const std::lock_guard<std::mutex> lock(cuda_emulator::allocations_mutex);
  const auto found = cuda_emulator::Allocations().find(reinterpret_cast<uint64_t>(memory));
  if (found == cuda_emulator::Allocations().end() || found->second.kind != MemoryKind::kDevice) {
    return Return(cudaErrorInvalidValue);
  }
  cuda_emulator::Allocation& allocation = found->second;
  if (allocation.file < 0) {
    if (const cudaError_t result = cuda_emulator::MakeShared(memory, &allocation);
        result != cudaSuccess) {
      return Return(result);
    }
  }
  const cuda_emulator::IpcHandle inside = {getpid(), allocation.file, allocation.bytes,
                                           allocation.mapped};
  *handle = {};
  std::memcpy(handle, &inside, sizeof(inside));
  return cudaSuccess;
}

cudaError_t cudaIpcOpenMemHandle(void** memory, cudaIpcMemHandle_t handle, unsigned) {
  cuda_emulator::IpcHandle inside;
  std::memcpy(&inside, &handle, sizeof(inside));
  if (inside.process == getpid()) {
    return Return(cudaErrorInvalidDevice);  // as the real one: not in the process that made it
  }
  const std::string path =
      "/proc/" + std::to_string(inside.process) + "/fd/" + std::to_string(inside.file);
  const int file = open(path.c_str(), O_RDWR | O_CLOEXEC);
  void* mapped = file < 0 ? MAP_FAILED
                          : mmap(nullptr, inside.mapped - cuda_emulator::kPage,
                                 PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
  if (mapped == MAP_FAILED) {
    close(file);
    return Return(cudaErrorMapBufferObjectFailed);
  }
  const std::lock_guard<std::mutex> lock(cuda_emulator::allocations_mutex);
  cuda_emulator::Allocations()[reinterpret_cast<uint64_t>(mapped)] = {
      inside.bytes, inside.mapped - cuda_emulator::kPage, file, MemoryKind::kPeer,
      cuda_emulator::CurrentDevice()};
  *memory = mapped;
  return cudaSuccess;
}

cudaError_t cudaIpcCloseMemHandle(void* memory) {
  cuda_emulator::Allocation released;
  cudaDeviceSynchronize();
  return Return(cuda_emulator::Release(memory, MemoryKind::kPeer, &released)
                    ? cudaSuccess
                    : cudaErrorInvalidValue);
}

cudaError_t cudaMemGetInfo(size_t* free_bytes, size_t* total_bytes) {
  cuda_emulator::Device& device = cuda_emulator::DeviceOf(cuda_emulator::CurrentDevice());
  const std::lock_guard<std::mutex> lock(device.mutex);
  *free_bytes = device.total_bytes - device.used_bytes;
  *total_bytes = device.total_bytes;
  return cudaSuccess;
}

cudaError_t cudaHostAlloc(void** memory, size_t bytes, unsigned) {
  *memory = bytes == 0 ? nullptr : cuda_emulator::Allocate(bytes, MemoryKind::kPinned, -1);
  return Return(bytes > 0 && *memory == nullptr ? cudaErrorMemoryAllocation : cudaSuccess);
}

cudaError_t cudaMallocHost(void** memory, size_t bytes) { return cudaHostAlloc(memory, bytes, 0); }

cudaError_t cudaFreeHost(void* memory) {
  cuda_emulator::Allocation released;
  cudaDeviceSynchronize();
  return Return(memory == nullptr || cuda_emulator::Release(memory, MemoryKind::kPinned, &released)
                    ? cudaSuccess
                    : cudaErrorInvalidValue);
}

cudaError_t cudaHostRegister(void* memory, size_t bytes, unsigned) {
  const std::lock_guard<std::mutex> lock(cuda_emulator::allocations_mutex);
  const bool is_new =
      cuda_emulator::Allocations()
          .try_emplace(reinterpret_cast<uint64_t>(memory),
                       cuda_emulator::Allocation{bytes, 0, -1, MemoryKind::kPinned, -1})
          .second;
  return Return(is_new ? cudaSuccess : cudaErrorHostMemoryAlreadyRegistered);
}

cudaError_t cudaHostUnregister(void* memory) {
  cuda_emulator::Allocation released;
  cudaDeviceSynchronize();
  return Return(cuda_emulator::Release(memory, MemoryKind::kPinned, &released)
                    ? cudaSuccess
                    : cudaErrorHostMemoryNotRegistered);
}

cudaError_t cudaHostGetDevicePointer(void** device_pointer, void* memory, unsigned) {
  const bool is_pinned = cuda_emulator::RangeOf(memory).kind == MemoryKind::kPinned;
  *device_pointer = is_pinned ? memory : nullptr;
  return Return(is_pinned ? cudaSuccess : cudaErrorInvalidValue);
}

cudaError_t cudaPointerGetAttributes(cudaPointerAttributes* attributes, const void* pointer) {
  const cuda_emulator::MemoryRange range = cuda_emulator::RangeOf(pointer);
  *attributes = {};
  attributes->type = range.kind == MemoryKind::kDevice || range.kind == MemoryKind::kPeer
                         ? cudaMemoryTypeDevice
                     : range.kind == MemoryKind::kPinned ? cudaMemoryTypeHost
                                                         : cudaMemoryTypeUnregistered;
  attributes->device = range.kind == MemoryKind::kUnknown ? -2 : std::max(range.device, 0);
  void* address = const_cast<void*>(pointer);
  attributes->devicePointer = range.kind == MemoryKind::kUnknown ? nullptr : address;
  attributes->hostPointer = range.kind == MemoryKind::kPinned ? address : nullptr;
  return cudaSuccess;
}

cudaError_t cudaMemcpyAsync(void* destination, const void* source, size_t bytes,
                            cudaMemcpyKind kind, cudaStream_t stream) {
  return Return(
      cuda_emulator::CopyOnStream({destination, bytes, source, bytes, bytes, 1}, kind, stream));
}

cudaError_t cudaMemcpy2DAsync(void* destination, size_t destination_pitch, const void* source,
                              size_t source_pitch, size_t width, size_t height, cudaMemcpyKind kind,
                              cudaStream_t stream) {
  if (height > 1 && (width > destination_pitch || width > source_pitch)) {
    return Return(cudaErrorInvalidPitchValue);
  }
  return Return(cuda_emulator::CopyOnStream(
      {destination, destination_pitch, source, source_pitch, width, height}, kind, stream));
}

cudaError_t cudaMemcpy(void* destination, const void* source, size_t bytes, cudaMemcpyKind kind) {
  if (cuda_emulator::IsForbiddenByCapture()) {
    return Return(cudaErrorStreamCaptureImplicit);
  }
  const cudaError_t result = cudaMemcpyAsync(destination, source, bytes, kind, nullptr);
  return result != cudaSuccess ? result : cudaStreamSynchronize(nullptr);
}

cudaError_t cudaMemcpyPeerAsync(void* destination, int, const void* source, int, size_t bytes,
                                cudaStream_t stream) {
  return cudaMemcpyAsync(destination, source, bytes, cudaMemcpyDeviceToDevice, stream);
}

cudaError_t cudaMemsetAsync(void* memory, int value, size_t bytes, cudaStream_t stream) {
  if (!cuda_emulator::IsWholeRange(memory, bytes) ||
      (bytes > 0 && cuda_emulator::RangeOf(memory).kind == MemoryKind::kUnknown)) {
    return Return(cudaErrorInvalidValue);
  }
  return Return(cuda_emulator::Enqueue(stream, {cudaGraphNodeTypeMemset, false, [=] {
                                                  std::memset(memory, value, bytes);
                                                  return cudaSuccess;
                                                }}));
}

cudaError_t cudaMemset(void* memory, int value, size_t bytes) {
  return cudaMemsetAsync(memory, value, bytes, nullptr);
}

}  // extern "C"
