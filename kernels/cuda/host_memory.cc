// Pinned memory of the host, and copies that only enqueue.
#include <cinttypes>

#include "kernels/cuda/copy_queue.h"
#include "kernels/cuda/entries.h"

namespace cohort::cuda {

void EnqueueCopy(CohortCudaDevice* device, cudaStream_t stream, const void* source,
                 void* destination, uint64_t bytes, cudaMemcpyKind kind, const char* what) {
  if (bytes == 0) {
    return;
  }
  Activate(device);
  const cudaError_t result = cudaMemcpyAsync(destination, source, bytes, kind, stream);
  if (result != cudaSuccess) {
    Stick(device, FromCuda(result, what));
  }
}

CohortCudaError MemoryInfo(CohortCudaDevice* device, uint64_t* free_bytes,
                           uint64_t* total_bytes) noexcept {
  Activate(device);
  std::size_t free_now = 0;
  std::size_t total = 0;
  const cudaError_t result = cudaMemGetInfo(&free_now, &total);
  *free_bytes = free_now;
  *total_bytes = total;
  return FromCuda(result, "cudaMemGetInfo");
}

CohortCudaError HostMemoryAllocate(CohortCudaDevice* device, uint64_t bytes,
                                   void** memory) noexcept {
  *memory = nullptr;
  Activate(device);
  const cudaError_t result =
      cudaHostAlloc(memory, bytes, cudaHostAllocPortable | cudaHostAllocMapped);
  if (result == cudaErrorMemoryAllocation) {
    cudaGetLastError();  // as in FromCuda
    return MakeError(kCohortCudaOutOfMemory,
                     "cuda:%d cannot pin %" PRIu64 " bytes of the host's memory", device->index,
                     bytes);
  }
  if (result != cudaSuccess) {
    return FromCuda(result, "cudaHostAlloc");
  }
  // Kernels are given the host's address; every system with one address space has it so.
  void* on_device = nullptr;
  const cudaError_t mapped = cudaHostGetDevicePointer(&on_device, *memory, 0);
  if (mapped == cudaSuccess && on_device == *memory) {
    return Ok();
  }
  cudaFreeHost(*memory);
  *memory = nullptr;
  return mapped != cudaSuccess
             ? FromCuda(mapped, "cudaHostGetDevicePointer")
             : MakeError(kCohortCudaFailed, "cuda:%d has no address space in common with the host",
                         device->index);
}

void HostMemoryFree(int32_t index, void* memory) noexcept {
  // As in MemoryFree.
  if (cudaSetDevice(index) == cudaSuccess) {
    cudaFreeHost(memory);
  }
}

void EnqueueCopyFromHost(CohortCudaDevice* device, const void* source, void* destination,
                         uint64_t bytes) noexcept {
  // The destination may be pinned memory too.
  EnqueueCopy(device, device->stream, source, destination, bytes, cudaMemcpyDefault,
              "copy from host");
}

void EnqueueCopyToHost(CohortCudaDevice* device, const void* source, void* destination,
                       uint64_t bytes) noexcept {
  EnqueueCopy(device, device->stream, source, destination, bytes, cudaMemcpyDeviceToHost,
              "copy to host");
}

}  // namespace cohort::cuda
