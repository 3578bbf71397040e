// Launches. The seed of a launch comes from COHORT_EMULATOR_SEED and the number of launches before
// it on the same host thread, so that runs are alike and launches are not.
#include "cuda_emulator/launch.h"

#include <algorithm>
#include <cstdio>
#include <unordered_map>

#include "architecture.h"
#include "block.h"
#include "runtime.h"

namespace cuda_emulator {
namespace {

constexpr std::size_t kPlainSharedBytes = std::size_t{48} << 10;

std::mutex limits_mutex;
std::unordered_map<const void*, std::size_t> shared_limits;

std::size_t SharedLimit(const void* kernel) {
  const std::lock_guard<std::mutex> lock(limits_mutex);
  const auto found = shared_limits.find(kernel);
  return found == shared_limits.end() ? kPlainSharedBytes : found->second;
}

uint64_t NextSeed() {
  static const auto seed = static_cast<uint64_t>(Setting("COHORT_EMULATOR_SEED", 0));
  thread_local uint64_t launches = 0;
  return seed * 0x9e3779b97f4a7c15u + ++launches;
}

// How many blocks a multiprocessor holds, by threads and shared memory alone.
int BlocksPerMultiprocessor(uint64_t threads, std::size_t shared_bytes) {
  const Architecture& architecture = TheArchitecture();
  const uint64_t by_threads = static_cast<uint64_t>(architecture.threads_of_multiprocessor) /
                              std::max<uint64_t>(threads, 1);
  const uint64_t by_shared =
      static_cast<uint64_t>(architecture.shared_bytes_of_multiprocessor) / (shared_bytes + 1024);
  return static_cast<int>(std::min(
      {by_threads, by_shared, static_cast<uint64_t>(architecture.blocks_of_multiprocessor)}));
}

uint64_t ThreadsOf(const Grid& grid) {
  return uint64_t{grid.block.x} * grid.block.y * grid.block.z;
}

uint64_t ResidentBlocks(const Grid& grid) {
  int multiprocessors = 0;
  cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, CurrentDevice());
  return static_cast<uint64_t>(BlocksPerMultiprocessor(ThreadsOf(grid), grid.shared_bytes)) *
         static_cast<uint64_t>(multiprocessors);
}

cudaError_t Check(const Grid& grid) {
  const uint64_t threads = ThreadsOf(grid);
  const uint64_t blocks = uint64_t{grid.grid.x} * grid.grid.y * grid.grid.z;
  if (threads == 0 || threads > 1024 || grid.block.z > 64 || blocks == 0 ||
      grid.grid.x > 0x7fffffffu || grid.grid.y > 65535 || grid.grid.z > 65535) {
    return cudaErrorInvalidConfiguration;
  }
  if (grid.shared_bytes > SharedLimit(grid.kernel)) {
    return cudaErrorInvalidValue;
  }
  return grid.is_cooperative && blocks > grid.resident_blocks ? cudaErrorCooperativeLaunchTooLarge
                                                              : cudaSuccess;
}

std::shared_ptr<Grid> Copy(const Grid& from) {
  auto grid = std::make_shared<Grid>();
  grid->kernel = from.kernel;
  grid->grid = from.grid;
  grid->block = from.block;
  grid->shared_bytes = from.shared_bytes;
  grid->is_cooperative = from.is_cooperative;
  grid->is_programmatic = from.is_programmatic;
  grid->resident_blocks = from.resident_blocks;
  grid->call = from.call;
  return grid;
}

}  // namespace

cudaError_t LaunchKernel(const cudaLaunchConfig_t& config, const void* kernel,
                         std::function<void()> call) {
  auto grid = std::make_shared<Grid>();
  grid->kernel = kernel;
  grid->grid = config.gridDim;
  grid->block = config.blockDim;
  grid->shared_bytes = config.dynamicSmemBytes;
  grid->call = std::move(call);
  for (unsigned i = 0; i < config.numAttrs; ++i) {
    const cudaLaunchAttribute& attribute = config.attrs[i];
    switch (attribute.id) {
      case cudaLaunchAttributeCooperative:
        grid->is_cooperative = attribute.val.cooperative != 0;
        break;
      case cudaLaunchAttributeProgrammaticStreamSerialization:
        grid->is_programmatic = attribute.val.programmaticStreamSerializationAllowed != 0;
        break;
      default:
        std::fprintf(stderr, "emulated GPU: launch attribute %d is not emulated\n",
                     static_cast<int>(attribute.id));
        return Return(cudaErrorNotSupported);
    }
  }
  grid->resident_blocks = ResidentBlocks(*grid);
  if (const cudaError_t result = Check(*grid); result != cudaSuccess) {
    return Return(result);
  }
  // A graph runs it many times: each run has a grid of its own.
  return Return(Enqueue(config.stream, {cudaGraphNodeTypeKernel, grid->is_programmatic, [grid] {
                                          const std::shared_ptr<Grid> run = Copy(*grid);
                                          run->seed = NextSeed();
                                          return RunGrid(run.get()) ? cudaSuccess
                                                                    : cudaErrorLaunchFailure;
                                        }}));
}

}  // namespace cuda_emulator

extern "C" {

cudaError_t cudaFuncSetAttribute(const void* kernel, cudaFuncAttribute attribute, int value) {
  if (attribute == cudaFuncAttributeMaxDynamicSharedMemorySize) {
    if (value < 0 || value > cuda_emulator::TheArchitecture().shared_bytes_of_block) {
      return cuda_emulator::Return(cudaErrorInvalidValue);
    }
    const std::lock_guard<std::mutex> lock(cuda_emulator::limits_mutex);
    cuda_emulator::shared_limits[kernel] = static_cast<std::size_t>(value);
  }
  return cudaSuccess;
}

cudaError_t cudaFuncGetAttributes(cudaFuncAttributes* attributes, const void* kernel) {
  *attributes = {};
  if (cuda_emulator::CompiledFor() > cuda_emulator::TheArchitecture().compute) {
    return cuda_emulator::Return(cudaErrorNoKernelImageForDevice);
  }
  attributes->maxThreadsPerBlock = 1024;
  attributes->numRegs = 32;
  attributes->maxDynamicSharedSizeBytes = static_cast<int>(cuda_emulator::SharedLimit(kernel));
  return cudaSuccess;
}

cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks, const void*, int threads,
                                                          size_t shared_bytes) {
  *blocks = cuda_emulator::BlocksPerMultiprocessor(static_cast<uint64_t>(threads), shared_bytes);
  return cudaSuccess;
}

}  // extern "C"
