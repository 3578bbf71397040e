// Products of a warpgroup: the numbers, and what must show when a kernel does not wait.
#include <cmath>
#include <cstring>
#include <random>

#include "harness.h"
#include "kernels/cuda/wgmma.cuh"

namespace cohort::emulator_test {
namespace {

using namespace cohort::cuda;

constexpr int kRows = 64;
constexpr int kDepth = 128;  // of the products: two tiles of 64, four steps each
constexpr int kTileRows = 256;
constexpr int kTileBytes = kTileRows * 128;
constexpr int kSharedBytes = 4 * kTileBytes + kMatrixSlack;

struct Operands {
  std::vector<uint16_t> a;  // [kRows, kDepth]
  std::vector<uint16_t> b;  // [columns, kDepth]
  std::vector<float> product;
};

float FromBits(uint16_t bits) {
  const uint32_t wide = uint32_t{bits} << 16;
  float value;
  std::memcpy(&value, &wide, sizeof(value));
  return value;
}

// Small whole numbers: every sum is exact.
Operands MakeOperands(int columns) {
  Operands made;
  std::mt19937 random(static_cast<unsigned>(columns));
  const auto draw = [&] {
    const float value = static_cast<float>(static_cast<int>(random() % 17) - 8);
    uint32_t bits;
    std::memcpy(&bits, &value, sizeof(bits));
    return static_cast<uint16_t>(bits >> 16);
  };
  for (int i = 0; i < kRows * kDepth; ++i) {
    made.a.push_back(draw());
  }
  for (int i = 0; i < columns * kDepth; ++i) {
    made.b.push_back(draw());
  }
  for (int row = 0; row < kRows; ++row) {
    for (int column = 0; column < columns; ++column) {
      float sum = 0;
      for (int k = 0; k < kDepth; ++k) {
        sum += FromBits(made.a[static_cast<std::size_t>(row * kDepth + k)]) *
               FromBits(made.b[static_cast<std::size_t>(column * kDepth + k)]);
      }
      made.product.push_back(sum);
    }
  }
  return made;
}

enum class Mistake {
  kNone,
  kNoWait,
  kEarlyOverwrite,
  kNoProxyFence,
  kNoFence,
  kNoCommit,
  kMisaligned,
  kOtherOperand,
  kOneWarpLess,
  kKeepBeforeWait,
};

// K-major: element (row, k) of a tile of two 64-wide halves, kTileBytes apart.
unsigned char* KMajor(unsigned char* tile, int row, int k) {
  return tile + k / 64 * kTileBytes + SwizzledOffset128(row, k % 64 * 2);
}

template <int kColumns, bool kBIsMnMajor>
void FillShared(const uint16_t* a, const uint16_t* b, unsigned char* to_a, unsigned char* to_b) {
  const int thread = static_cast<int>(threadIdx.x);
  for (int i = thread; i < kRows * kDepth; i += kWarpgroupThreads) {
    *reinterpret_cast<uint16_t*>(KMajor(to_a, i / kDepth, i % kDepth)) = a[i];
  }
  for (int i = thread; i < kColumns * kDepth; i += kWarpgroupThreads) {
    const int column = i / kDepth;
    const int k = i % kDepth;
    unsigned char* const to =
        kBIsMnMajor ? to_b + column / 64 * kDepth * 128 + SwizzledOffset128(k, column % 64 * 2)
                    : KMajor(to_b, column, k);
    *reinterpret_cast<uint16_t*>(to) = b[i];
  }
  FenceProxyAsync();
  __syncthreads();
}

template <int kColumns>
void Store(const float (&d)[kColumns / 2], float* out) {
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  for (int i = 0; i < kColumns / 2; ++i) {
    const int row = 16 * warp + lane / 4 + i / 2 % 2 * 8;
    out[row * kColumns + i / 4 * 8 + lane % 4 * 2 + i % 2] = d[i];
  }
}

template <bool kBIsMnMajor>
uint64_t OperandB(unsigned char* b, int k) {
  if (kBIsMnMajor) {
    return SharedMatrixMnMajor(b, kDepth * 128) + static_cast<uint64_t>(k / 16) * kMnMajorStep;
  }
  return SharedMatrixKMajor(b + k / 64 * kTileBytes) +
         static_cast<uint64_t>(k % 64 / 16) * kKMajorStep;
}

template <int kColumns, bool kBIsMnMajor, bool kAInRegisters>
void ProductKernel(const uint16_t* a, const uint16_t* b, float* out) {
  unsigned char* const to_a = DynamicSharedMatrices();
  unsigned char* const to_b = to_a + 2 * kTileBytes;
  FillShared<kColumns, kBIsMnMajor>(a, b, to_a, to_b);
  const int row = static_cast<int>(threadIdx.x) / 32 * 16 + static_cast<int>(threadIdx.x) % 32 / 4;
  const int pair = static_cast<int>(threadIdx.x) % 4 * 2;
  float d[kColumns / 2];
  WgmmaKeep(d);
  uint32_t held[kDepth / 16][4];
  for (int k = 0; k < kDepth; k += 16) {
    for (int i = 0; i < 4; ++i) {
      std::memcpy(&held[k / 16][i], KMajor(to_a, row + i % 2 * 8, k + pair + i / 2 * 8), 4);
    }
  }
  WgmmaFence();
  for (int k = 0; k < kDepth; k += 16) {
    const uint64_t operand = OperandB<kBIsMnMajor>(to_b, k);
    if constexpr (kAInRegisters) {
      WgmmaBf16<kColumns, kBIsMnMajor>(d, held[k / 16], operand, k > 0);
    } else {
      WgmmaBf16<kColumns, kBIsMnMajor>(d, OperandB<false>(to_a, k), operand, k > 0);
    }
    if (k % 64 == 48) {
      WgmmaCommit();
    }
  }
  WgmmaWait<1>();
  WgmmaWait<0>();
  WgmmaKeep(d);
  Store<kColumns>(d, out);
}

using ProductOf = void (*)(const uint16_t*, const uint16_t*, float*);

cudaError_t RunProduct(ProductOf kernel, const uint16_t* a, const uint16_t* b, float* out) {
  EXPECT_EQ(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kSharedBytes),
            cudaSuccess);
  return RunKernel(1, kWarpgroupThreads, kSharedBytes, kernel, a, b, out);
}

template <int kColumns, bool kBIsMnMajor, bool kAInRegisters>
void ExpectProduct() {
  const Operands operands = MakeOperands(kColumns);
  const DeviceArray<uint16_t> a(operands.a);
  const DeviceArray<uint16_t> b(operands.b);
  const DeviceArray<float> out(kRows * kColumns);
  for (int i = 0; i < 5; ++i) {
    ASSERT_EQ(RunProduct(ProductKernel<kColumns, kBIsMnMajor, kAInRegisters>, a.data(), b.data(),
                         out.data()),
              cudaSuccess);
    EXPECT_EQ(out.Read(), operands.product);
  }
}

TEST(Warpgroup, MultipliesMatricesInSharedMemory) {
  ExpectProduct<16, false, false>();
  ExpectProduct<32, true, false>();
  ExpectProduct<48, false, false>();
  ExpectProduct<64, true, false>();
  ExpectProduct<128, false, false>();
  ExpectProduct<128, true, false>();
  ExpectProduct<144, true, false>();
  ExpectProduct<160, false, false>();
  ExpectProduct<256, false, false>();
  ExpectProduct<256, true, false>();
}

TEST(Warpgroup, MultipliesByAMatrixInRegisters) {
  ExpectProduct<48, true, true>();
  ExpectProduct<64, false, true>();
  ExpectProduct<128, true, true>();
}

// One product of 16 steps of k with a mistake; b comes by cp.async.
template <Mistake kMistake>
void MistakenKernel(const uint16_t* a, const uint16_t* b, float* out) {
  constexpr int kColumns = 32;
  const int thread = static_cast<int>(threadIdx.x);
  unsigned char* const to_a = DynamicSharedMatrices();
  unsigned char* const to_b = to_a + 2 * kTileBytes + (kMistake == Mistake::kMisaligned ? 128 : 0);
  for (int i = thread; i < kRows * 16; i += kWarpgroupThreads) {
    *reinterpret_cast<uint16_t*>(KMajor(to_a, i / 16, i % 16)) = a[i / 16 * kDepth + i % 16];
  }
  if (thread < kColumns * 2) {
    CopyAsync16(KMajor(to_b, thread / 2, thread % 2 * 8), b + thread / 2 * kDepth + thread % 2 * 8,
                true);
  }
  CopyAsyncCommit();
  CopyAsyncWait<0>();
  if constexpr (kMistake != Mistake::kNoProxyFence) {
    FenceProxyAsync();
  }
  __syncthreads();
  float d[kColumns / 2];
  if constexpr (kMistake != Mistake::kNoFence) {
    WgmmaFence();
  }
  const bool is_other = kMistake == Mistake::kOtherOperand && thread >= 96;
  if (kMistake != Mistake::kOneWarpLess || thread < 96) {
    WgmmaBf16<kColumns>(d, SharedMatrixKMajor(to_a), SharedMatrixKMajor(to_b) + (is_other ? 64 : 0),
                        false);
  }
  if constexpr (kMistake != Mistake::kNoCommit) {
    WgmmaCommit();
  }
  if constexpr (kMistake == Mistake::kNoWait) {
    Store<kColumns>(d, out);
  }
  if constexpr (kMistake == Mistake::kEarlyOverwrite) {
    std::memset(KMajor(to_a, thread / 2, thread % 2 * 8), 0, 16);
  }
  if constexpr (kMistake == Mistake::kKeepBeforeWait) {
    WgmmaKeep(d);
  }
  WgmmaWait<0>();
  if constexpr (kMistake != Mistake::kNoWait) {
    Store<kColumns>(d, out);
  }
}

struct Tried {
  bool all_succeeded = true;
  bool all_right = true;
};

template <Mistake kMistake>
Tried Try() {
  Operands operands = MakeOperands(32);
  const DeviceArray<uint16_t> a(operands.a);
  const DeviceArray<uint16_t> b(operands.b);
  const DeviceArray<float> out(kRows * 32);
  std::vector<float> expected;
  for (std::size_t i = 0; i < kRows * 32; ++i) {
    float sum = 0;
    for (std::size_t k = 0; k < 16; ++k) {
      sum += FromBits(operands.a[i / 32 * kDepth + k]) * FromBits(operands.b[i % 32 * kDepth + k]);
    }
    expected.push_back(sum);
  }
  Tried tried;
  for (int i = 0; i < kTries; ++i) {
    const cudaError_t result = RunProduct(MistakenKernel<kMistake>, a.data(), b.data(), out.data());
    tried.all_succeeded = result == cudaSuccess && tried.all_succeeded;
    tried.all_right = result == cudaSuccess && out.Read() == expected && tried.all_right;
    if (!tried.all_succeeded) {
      break;
    }
  }
  return tried;
}

TEST(Warpgroup, ShowsWhatIsNotWaitedFor) {
  EXPECT_TRUE(Try<Mistake::kNone>().all_right);
  const Tried no_wait = Try<Mistake::kNoWait>();
  EXPECT_TRUE(no_wait.all_succeeded && !no_wait.all_right);
  const Tried overwritten = Try<Mistake::kEarlyOverwrite>();
  EXPECT_TRUE(overwritten.all_succeeded && !overwritten.all_right);
}

TEST(Warpgroup, RefusesWhatTheHardwareLeavesUndefined) {
  EXPECT_FALSE(Try<Mistake::kNoProxyFence>().all_succeeded);
  EXPECT_FALSE(Try<Mistake::kNoFence>().all_succeeded);
  EXPECT_FALSE(Try<Mistake::kNoCommit>().all_succeeded);
  EXPECT_FALSE(Try<Mistake::kMisaligned>().all_succeeded);
  EXPECT_FALSE(Try<Mistake::kOtherOperand>().all_succeeded);
  EXPECT_FALSE(Try<Mistake::kOneWarpLess>().all_succeeded);
  EXPECT_FALSE(Try<Mistake::kKeepBeforeWait>().all_succeeded);
}

template <int kRaised>
void RegistersKernel() {
  if (threadIdx.x < kWarpgroupThreads) {
    LowerRegisters<24>();
  } else {
    RaiseRegisters<kRaised>();
  }
}

TEST(Warpgroup, CountsRegisters) {
  EXPECT_EQ(RunKernel(1, 3 * kWarpgroupThreads, 0, RegistersKernel<240>), cudaSuccess);
  EXPECT_EQ(RunKernel(1, 3 * kWarpgroupThreads, 0, RegistersKernel<248>), cudaErrorLaunchFailure);
}

}  // namespace
}  // namespace cohort::emulator_test
