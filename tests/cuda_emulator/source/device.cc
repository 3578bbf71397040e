// The pretend GPUs, and the small change of the runtime.
//   COHORT_EMULATOR_DEVICES     how many, 2 if not given
//   COHORT_EMULATOR_MEMORY_MIB  of each, 2048 if not given
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <utility>

#include "architecture.h"
#include "runtime.h"

namespace cuda_emulator {
namespace {

constexpr int kMaxDevices = 64;
constexpr int kMultiprocessors = 16;

thread_local int current_device = 0;
thread_local cudaError_t last_error = cudaSuccess;

struct AttributeValue {
  cudaDeviceAttr attribute;
  int value;
};
const AttributeValue kAttributes[] = {
    {cudaDevAttrComputeCapabilityMajor, TheArchitecture().compute / 10},
    {cudaDevAttrComputeCapabilityMinor, TheArchitecture().compute % 10},
    {cudaDevAttrMultiProcessorCount, kMultiprocessors},
    {cudaDevAttrWarpSize, 32},
    {cudaDevAttrMaxThreadsPerBlock, 1024},
    {cudaDevAttrMaxThreadsPerMultiProcessor, TheArchitecture().threads_of_multiprocessor},
    {cudaDevAttrMaxSharedMemoryPerBlock, 48 << 10},
    {cudaDevAttrMaxSharedMemoryPerBlockOptin, TheArchitecture().shared_bytes_of_block},
    {cudaDevAttrMaxSharedMemoryPerMultiprocessor, TheArchitecture().shared_bytes_of_multiprocessor},
    {cudaDevAttrReservedSharedMemoryPerBlock, 1 << 10},
    {cudaDevAttrMaxRegistersPerMultiprocessor, 64 << 10},
    {cudaDevAttrL2CacheSize, 50 << 20},
    {cudaDevAttrCooperativeLaunch, 1},
    {cudaDevAttrUnifiedAddressing, 1},
    {cudaDevAttrCanMapHostMemory, 1},
    {cudaDevAttrHostRegisterSupported, 1},
    {cudaDevAttrHostRegisterReadOnlySupported, 1},
    {cudaDevAttrHostNumaId, 0},
    {cudaDevAttrConcurrentKernels, 1},
};

}  // namespace

int64_t Setting(const char* name, int64_t otherwise) {
  const char* value = std::getenv(name);
  return value == nullptr ? otherwise : std::strtoll(value, nullptr, 10);
}

int DeviceCount() {
  static const int count =
      static_cast<int>(std::clamp<int64_t>(Setting("COHORT_EMULATOR_DEVICES", 2), 0, kMaxDevices));
  return count;
}

// Never destroyed: streams of the program may outlive static objects.
Device& DeviceOf(int index) {
  static Device* const devices = [] {
    auto* made = new Device[kMaxDevices];
    for (int i = 0; i < kMaxDevices; ++i) {
      made[i].index = i;
      made[i].total_bytes = static_cast<uint64_t>(Setting("COHORT_EMULATOR_MEMORY_MIB", 2048))
                            << 20;
    }
    return made;
  }();
  return devices[index];
}

int CurrentDevice() { return current_device; }

cudaError_t Return(cudaError_t error) {
  if (error != cudaSuccess) {
    last_error = error;
  }
  return error;
}

}  // namespace cuda_emulator

using cuda_emulator::Return;

