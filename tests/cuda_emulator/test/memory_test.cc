// Memory, asynchronous copies, fragments of the matrix instructions, graphs.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <random>

#include "harness.h"
#include "kernels/cuda/ptx.cuh"

namespace cohort::emulator_test {
namespace {

using namespace cohort::cuda;

void ReadSharedKernel(float* out, bool is_first) {
  __shared__ float of_block[32];
  if (is_first) {
    of_block[threadIdx.x] = 1;
  }
  out[threadIdx.x] = of_block[threadIdx.x];
  out[32 + threadIdx.x] = reinterpret_cast<const float*>(DynamicShared())[threadIdx.x];
}

TEST(Emulator, MemoryStartsAsNan) {
  for (const std::size_t count : {std::size_t{7}, std::size_t{100000}, std::size_t{5000000}}) {
    const std::vector<float> read = DeviceArray<float>(count).Read();
    EXPECT_TRUE(std::all_of(read.begin(), read.end(), [](float x) { return std::isnan(x); }));
  }
  const DeviceArray<float> out(std::vector<float>(64, 0));
  for (const bool is_first : {true, false}) {
    ASSERT_EQ(RunKernel(1, 32, 128, ReadSharedKernel, out.data(), is_first), cudaSuccess);
  }
  const std::vector<float> read = out.Read();
  EXPECT_TRUE(std::all_of(read.begin(), read.end(), [](float x) { return std::isnan(x); }));
}

TEST(Emulator, RefusesCopiesBeyondAnAllocation) {
  const DeviceArray<float> array(10);
  std::vector<float> host(11);
  EXPECT_EQ(cudaMemcpy(array.data(), host.data(), 44, cudaMemcpyHostToDevice),
            cudaErrorInvalidValue);
  EXPECT_EQ(cudaMemcpy(host.data(), host.data(), 4, cudaMemcpyHostToDevice), cudaErrorInvalidValue);
}

template <bool kWaits>
void CopyAsyncKernel(const uint4* in, uint4* out) {
  auto* shared = reinterpret_cast<uint4*>(DynamicShared());
  CopyAsync16(&shared[threadIdx.x], &in[threadIdx.x], true);
  CopyAsyncCommit();
  CopyAsync16(&shared[32 + threadIdx.x], &in[threadIdx.x], threadIdx.x < 16);
  CopyAsyncCommit();
  if (kWaits) {
    CopyAsyncWait<1>();
  }
  out[threadIdx.x] = shared[threadIdx.x];
  CopyAsyncWait<0>();
  out[32 + threadIdx.x] = shared[32 + threadIdx.x];
}

template <bool kWaits>
void BulkCopyKernel(const uint4* in, uint4* out) {
  __shared__ uint64_t barrier;
  auto* shared = reinterpret_cast<uint4*>(DynamicShared());
  if (threadIdx.x == 0) {
    BarrierInit(&barrier, 1);
    BarrierInitFence();
  }
  __syncthreads();
  for (uint32_t round = 0; round < 2; ++round) {
    if (threadIdx.x == 0) {
      BarrierArriveExpect(&barrier, 512);
      BulkCopy(shared, in, 256, &barrier);
      BulkCopyStreaming(shared + 16, in + 16, 256, &barrier);
    }
    if (kWaits) {
      BarrierWait(&barrier, round & 1);
    }
    out[32 * round + threadIdx.x] = shared[threadIdx.x];
    BarrierWait(&barrier, round & 1);
    __syncthreads();
  }
}

std::vector<uint4> Words() {
  std::vector<uint4> words(32);
  for (unsigned i = 0; i < 32; ++i) {
    words[i] = {i, 2 * i, 3 * i, 4 * i + 1};
  }
  return words;
}

bool IsSame(const std::vector<uint4>& a, const std::vector<uint4>& b) {
  return std::memcmp(a.data(), b.data(), a.size() * sizeof(uint4)) == 0;
}

// Whether `right` always gives `expected` and `wrong`, which lacks a wait, not always.
void ExpectWaitMatters(void (*right)(const uint4*, uint4*), void (*wrong)(const uint4*, uint4*),
                       const std::vector<uint4>& expected) {
  const DeviceArray<uint4> in(Words());
  const DeviceArray<uint4> out(64);
  bool is_always_right = true;
  for (int i = 0; i < kTries; ++i) {
    ASSERT_EQ(RunKernel(1, 32, 1024, right, in.data(), out.data()), cudaSuccess);
    ASSERT_TRUE(IsSame(out.Read(), expected));
    ASSERT_EQ(RunKernel(1, 32, 1024, wrong, in.data(), out.data()), cudaSuccess);
    is_always_right = IsSame(out.Read(), expected) && is_always_right;
  }
  EXPECT_FALSE(is_always_right);
}

TEST(Emulator, AMissingWaitForAsynchronousCopiesShows) {
  std::vector<uint4> expected = Words();
  const std::vector<uint4> again = Words();
  expected.insert(expected.end(), again.begin(), again.begin() + 16);
  expected.resize(64);
  ExpectWaitMatters(CopyAsyncKernel<true>, CopyAsyncKernel<false>, expected);
}

TEST(Emulator, AMissingWaitForBulkCopiesShows) {
  std::vector<uint4> expected = Words();
  const std::vector<uint4> again = Words();
  expected.insert(expected.end(), again.begin(), again.end());
  ExpectWaitMatters(BulkCopyKernel<true>, BulkCopyKernel<false>, expected);
}

void MisalignedKernel(const char* in) { CopyAsync16(DynamicShared(), in + 8, true); }
void BarrierMisuseKernel() { BarrierArrive(reinterpret_cast<uint64_t*>(DynamicShared())); }

TEST(Emulator, RefusesMisusedCopies) {
  const DeviceArray<char> in(64);
  EXPECT_EQ(RunKernel(1, 1, 64, MisalignedKernel, in.data()), cudaErrorLaunchFailure);
  EXPECT_EQ(RunKernel(1, 1, 64, BarrierMisuseKernel), cudaErrorLaunchFailure);
}

// --- Matrix instructions, by the element-wise definitions of the PTX manual ---

uint16_t Bf16(float value) {  // exact for the small integers here
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof(bits));
  return static_cast<uint16_t>(bits >> 16);
}

// a [16][16] by rows and b [8][16] by columns lie in shared memory as ldmatrix wants them.
void MmaKernel(const uint16_t* a, const uint16_t* b, float* d) {
  alignas(16) __shared__ uint16_t rows[16 * 16];
  alignas(16) __shared__ uint16_t columns[8 * 16];
  const unsigned lane = threadIdx.x;
  for (unsigned i = lane; i < 256; i += 32) {
    rows[i] = a[i];
  }
  for (unsigned i = lane; i < 128; i += 32) {
    columns[i] = b[i];
  }
  __syncwarp();
  uint32_t left[4];
  uint32_t right[2];
  float sums[4] = {1, 2, 3, 4};
  LoadMatrix4(left, &rows[lane % 16 * 16 + lane / 16 * 8]);
  LoadMatrix2(right, &columns[lane % 8 * 16 + lane / 8 % 2 * 8]);
  MmaBf16(sums, left, right);
  for (unsigned i = 0; i < 4; ++i) {
    d[(lane / 4 + 8 * (i / 2)) * 8 + lane % 4 * 2 + i % 2] = sums[i];
  }
}

TEST(Emulator, MmaIsTheProductOfItsFragments) {
  std::mt19937 random(1);
  std::vector<uint16_t> a(256);
  std::vector<uint16_t> b(128);
  std::generate(a.begin(), a.end(), [&] { return Bf16(static_cast<float>(random() % 17) - 8); });
  std::generate(b.begin(), b.end(), [&] { return Bf16(static_cast<float>(random() % 17) - 8); });
  const DeviceArray<uint16_t> left(a);
  const DeviceArray<uint16_t> right(b);
  const DeviceArray<float> out(128);
  ASSERT_EQ(RunKernel(1, 32, 0, MmaKernel, left.data(), right.data(), out.data()), cudaSuccess);
  const std::vector<float> d = out.Read();
  const auto value = [](uint16_t bits) {
    const uint32_t wide = uint32_t{bits} << 16;
    float x;
    std::memcpy(&x, &wide, sizeof(x));
    return x;
  };
  for (std::size_t row = 0; row < 16; ++row) {
    for (std::size_t column = 0; column < 8; ++column) {
      float sum = static_cast<float>(1 + 2 * (row / 8) + column % 2);
      for (std::size_t k = 0; k < 16; ++k) {
        sum += value(a[row * 16 + k]) * value(b[column * 16 + k]);
      }
      EXPECT_EQ(d[row * 8 + column], sum) << row << " " << column;
    }
  }
}

// Loads an 8x8 matrix plainly and transposed, and transposes it in registers.
void TransposeKernel(uint32_t* out) {
  alignas(16) __shared__ uint16_t matrix[64];
  const unsigned lane = threadIdx.x;
  matrix[lane] = static_cast<uint16_t>(lane);
  matrix[32 + lane] = static_cast<uint16_t>(32 + lane);
  __syncwarp();
  uint32_t plain[2];
  uint32_t transposed[2];
  LoadMatrix2(plain, &matrix[lane % 8 * 8]);
  LoadMatrix2Transposed(transposed, &matrix[lane % 8 * 8]);
  out[lane] = plain[1];
  out[32 + lane] = transposed[1];
  out[64 + lane] = TransposeMatrix(plain[0]);
}

TEST(Emulator, MatricesLoadAndTurn) {
  const DeviceArray<uint32_t> out(96);
  ASSERT_EQ(RunKernel(1, 32, 0, TransposeKernel, out.data()), cudaSuccess);
  const std::vector<uint32_t> read = out.Read();
  for (uint32_t lane = 0; lane < 32; ++lane) {
    const uint32_t row = lane / 4;
    const uint32_t column = lane % 4 * 2;
    EXPECT_EQ(read[lane], (row * 8 + column) | (row * 8 + column + 1) << 16);
    EXPECT_EQ(read[32 + lane], (column * 8 + row) | ((column + 1) * 8 + row) << 16);
    EXPECT_EQ(read[64 + lane], read[32 + lane]);
  }
}

// --- Graphs ---

void AddKernel(int* value, const int* addend) { *value += *addend; }

TEST(Emulator, AGraphReadsDeviceMemoryAnew) {
  const DeviceArray<int> value(std::vector<int>{0});
  const DeviceArray<int> addend(std::vector<int>{1});
  cudaStream_t stream = nullptr;
  ASSERT_EQ(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), cudaSuccess);
  cudaLaunchConfig_t config{};
  config.gridDim = 1;
  config.blockDim = 1;
  config.stream = stream;
  ASSERT_EQ(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal), cudaSuccess);
  ASSERT_EQ(cudaLaunchKernelEx(&config, AddKernel, value.data(), addend.data()), cudaSuccess);
  cudaGraph_t graph = nullptr;
  ASSERT_EQ(cudaStreamEndCapture(stream, &graph), cudaSuccess);
  cudaGraphExec_t exec = nullptr;
  ASSERT_EQ(cudaGraphInstantiate(&exec, graph, 0), cudaSuccess);
  EXPECT_EQ(value.Read(), std::vector<int>{0});
  for (const int by : {5, 7}) {
    ASSERT_EQ(cudaMemcpy(addend.data(), &by, sizeof(by), cudaMemcpyHostToDevice), cudaSuccess);
    ASSERT_EQ(cudaGraphLaunch(exec, stream), cudaSuccess);
    ASSERT_EQ(cudaStreamSynchronize(stream), cudaSuccess);
  }
  EXPECT_EQ(value.Read(), std::vector<int>{12});
  cudaGraphExecDestroy(exec);
  cudaGraphDestroy(graph);
  cudaStreamDestroy(stream);
}

TEST(Emulator, ACaptureRefusesToWaitAndToAllocate) {
  cudaStream_t stream = nullptr;
  ASSERT_EQ(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), cudaSuccess);
  ASSERT_EQ(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal), cudaSuccess);
  void* memory = nullptr;
  EXPECT_EQ(cudaMalloc(&memory, 16), cudaErrorStreamCaptureUnsupported);
  EXPECT_EQ(cudaStreamSynchronize(stream), cudaErrorStreamCaptureUnsupported);
  cudaGraph_t graph = nullptr;
  EXPECT_EQ(cudaStreamEndCapture(stream, &graph), cudaErrorStreamCaptureInvalidated);
  EXPECT_EQ(cudaStreamDestroy(stream), cudaSuccess);
}

}  // namespace
}  // namespace cohort::emulator_test
