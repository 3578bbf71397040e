#include "tests/bench/kernel_bandwidth.h"

#include <atomic>
#include <chrono>
#include <cstring>
#include <ctime>

#include "kernels/check.h"

namespace cohort {
namespace {

constexpr int64_t kBytes = int64_t{512} << 20;

typedef uint64_t Words __attribute__((vector_size(64)));

// Keeps the loads of [begin, end) from being optimised away.
__attribute__((noinline)) uint64_t Sum(const char* begin, const char* end) {
  Words sums[4] = {};
  for (; begin < end; begin += 4 * sizeof(Words)) {
    for (size_t i = 0; i < 4; ++i) {
      Words words;
      std::memcpy(&words, begin + i * sizeof(words), sizeof(words));
      sums[i] ^= words;
    }
  }
  const Words sum = (sums[0] ^ sums[1]) ^ (sums[2] ^ sums[3]);
  uint64_t result = 0;
  for (size_t i = 0; i < sizeof(Words) / sizeof(uint64_t); ++i) {
    result ^= sum[i];
  }
  return result;
}

}  // namespace

double WallSeconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

double CpuSeconds() {
  timespec now;
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + static_cast<double>(now.tv_nsec) * 1e-9;
}

ReadBandwidth::ReadBandwidth(int threads, Clock clock) : clock_(clock) {
  auto device = Device::Create(DeviceOptions{});
  CHECK_OK(device.status());
  device_ = *std::move(device);
  auto pool = ThreadPool::Create(threads);
  CHECK_OK(pool.status());
  pool_ = *std::move(pool);
  auto memory = device_->Allocate(Shape{kBytes / 4}, DType::kI32);
  CHECK_OK(memory.status());
  memory_ = *std::move(memory);
  std::memset(memory_.view().data, 1, static_cast<size_t>(kBytes));
}

double ReadBandwidth::Measure() {
  constexpr int64_t kUnit = 4096;
  const char* data = static_cast<const char*>(memory_.view().data);
  std::atomic<uint64_t> sum{0};
  const double start = clock_();
  pool_->ParallelFor(kBytes / kUnit, 1, [&](int64_t begin, int64_t end) {
    sum.fetch_xor(Sum(data + begin * kUnit, data + end * kUnit));
  });
  const double elapsed = clock_() - start;
  return static_cast<double>(kBytes) / elapsed;
}

}  // namespace cohort