extern "C" {

cudaError_t cudaGetDeviceCount(int* count) {
  if (cuda_emulator::DeviceCount() == 0) {
    return Return(cudaErrorNoDevice);
  }
  *count = cuda_emulator::DeviceCount();
  return cudaSuccess;
}

cudaError_t cudaSetDevice(int device) {
  if (device < 0 || device >= cuda_emulator::DeviceCount()) {
    return Return(cudaErrorInvalidDevice);
  }
  cuda_emulator::current_device = device;
  return Return(cuda_emulator::DeviceOf(device).lost);
}

cudaError_t cudaGetDevice(int* device) {
  *device = cuda_emulator::current_device;
  return cudaSuccess;
}

cudaError_t cudaDeviceSynchronize() {
  if (cuda_emulator::IsForbiddenByCapture()) {
    return Return(cudaErrorStreamCaptureUnsupported);
  }
  return Return(cuda_emulator::SynchronizeDevice(cuda_emulator::current_device));
}

// What was lost is well again; memory and streams stay.
cudaError_t cudaDeviceReset() {
  cuda_emulator::DeviceOf(cuda_emulator::current_device).lost = cudaSuccess;
  cuda_emulator::last_error = cudaSuccess;
  return cudaSuccess;
}

cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int device) {
  if (device < 0 || device >= cuda_emulator::DeviceCount()) {
    return Return(cudaErrorInvalidDevice);
  }
  *properties = {};
  std::snprintf(properties->name, sizeof(properties->name), "Emulated GPU");
  properties->totalGlobalMem = cuda_emulator::DeviceOf(device).total_bytes;
  properties->major = cuda_emulator::TheArchitecture().compute / 10;
  properties->minor = cuda_emulator::TheArchitecture().compute % 10;
  properties->multiProcessorCount = cuda_emulator::kMultiprocessors;
  properties->warpSize = 32;
  properties->maxThreadsPerBlock = 1024;
  properties->sharedMemPerBlock = 48 << 10;
  properties->sharedMemPerBlockOptin =
      static_cast<size_t>(cuda_emulator::TheArchitecture().shared_bytes_of_block);
  properties->l2CacheSize = 50 << 20;
  properties->pciBusID = device;
  return cudaSuccess;
}

cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int device) {
  if (device < 0 || device >= cuda_emulator::DeviceCount()) {
    return Return(cudaErrorInvalidDevice);
  }
  const auto found =
      std::find_if(std::begin(cuda_emulator::kAttributes), std::end(cuda_emulator::kAttributes),
                   [&](const auto& known) { return known.attribute == attribute; });
  if (found == std::end(cuda_emulator::kAttributes)) {
    std::fprintf(stderr, "emulated GPU: cudaDeviceGetAttribute of %d is not emulated\n",
                 static_cast<int>(attribute));
    return Return(cudaErrorInvalidValue);
  }
  *value = found->value;
  return cudaSuccess;
}

cudaError_t cudaDeviceGetPCIBusId(char* text, int bytes, int device) {
  std::snprintf(text, static_cast<size_t>(bytes), "0000:%02x:00.0", device);
  return cudaSuccess;
}

cudaError_t cudaDeviceCanAccessPeer(int* can, int device, int peer) {
  *can = device != peer;
  return cudaSuccess;
}

cudaError_t cudaDeviceEnablePeerAccess(int, unsigned) { return cudaSuccess; }

cudaError_t cudaDriverGetVersion(int* version) {
  *version = CUDART_VERSION;
  return cudaSuccess;
}

cudaError_t cudaRuntimeGetVersion(int* version) {
  *version = CUDART_VERSION;
  return cudaSuccess;
}

cudaError_t cudaGetLastError() { return std::exchange(cuda_emulator::last_error, cudaSuccess); }

cudaError_t cudaPeekAtLastError() { return cuda_emulator::last_error; }

const char* cudaGetErrorName(cudaError_t error) {
  switch (error) {
    case cudaSuccess:
      return "cudaSuccess";
    case cudaErrorInvalidValue:
      return "cudaErrorInvalidValue";
    case cudaErrorMemoryAllocation:
      return "cudaErrorMemoryAllocation";
    case cudaErrorInvalidConfiguration:
      return "cudaErrorInvalidConfiguration";
    case cudaErrorInvalidDevice:
      return "cudaErrorInvalidDevice";
    case cudaErrorNoDevice:
      return "cudaErrorNoDevice";
    case cudaErrorNotReady:
      return "cudaErrorNotReady";
    case cudaErrorLaunchFailure:
      return "cudaErrorLaunchFailure";
    case cudaErrorCooperativeLaunchTooLarge:
      return "cudaErrorCooperativeLaunchTooLarge";
    case cudaErrorStreamCaptureUnsupported:
      return "cudaErrorStreamCaptureUnsupported";
    case cudaErrorStreamCaptureInvalidated:
      return "cudaErrorStreamCaptureInvalidated";
    default: {
      thread_local char text[32];
      std::snprintf(text, sizeof(text), "cudaError %d", static_cast<int>(error));
      return text;
    }
  }
}

const char* cudaGetErrorString(cudaError_t error) {
  switch (error) {
    case cudaSuccess:
      return "no error";
    case cudaErrorMemoryAllocation:
      return "out of memory";
    case cudaErrorNoDevice:
      return "no CUDA-capable device is detected";
    case cudaErrorLaunchFailure:
      return "unspecified launch failure";
    default:
      return "an error of the emulated GPU";
  }
}

}  // extern "C"
