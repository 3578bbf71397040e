// Copies to the device beside its stream, and memory of the host that is pinned where it lies.
#include "kernels/cuda/copy_queue.h"

#include <cinttypes>
#include <memory>

#include "kernels/cuda/entries.h"

namespace cohort::cuda {

CohortCudaError CopyQueueCreate(CohortCudaDevice* device, CohortCudaCopyQueue** queue) noexcept {
  *queue = nullptr;
  Activate(device);
  auto created = std::make_unique<CohortCudaCopyQueue>();
  created->device = device;
  const cudaError_t result = cudaStreamCreateWithFlags(&created->stream, cudaStreamNonBlocking);
  if (result == cudaSuccess) {
    *queue = created.release();
  }
  return FromCuda(result, "cudaStreamCreate");
}

void CopyQueueDestroy(CohortCudaCopyQueue* queue) noexcept {
  const std::unique_ptr<CohortCudaCopyQueue> owner(queue);
  Activate(queue->device);
  if (const cudaError_t result = cudaStreamSynchronize(queue->stream); result != cudaSuccess) {
    Stick(queue->device, FromCuda(result, "copies beside the stream"));
  }
  cudaStreamDestroy(queue->stream);
}

void CopyQueueEnqueue(CohortCudaCopyQueue* queue, const void* source, void* destination,
                      uint64_t bytes) noexcept {
  // The destination may be pinned memory too.
  EnqueueCopy(queue->device, queue->stream, source, destination, bytes, cudaMemcpyDefault,
              "copy from host");
}

CohortCudaError HostMemoryPin(int32_t index, const void* memory, uint64_t bytes) noexcept {
  int can_pin = 0;
  cudaError_t result = cudaSetDevice(index);
  if (result == cudaSuccess) {
    result = cudaDeviceGetAttribute(&can_pin, cudaDevAttrHostRegisterReadOnlySupported, index);
  }
  if (result == cudaSuccess && can_pin == 0) {
    return MakeError(kCohortCudaInvalidArgument,
                     "cuda:%d cannot read memory of the host that is only readable", index);
  }
  if (result == cudaSuccess) {
    result = cudaHostRegister(const_cast<void*>(memory), bytes,
                              cudaHostRegisterPortable | cudaHostRegisterReadOnly);
  }
  if (result == cudaErrorMemoryAllocation) {
    cudaGetLastError();  // as in FromCuda
    return MakeError(kCohortCudaOutOfMemory,
                     "cuda:%d cannot pin %" PRIu64 " bytes of the host's memory where they lie",
                     index, bytes);
  }
  return FromCuda(result, "cudaHostRegister");
}

void HostMemoryUnpin(int32_t index, const void* memory) noexcept {
  // As in MemoryFree.
  if (cudaSetDevice(index) == cudaSuccess) {
    cudaHostUnregister(const_cast<void*>(memory));
  }
}

}  // namespace cohort::cuda
