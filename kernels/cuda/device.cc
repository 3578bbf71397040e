// Devices, memory, copies.
#include "kernels/cuda/device.h"

#include <algorithm>
#include <cinttypes>
#include <cstdarg>
#include <cstdio>
#include <cstring>
#include <utility>

#include "kernels/cuda/attention.h"
#include "kernels/cuda/compiled_code.h"
#include "kernels/cuda/entries.h"
#include "kernels/cuda/persistent_step.h"

namespace cohort::cuda {
namespace {

CohortCudaError NoDevice(cudaError_t result) {
  if (result == cudaErrorInsufficientDriver || result == cudaErrorNoDevice) {
    int driver = 0;
    if (cudaDriverGetVersion(&driver) != cudaSuccess || driver == 0) {
      return MakeError(kCohortCudaNotUsable, "no NVIDIA driver (cudaGetDeviceCount: %s)",
                       cudaGetErrorString(result));
    }
    return MakeError(kCohortCudaNotUsable,
                     "the NVIDIA driver supports CUDA %d.%d and shows no device to CUDA %d.%d "
                     "(cudaGetDeviceCount: %s)",
                     driver / 1000, driver % 1000 / 10, CUDART_VERSION / 1000,
                     CUDART_VERSION % 1000 / 10, cudaGetErrorString(result));
  }
  return MakeError(kCohortCudaNotUsable, "cudaGetDeviceCount: %s", cudaGetErrorString(result));
}

cudaError_t ReadAttributes(CohortCudaDevice* device) {
  int major = 0;
  int minor = 0;
  cudaError_t result =
      cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device->index);
  if (result == cudaSuccess) {
    result = cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device->index);
  }
  device->compute = 10 * major + minor;
  return result != cudaSuccess
             ? result
             : cudaDeviceGetAttribute(&device->multiprocessors, cudaDevAttrMultiProcessorCount,
                                      device->index);
}

int HostNode(int index) {
  int node = -1;
  if (cudaDeviceGetAttribute(&node, cudaDevAttrHostNumaId, index) != cudaSuccess) {
    cudaGetLastError();  // as in FromCuda
    return -1;           // a driver that does not know the question
  }
  return node;
}

cudaError_t AllocateArrivals(CohortCudaDevice* device) {
  constexpr std::size_t kBytes = (kStreamArrivals + kStepCounters) * sizeof(uint32_t);
  void* counters = nullptr;
  const cudaError_t result = cudaMalloc(&counters, kBytes);
  device->stream_arrivals = static_cast<uint32_t*>(counters);
  device->step_counters = device->stream_arrivals + kStreamArrivals;
  return result != cudaSuccess ? result : cudaMemsetAsync(counters, 0, kBytes, device->stream);
}

cudaError_t MakeAttentionWorkspace(CohortCudaDevice* device) {
  const std::size_t bytes = AttentionWorkspaceBytes(device->multiprocessors);
  const cudaError_t result = cudaMalloc(&device->attention_workspace, bytes);
  return result != cudaSuccess
             ? result
             : cudaMemsetAsync(device->attention_workspace, 0, bytes, device->stream);
}

