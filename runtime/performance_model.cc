#include "runtime/performance_model.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_join.h"
#include "kernels/check.h"

namespace cohort {
namespace {

constexpr int64_t kMiB = int64_t{1} << 20;

// Memory: nvidia-smi's memory.total of A100-SXM4-80GB, H100 80GB HBM3, H200, B200, L40S.
// Bandwidth: the data sheets' 2.039, 3.35, 4.8, 8.0 and 0.864 TB/s, times what a copy attained of
// it on one H200: 4.3 TB/s of 4.8.
constexpr double kBandwidthAttained = 4.3 / 4.8;
// Products: the data sheets' 312, 989, 989, 2250 and 362 TFLOP/s (bf16, dense), times what the best
// measured shape attained on an H100: 794.5 of 989 (stas00/ml-engineering, compute/accelerator,
// "Maximum Achievable FLOPS"); one H200 gave 790.
constexpr double kProductsAttained = 0.80;
// Between nodes of a CUDA graph, H100 (hazyresearch.stanford.edu, "Look ma, no bubbles",
// 2025-05-27); taken for the others.
constexpr double kLaunchSeconds = 1.3e-6;
// All-reduce on 8 H100: 6.5 us at 16 KB, 6.8 at 128 KB, 7.4 at 256 KB, 8.3 at 512 KB, 10.3 at 1 MB
// (microsoft/mscclpp, docs/dsl/results.md): 6.4 us and 266 GB/s go through all of them within 2%.
constexpr double kNvlink4Seconds = 6.4e-6;
constexpr double kNvlink4BytesPerSecond = 266e9;
// 8 A100: 7.24 us at 24 KB (mscclpp, test/deploy/perf_ndmv4.jsonl); NVLink 3 has 2/3 of the rate of
// NVLink 4. 8 GB200: 6.0 us at 16 KB (NVIDIA/nccl, contrib/custom_algos/allreduce, two-shot);
// NVLink 5 has twice the rate.
constexpr double kNvlink3Seconds = 7.1e-6;
constexpr double kNvlink5Seconds = 6.0e-6;
// Without NVLink: NCCL's 16 us of 8 H100 at 16 KB as a lower bound; a ring over PCIe 4.0 x16, of
// which 25 GB/s are attained, moves each byte nearly twice.
constexpr double kPcieSeconds = 16e-6;
constexpr double kPcieBytesPerSecond = 12.5e9;
// Between nodes: a tree adds 5.0 us a hop, there and back (NVIDIA/nccl, src/graph/tuning.cc, hwLat
// NET, tree, LL); one 400 Gbit/s adapter for each GPU.
constexpr double kNetworkSeconds = 2 * 5.0e-6;
constexpr double kNetworkBytesPerSecond = 50e9;
// What a rank cannot allocate: the context and libraries of a CUDA process, about 0.8 GiB (of an
// A100-SXM4-80GB, 81,920 MiB by nvidia-smi, CUDA itself sees 81,116), and what is lost between
// allocations, 2%. Of a node of CPUs the system and the coordinator take about as much.
constexpr double kReserveOfMemory = 0.02;
constexpr int64_t kReserveBytes = 1024 * kMiB;

Hardware Gpu(const char* name, int64_t mebibytes, double terabytes_per_second, double teraflops) {
  Hardware gpu;
  gpu.name = name;
  gpu.bytes_per_second = terabytes_per_second * 1e12 * kBandwidthAttained;
  gpu.operations_per_second = teraflops * 1e12 * kProductsAttained;
  gpu.launch_seconds = kLaunchSeconds;
  gpu.reduce_seconds = kNvlink4Seconds;
  gpu.reduce_bytes_per_second = kNvlink4BytesPerSecond;
  gpu.network_seconds = kNetworkSeconds;
  gpu.network_bytes_per_second = kNetworkBytesPerSecond;
  return WithMemory(std::move(gpu), mebibytes * kMiB);
}

Hardware WithReduce(Hardware gpu, double seconds, double bytes_per_second) {
  gpu.reduce_seconds = seconds;
  gpu.reduce_bytes_per_second = bytes_per_second;
  return gpu;
}

// 2 cores of an AMD EPYC with AVX-512 BF16, 24 GiB: 35.7 GB/s read by both, 425 GFLOP/s of a packed
// bf16 product (tests/bench/README.md). Kernels are function calls. A reduce costs two hand-overs
// between processes, and its message is written once and read once by every rank.
Hardware Cpu() {
  Hardware cpu;
  cpu.name = "CPU";
  cpu.bytes_per_second = 35.7e9;
  cpu.operations_per_second = 425e9;
  cpu.reduce_seconds = 5e-6;
  cpu.reduce_bytes_per_second = 4e9;
  cpu.network_seconds = 100e-6;          // TCP
  cpu.network_bytes_per_second = 1.2e9;  // 10 Gbit/s
  cpu.ranks_per_node = 1 << 20;
  cpu.is_shared = true;
  return WithMemory(std::move(cpu), 24 * 1024 * kMiB);
}

const std::vector<Hardware>& AllHardware() {
  static const auto* const all = new std::vector<Hardware>{
      WithReduce(Gpu("A100", 81920, 2.039, 312), kNvlink3Seconds, kNvlink4BytesPerSecond * 2 / 3),
      WithReduce(Gpu("L40S", 46068, 0.864, 362), kPcieSeconds, kPcieBytesPerSecond),
      Gpu("H100", 81559, 3.35, 989),
      Gpu("H200", 143771, 4.8, 989),
      WithReduce(Gpu("B200", 183359, 8.0, 2250), kNvlink5Seconds, kNvlink4BytesPerSecond * 2),
      Cpu(),
  };
  return *all;
}

// Beyond, ways to choose some of them exceed a double, and the mean takes the maximum's place.
constexpr int64_t kMaxCountedExperts = 512;

double Doublings(int64_t nodes) { return std::ceil(std::log2(static_cast<double>(nodes))); }

// The smallest collective among them, and the part of a message that one adapter carries.
double LatencySeconds(const Hardware& hardware, const Spread& spread) {
  return hardware.reduce_seconds + Doublings(spread.nodes) * hardware.network_seconds;
}

// Coefficients of x^0..x^limit of (1 + x)^count.
std::vector<double> Binomials(int64_t count, int64_t limit) {
  std::vector<double> row(static_cast<size_t>(std::min(count, limit)) + 1, 1);
  for (size_t i = 1; i < row.size(); ++i) {
    row[i] = row[i - 1] * static_cast<double>(count - static_cast<int64_t>(i) + 1) /
             static_cast<double>(i);
  }
  return row;
}

// Of `left * right`, up to x^limit.
std::vector<double> Product(const std::vector<double>& left, const std::vector<double>& right,
                            int64_t limit) {
  const size_t size = std::min(left.size() + right.size() - 1, static_cast<size_t>(limit) + 1);
  std::vector<double> product(size);
  for (size_t i = 0; i < left.size(); ++i) {
    for (size_t j = 0; j < right.size() && i + j < size; ++j) {
      product[i + j] += left[i] * right[j];
    }
  }
  return product;
}

// Ways to draw such that no group gets more than `limit`.
double WaysWithAtMost(absl::Span<const int64_t> groups, int64_t drawn, int64_t limit) {
  std::vector<double> ways = {1};
  for (const int64_t group : groups) {
    ways = Product(ways, Binomials(group, limit), drawn);
  }
  return static_cast<int64_t>(ways.size()) > drawn ? ways[static_cast<size_t>(drawn)] : 0;
}

}  // namespace

Hardware WithMemory(Hardware hardware, int64_t memory_bytes) {
  hardware.memory_bytes = memory_bytes;
  hardware.reserve_bytes = std::min(
      memory_bytes,
      kReserveBytes + static_cast<int64_t>(kReserveOfMemory * static_cast<double>(memory_bytes)));
  return hardware;
}

absl::Span<const Hardware> KnownHardware() { return AllHardware(); }

absl::StatusOr<Hardware> FindHardware(StringView name) {
  for (const Hardware& hardware : AllHardware()) {
    if (absl::EqualsIgnoreCase(hardware.name, name)) {
      return hardware;
    }
  }
  const auto append_name = [](std::string* out, const Hardware& hardware) {
    out->append(hardware.name);
  };
  return absl::NotFoundError(
      absl::StrCat("'", name, "' is not one of ", absl::StrJoin(AllHardware(), ", ", append_name)));
}

StepWork& StepWork::operator+=(const StepWork& other) {
  bytes += other.bytes;
  operations += other.operations;
  return *this;
}

double ComputeSeconds(const Hardware& hardware, const StepWork& work, int64_t sharers) {
  return static_cast<double>(sharers) * std::max(work.bytes / hardware.bytes_per_second,
                                                 work.operations / hardware.operations_per_second);
}

double AllReduceSeconds(const Hardware& hardware, const Spread& spread, double bytes) {
  if (spread.ranks <= 1) {
    return 0;
  }
  double seconds = LatencySeconds(hardware, spread) + bytes / hardware.reduce_bytes_per_second;
  if (spread.nodes > 1) {
    // The ranks of a node divide the message; each part goes out and comes back.
    const double adapters = static_cast<double>(spread.ranks) / static_cast<double>(spread.nodes);
    seconds += 2 * bytes / (adapters * hardware.network_bytes_per_second);
  }
  return seconds;
}

double AllToAllSeconds(const Hardware& hardware, const Spread& spread, double bytes) {
  if (spread.ranks <= 1) {
    return 0;
  }
  const double nodes = static_cast<double>(spread.nodes);
  return LatencySeconds(hardware, spread) + bytes / hardware.reduce_bytes_per_second +
         bytes * (nodes - 1) / nodes / hardware.network_bytes_per_second;
}

double DistinctExperts(int64_t experts, int64_t chosen, double tokens) {
  const double all = static_cast<double>(experts);
  return all * (1 - std::pow(1 - static_cast<double>(chosen) / all, tokens));
}

double GroupsOfOneToken(absl::Span<const int64_t> groups, int64_t chosen) {
  const int64_t experts = std::accumulate(groups.begin(), groups.end(), int64_t{0});
  double mean = 0;
  for (const int64_t group : groups) {
    double missed = 1;  // no choice falls on this group
    for (int64_t i = 0; i < chosen; ++i) {
      missed *= static_cast<double>(std::max<int64_t>(experts - group - i, 0)) /
                static_cast<double>(experts - i);
    }
    mean += 1 - missed;
  }
  return mean;
}

double BusiestGroupExperts(absl::Span<const int64_t> groups, int64_t drawn) {
  CHECK(!groups.empty());
  const int64_t largest = *std::max_element(groups.begin(), groups.end());
  const int64_t experts = std::accumulate(groups.begin(), groups.end(), int64_t{0});
  if (groups.size() == 1) {
    return static_cast<double>(std::min(drawn, largest));
  }
  if (experts > kMaxCountedExperts) {
    return static_cast<double>(drawn) * static_cast<double>(largest) / static_cast<double>(experts);
  }
  const double all = WaysWithAtMost(groups, drawn, largest);
  CHECK_GT(all, 0) << drawn << " experts of fewer";
  double mean = 0;  // the sum of P(maximum > limit)
  for (int64_t limit = 0; limit < std::min(largest, drawn); ++limit) {
    mean += 1 - WaysWithAtMost(groups, drawn, limit) / all;
  }
  return mean;
}

}  // namespace cohort
