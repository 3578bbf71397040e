// What GPUs know of each other: all reach each other's memory, as over NVLink. How processes share
// it stands in memory.cc.
#include <cstdio>
#include <cstring>

#include "runtime.h"

extern "C" {

cudaError_t cudaDeviceGetByPCIBusId(int* device, const char* text) {
  char known[16];
  for (int i = 0; i < cuda_emulator::DeviceCount(); ++i) {
    cudaDeviceGetPCIBusId(known, sizeof(known), i);
    if (std::strcmp(known, text) == 0) {
      *device = i;
      return cudaSuccess;
    }
  }
  return cuda_emulator::Return(cudaErrorInvalidDevice);
}

cudaError_t cudaDeviceGetP2PAttribute(int* value, cudaDeviceP2PAttr attribute, int device,
                                      int peer) {
  if (attribute != cudaDevP2PAttrAccessSupported &&
      attribute != cudaDevP2PAttrNativeAtomicSupported) {
    std::fprintf(stderr, "emulated GPU: cudaDeviceGetP2PAttribute of %d is not emulated\n",
                 static_cast<int>(attribute));
    return cuda_emulator::Return(cudaErrorInvalidValue);
  }
  *value = device != peer;
  return cudaSuccess;
}

}  // extern "C"
