// Measures how fast this machine reads memory: one sequential stream per thread, as a matrix-vector
// product reads weights. Prints one JSON object per line and combination of threads and page size.
//
//   read_bandwidth [MEBIBYTES_PER_THREAD [SECONDS]]
#include <sys/mman.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <string>
#include <thread>
#include <vector>

namespace {

using Clock = std::chrono::steady_clock;

double SecondsSince(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

[[noreturn]] void Fail(const char* what) {
  std::perror(what);
  std::exit(1);
}

// Anonymous memory of this process that lies in huge pages, bytes.
int64_t HugePageBytes() {
  std::ifstream file("/proc/self/smaps_rollup");
  std::string word;
  int64_t kibibytes = 0;
  while (file >> word) {
    if (word == "AnonHugePages:" && file >> kibibytes) return kibibytes * 1024;
  }
  return 0;
}

// Memory of one page size, touched by its constructor.
class Buffer {
 public:
  Buffer(size_t bytes, bool huge_pages) : bytes_(bytes) {
    memory_ = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory_ == MAP_FAILED) Fail("mmap");
    // Advice: a kernel without huge pages refuses it, and the printed share then says so.
    madvise(memory_, bytes, huge_pages ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
    std::memset(memory_, 1, bytes);
  }
  ~Buffer() { munmap(memory_, bytes_); }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;

  // Eight independent sums of 64 bytes each, so that no addition waits for another.
  uint64_t Sum() const {
    using Lanes = uint64_t __attribute__((vector_size(64)));
    constexpr size_t kUnroll = 8;
    const Lanes* data = static_cast<const Lanes*>(memory_);
    const size_t count = bytes_ / sizeof(Lanes);
    Lanes sums[kUnroll] = {};
    for (size_t i = 0; i + kUnroll <= count; i += kUnroll) {
      for (size_t j = 0; j < kUnroll; ++j) sums[j] += data[i + j];
    }
    uint64_t total = 0;
    for (const Lanes& lanes : sums) {
      for (size_t i = 0; i < 8; ++i) total += lanes[i];
    }
    return total;
  }

 private:
  void* memory_;
  size_t bytes_;
};

struct Reading {
  double gigabytes_per_second = 0;  // median over the passes, all threads together
  double huge_page_share = 0;       // of the buffers
};

// Every thread reads its own buffer again and again; all stop together. A thread's rate is the
// median of its passes.
Reading Measure(int threads, bool huge_pages, size_t bytes, double seconds) {
  std::vector<double> rates(threads);
  std::atomic<int> ready = 0;
  std::atomic<int64_t> huge_bytes = 0;
  std::atomic<uint64_t> checksum = 0;
  std::vector<std::thread> workers;
  for (int worker = 0; worker < threads; ++worker) {
    workers.emplace_back([&, worker] {
      const Buffer buffer(bytes, huge_pages);
      checksum += buffer.Sum();
      ++ready;
      while (ready < threads) std::this_thread::yield();
      if (worker == 0) huge_bytes = HugePageBytes();
      std::vector<double> passes;
      const Clock::time_point start = Clock::now();
      while (SecondsSince(start) < seconds) {
        const Clock::time_point pass = Clock::now();
        checksum += buffer.Sum();
        passes.push_back(bytes / SecondsSince(pass) / 1e9);
      }
      std::nth_element(passes.begin(), passes.begin() + passes.size() / 2, passes.end());
      rates[worker] = passes[passes.size() / 2];
    });
  }
  for (std::thread& worker : workers) worker.join();
  Reading reading;
  for (const double rate : rates) reading.gigabytes_per_second += rate;
  reading.huge_page_share =
      std::min(1.0, static_cast<double>(huge_bytes) / (static_cast<double>(bytes) * threads));
  // The sums must be used, or the reads could be left out.
  if (checksum == 0) Fail("the buffers' sum");
  return reading;
}

}  // namespace

int main(int argc, char** argv) {
  const double mebibytes = argc > 1 ? std::atof(argv[1]) : 256;
  const double seconds = argc > 2 ? std::atof(argv[2]) : 0.25;
  if (argc > 3 || mebibytes < 1 || seconds <= 0) {
    std::fprintf(stderr, "usage: read_bandwidth [MEBIBYTES_PER_THREAD [SECONDS]]\n");
    return 2;
  }
  const size_t bytes = static_cast<size_t>(mebibytes) << 20;
  for (const int threads : {1, 2}) {
    for (const bool huge_pages : {false, true}) {
      const Reading reading = Measure(threads, huge_pages, bytes, seconds);
      std::printf(
          "{\"threads\": %d, \"pages\": \"%s\", \"gb_per_second\": %.2f, \"huge_page_share\": "
          "%.2f}\n",
          threads, huge_pages ? "huge" : "4KiB", reading.gigabytes_per_second,
          reading.huge_page_share);
    }
  }
  return 0;
}
