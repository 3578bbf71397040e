// Threads, barriers and warps: what is right runs, what is wrong shows.
#include <algorithm>
#include <numeric>

#include "harness.h"
#include "kernels/cuda/ptx.cuh"

namespace cohort::emulator_test {
namespace {

using cohort::cuda::LoadAcquire;
using cohort::cuda::StoreRelease;
using cohort::cuda::WaitForPredecessor;

void CountKernel(unsigned* counts) {
  const unsigned block = (blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x;
  const unsigned thread = (threadIdx.z * blockDim.y + threadIdx.y) * blockDim.x + threadIdx.x;
  counts[block * blockDim.x * blockDim.y * blockDim.z + thread] = 1000 * block + thread;
}

TEST(Emulator, RunsEveryThreadOfEveryBlockOnce) {
  const DeviceArray<unsigned> counts(24 * 60);
  ASSERT_EQ(RunKernel(dim3(2, 3, 4), dim3(5, 6, 2), 0, CountKernel, counts.data()), cudaSuccess);
  const std::vector<unsigned> read = counts.Read();
  for (unsigned i = 0; i < read.size(); ++i) {
    EXPECT_EQ(read[i], i / 60 * 1000 + i % 60);
  }
}

template <bool kHasBarrier>
void NeighbourKernel(unsigned* out) {
  __shared__ unsigned values[128];
  values[threadIdx.x] = threadIdx.x;
  if (kHasBarrier) {
    __syncthreads();
  }
  out[threadIdx.x] = values[(threadIdx.x + 37) % 128];
}

template <bool kHasBarrier>
bool IsRight() {
  const DeviceArray<unsigned> out(128);
  EXPECT_EQ(RunKernel(1, 128, 0, NeighbourKernel<kHasBarrier>, out.data()), cudaSuccess);
  const std::vector<unsigned> read = out.Read();
  return std::all_of(read.begin(), read.end(), [&](const unsigned& value) {
    return value == (static_cast<unsigned>(&value - read.data()) + 37) % 128;
  });
}

TEST(Emulator, AMissingBarrierShows) {
  bool is_always_right = true;
  for (int i = 0; i < kTries; ++i) {
    ASSERT_TRUE(IsRight<true>());
    is_always_right = IsRight<false>() && is_always_right;
  }
  EXPECT_FALSE(is_always_right);
}

void VoteKernel(int* out) {
  const int lane = static_cast<int>(threadIdx.x);
  out[lane] = __syncthreads_count(lane % 3 == 0);
  out[64 + lane] = __syncthreads_or(lane == 50) + 2 * __syncthreads_and(lane < 64);
}

TEST(Emulator, BarriersVote) {
  const DeviceArray<int> out(128);
  ASSERT_EQ(RunKernel(1, 64, 0, VoteKernel, out.data()), cudaSuccess);
  const std::vector<int> read = out.Read();
  EXPECT_TRUE(std::all_of(read.begin(), read.begin() + 64, [](int v) { return v == 22; }));
  EXPECT_TRUE(std::all_of(read.begin() + 64, read.end(), [](int v) { return v == 3; }));
}

void ShuffleKernel(int* out) {
  const int lane = static_cast<int>(threadIdx.x);
  const unsigned all = 0xffffffffu;
  out[lane] = __shfl_xor_sync(all, lane, 5);
  out[32 + lane] = __shfl_down_sync(all, lane, 3, 8);
  out[64 + lane] = __shfl_up_sync(all, lane, 3u);
  out[96 + lane] = __shfl_sync(all, lane, 9, 8);
  out[128 + lane] = __reduce_add_sync(all, lane);
  out[160 + lane] = static_cast<int>(__ballot_sync(all, lane % 2));
  // Halves of a warp on their own.
  out[192 + lane] = __reduce_max_sync(lane < 16 ? 0xffffu : 0xffff0000u, -lane);
}

TEST(Emulator, LanesExchange) {
  const DeviceArray<int> out(224);
  for (int i = 0; i < kTries; ++i) {
    ASSERT_EQ(RunKernel(1, 32, 0, ShuffleKernel, out.data()), cudaSuccess);
    const std::vector<int> read = out.Read();
    for (int lane = 0; lane < 32; ++lane) {
      const auto at = [&](int row) { return read[static_cast<std::size_t>(32 * row + lane)]; };
      EXPECT_EQ(at(0), lane ^ 5);
      EXPECT_EQ(at(1), lane % 8 < 5 ? lane + 3 : lane);
      EXPECT_EQ(at(2), lane < 3 ? lane : lane - 3);
      EXPECT_EQ(at(3), lane / 8 * 8 + 1);
      EXPECT_EQ(at(4), 31 * 32 / 2);
      EXPECT_EQ(at(5), static_cast<int>(0xaaaaaaaau));
      EXPECT_EQ(at(6), lane < 16 ? 0 : -16);
    }
  }
}

// --- What must be refused: each loses the device ---

void SkippedNamedBarrierKernel() {
  if (threadIdx.x != 7) {
    cohort::cuda::NamedBarrier(1, 64);
  }
}
void DifferentBarriersKernel() {
  if (threadIdx.x < 32) {
    __syncthreads();
  } else {
    __syncthreads();
  }
}
void EndedLanesKernel() {
  if (threadIdx.x != 3) {
    __syncwarp();
  }
}
void ForeignMaskKernel() { __syncwarp(1); }
void NoWaitKernel() {
  if (threadIdx.x != 0) {
    WaitForPredecessor();
  }
}

TEST(Emulator, ReportsWhatCannotGoOn) {
  EXPECT_EQ(RunKernel(1, 64, 0, SkippedNamedBarrierKernel), cudaErrorLaunchFailure);
  EXPECT_EQ(RunKernel(1, 64, 0, DifferentBarriersKernel), cudaErrorLaunchFailure);
  EXPECT_EQ(RunKernel(1, 32, 0, EndedLanesKernel), cudaErrorLaunchFailure);
  EXPECT_EQ(RunKernel(1, 32, 0, ForeignMaskKernel), cudaErrorLaunchFailure);
}

TEST(Emulator, EveryThreadOfAProgrammaticLaunchWaits) {
  cudaLaunchAttribute attribute{};
  attribute.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  attribute.val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t config{};
  config.gridDim = 1;
  config.blockDim = 32;
  config.attrs = &attribute;
  config.numAttrs = 1;
  ASSERT_EQ(cudaLaunchKernelEx(&config, NoWaitKernel), cudaSuccess);
  EXPECT_EQ(cudaStreamSynchronize(nullptr), cudaErrorLaunchFailure);
  cudaDeviceReset();
}

TEST(Emulator, RefusesLaunchesThatDoNotFit) {
  EXPECT_EQ(RunKernel(1, 1025, 0, ForeignMaskKernel), cudaErrorInvalidConfiguration);
  EXPECT_EQ(RunKernel(dim3(1, 65536), 1, 0, ForeignMaskKernel), cudaErrorInvalidConfiguration);
  EXPECT_EQ(RunKernel(1, 32, 49 << 10, ForeignMaskKernel), cudaErrorInvalidValue);
}

// Every block waits for the one after it.
void ChainKernel(uint32_t* flags) {
  if (threadIdx.x == 0) {
    if (blockIdx.x + 1 < gridDim.x) {
      while (LoadAcquire(&flags[blockIdx.x + 1]) != 1) {
      }
    }
    StoreRelease(&flags[blockIdx.x], 1);
  }
}

TEST(Emulator, BlocksWaitForEachOther) {
  const DeviceArray<uint32_t> flags(std::vector<uint32_t>(12, 0));
  ASSERT_EQ(RunKernel(12, 64, 0, ChainKernel, flags.data()), cudaSuccess);
  EXPECT_EQ(flags.Read(), std::vector<uint32_t>(12, 1));
}

void AtomicKernel(unsigned* sum, unsigned* largest) {
  atomicAdd(sum, threadIdx.x);
  atomicMax(largest, threadIdx.x);
}

TEST(Emulator, AtomicsAddUp) {
  const DeviceArray<unsigned> sums(std::vector<unsigned>(2, 0));
  ASSERT_EQ(RunKernel(3, 100, 0, AtomicKernel, sums.data(), sums.data() + 1), cudaSuccess);
  EXPECT_EQ(sums.Read(), (std::vector<unsigned>{3 * 4950, 99}));
}

}  // namespace
}  // namespace cohort::emulator_test