// Fills what `device` owns; on an error the caller destroys what is there.
CohortCudaError Initialize(CohortCudaDevice* device) {
  if (const cudaError_t result = cudaSetDevice(device->index); result != cudaSuccess) {
    return FromCuda(result, "cudaSetDevice");
  }
  if (const cudaError_t result = ReadAttributes(device); result != cudaSuccess) {
    return FromCuda(result, "cudaDeviceGetAttribute");
  }
  if (const cudaError_t result = cudaStreamCreateWithFlags(&device->stream, cudaStreamNonBlocking);
      result != cudaSuccess) {
    return FromCuda(result, "cudaStreamCreate");
  }
  if (const cudaError_t result = device->progress.Create(); result != cudaSuccess) {
    return FromCuda(result, "cudaEventCreate");
  }
  if (const cudaError_t result = cudaMalloc(&device->workspace, kWorkspaceBytes);
      result != cudaSuccess) {
    return FromCuda(result, "cudaMalloc of the workspace");
  }
  if (const cudaError_t result = AllocateArrivals(device); result != cudaSuccess) {
    return FromCuda(result, "cudaMalloc of the counters");
  }
  if (const cudaError_t result = MakeAttentionWorkspace(device); result != cudaSuccess) {
    return FromCuda(result, "cudaMalloc of attention's workspace");
  }
  if (const cublasStatus_t result = cublasLtCreate(&device->blas);
      result != CUBLAS_STATUS_SUCCESS) {
    return MakeError(kCohortCudaFailed, "cublasLtCreate: %s", cublasLtGetStatusString(result));
  }
  CompiledCode code = {};
  if (const CohortCudaError error = LookAtCode(device, &code); error.code != kCohortCudaOk) {
    return error;
  }
  device->compute = std::min(device->compute, int{code.compute});
  device->has_wgmma = code.has_wgmma != 0;
  device->plans = MakeMatMulPlans();
  cudaError_t result = cudaSuccess;
  device->sampling = MakeSamplingMemory(device->stream, &result);
  return FromCuda(result, "cudaMalloc of the sampling kernels' memory");
}

}  // namespace

CohortCudaError MakeError(int32_t code, const char* format, ...) {
  CohortCudaError error;
  error.code = code;
  va_list arguments;
  va_start(arguments, format);
  std::vsnprintf(error.message, sizeof(error.message), format, arguments);
  va_end(arguments);
  std::replace(error.message, error.message + std::strlen(error.message), '\n', ' ');
  return error;
}

CohortCudaError Ok() {
  CohortCudaError error;
  error.code = kCohortCudaOk;
  error.message[0] = '\0';
  return error;
}

CohortCudaError FromCuda(cudaError_t result, const char* what) {
  if (result == cudaSuccess) {
    return Ok();
  }
  cudaGetLastError();  // or the next launch would report it again
  const int32_t code =
      result == cudaErrorMemoryAllocation ? kCohortCudaOutOfMemory : kCohortCudaFailed;
  return MakeError(code, "%s: %s (%s)", what, cudaGetErrorString(result), cudaGetErrorName(result));
}

void Stick(CohortCudaDevice* device, const CohortCudaError& error) {
  if (device->first_error.code == kCohortCudaOk) {
    device->first_error = error;
  }
}

void MarkProgress(CohortCudaDevice* device) {
  if (const cudaError_t result = device->progress.Mark(device->stream); result != cudaSuccess) {
    Stick(device, FromCuda(result, "cudaEventRecord"));
  }
}

void Activate(CohortCudaDevice* device) {
  if (const cudaError_t result = cudaSetDevice(device->index); result != cudaSuccess) {
    Stick(device, FromCuda(result, "cudaSetDevice"));
  }
}

CohortCudaError DeviceCount(int32_t* count) noexcept {
  *count = 0;
  int devices = 0;  // left as it is on an error
  if (const cudaError_t result = cudaGetDeviceCount(&devices); result != cudaSuccess) {
    return NoDevice(result);
  }
  *count = devices;
  return Ok();
}

CohortCudaError DeviceProperties(int32_t index, CohortCudaProperties* properties) noexcept {
  *properties = {};
  cudaDeviceProp from{};
  if (const cudaError_t result = cudaGetDeviceProperties(&from, index); result != cudaSuccess) {
    return FromCuda(result, "cudaGetDeviceProperties");
  }
  std::snprintf(properties->name, sizeof(properties->name), "%.127s", from.name);
  properties->memory_bytes = from.totalGlobalMem;
  properties->compute_major = from.major;
  properties->compute_minor = from.minor;
  properties->multiprocessors = from.multiProcessorCount;
  properties->runtime_version = CUDART_VERSION;
  properties->nccl_version = NcclVersion();
  properties->host_node = HostNode(index);
  return FromCuda(cudaDriverGetVersion(&properties->driver_version), "cudaDriverGetVersion");
}

CohortCudaError DeviceCreate(int32_t index, CohortCudaDevice** device) noexcept {
  auto created = std::make_unique<CohortCudaDevice>();
  created->index = index;
  const CohortCudaError error = Initialize(created.get());
  if (error.code != kCohortCudaOk) {
    *device = nullptr;
    DeviceDestroy(created.release());
    return error;
  }
  *device = created.release();
  return error;
}

void DeviceDestroy(CohortCudaDevice* device) noexcept {
  const std::unique_ptr<CohortCudaDevice> owner(device);
  Activate(device);
  if (device->stream != nullptr) {
    cudaStreamSynchronize(device->stream);
  }
  if (device->blas != nullptr) {
    cublasLtDestroy(device->blas);
  }
  device->sampling.reset();
  cudaFree(device->attention_workspace);
  cudaFree(device->workspace);
  cudaFree(device->stream_arrivals);
  for (void* buffer : device->free_peer_buffers) {
    cudaFree(buffer);
  }
  device->progress.Destroy();
  if (device->stream != nullptr) {
    cudaStreamDestroy(device->stream);
  }
}

CohortCudaError MemoryAllocate(CohortCudaDevice* device, uint64_t bytes, void** memory) noexcept {
  *memory = nullptr;
  Activate(device);
  const cudaError_t result = cudaMalloc(memory, bytes);
  if (result == cudaErrorMemoryAllocation) {
    cudaGetLastError();  // as in FromCuda
    std::size_t free_bytes = 0;
    std::size_t total_bytes = 0;
    cudaMemGetInfo(&free_bytes, &total_bytes);
    return MakeError(kCohortCudaOutOfMemory,
                     "cuda:%d cannot allocate %" PRIu64 " bytes (%zu of %zu are free)",
                     device->index, bytes, free_bytes, total_bytes);
  }
  return FromCuda(result, "cudaMalloc");
}

void MemoryFree(int32_t index, void* memory) noexcept {
  // An error here repeats one that the device has reported; a destructor has nobody to tell.
  if (cudaSetDevice(index) == cudaSuccess) {
    cudaFree(memory);
  }
}

void CopyFromHost(CohortCudaDevice* device, const void* source, void* destination,
                  uint64_t bytes) noexcept {
  if (bytes == 0) {
    return;
  }
  Activate(device);
  cudaError_t result =
      cudaMemcpyAsync(destination, source, bytes, cudaMemcpyHostToDevice, device->stream);
  // Pageable memory has been read when the call returns; pinned memory only when the copy is done.
  cudaPointerAttributes attributes{};
  if (result == cudaSuccess) {
    result = cudaPointerGetAttributes(&attributes, source);
  }
  if (result == cudaSuccess && attributes.type != cudaMemoryTypeUnregistered) {
    result = cudaStreamSynchronize(device->stream);
  }
  if (result != cudaSuccess) {
    Stick(device, FromCuda(result, "copy from host"));
  }
}

void CopyToHost(CohortCudaDevice* device, const void* source, void* destination,
                uint64_t bytes) noexcept {
  if (bytes == 0) {
    return;
  }
  Activate(device);
  cudaError_t result =
      cudaMemcpyAsync(destination, source, bytes, cudaMemcpyDeviceToHost, device->stream);
  if (result == cudaSuccess) {
    MarkProgress(device);
    result = cudaStreamSynchronize(device->stream);
  }
  if (result != cudaSuccess) {
    Stick(device, FromCuda(result, "copy to host"));
  }
}

CohortCudaError Synchronize(CohortCudaDevice* device) noexcept {
  Activate(device);
  MarkProgress(device);
  if (const cudaError_t result = cudaStreamSynchronize(device->stream); result != cudaSuccess) {
    Stick(device, FromCuda(result, "cudaStreamSynchronize"));
  }
  return std::exchange(device->first_error, Ok());
}

}  // namespace cohort::cuda
