// Measures what the device can do at best: reading, copying, bf16 products, the bus, and what one
// kernel after another costs. Every other figure of the suite is compared with these.
//
//   cohort_gpu_limits [--bytes=8589934592] [--product=8192] [--nodes=200] [--repetitions=10]
#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <string>

#include "kernels/cuda/entries.h"
#include "tests/gpu/device_memory.h"
#include "tests/gpu/limit_kernels.h"
#include "tests/gpu/limit_product.h"
#include "tests/gpu/measurement.h"

namespace cohort::gpu {
namespace {

struct Options {
  std::size_t bytes = std::size_t{8} << 30;
  int64_t product = 8192;
  int nodes = 200;  // kernels in a graph
  int repetitions = 10;
};

Options Parse(int argc, char** argv) {
  Options options;
  for (int i = 1; i < argc; ++i) {
    const char* equals = std::strchr(argv[i], '=');
    const std::string name(argv[i], equals == nullptr ? std::strlen(argv[i])
                                                      : static_cast<std::size_t>(equals - argv[i]));
    const long long value = equals == nullptr ? 0 : std::atoll(equals + 1);
    if (name == "--bytes" && value > 0) {
      options.bytes = static_cast<std::size_t>(value) / kStageBytes * kStageBytes;
    } else if (name == "--product" && value > 0) {
      options.product = value;
    } else if (name == "--nodes" && value > 0) {
      options.nodes = static_cast<int>(value);
    } else if (name == "--repetitions" && value > 0) {
      options.repetitions = static_cast<int>(value);
    } else {
      std::fprintf(stderr, "cohort_gpu_limits: %s is not a flag with a number above 0\n", argv[i]);
      std::exit(2);
    }
  }
  return options;
}

void DescribeDevice() {
  CohortCudaProperties p{};
  if (const CohortCudaError error = cuda::DeviceProperties(0, &p); error.code != kCohortCudaOk) {
    std::fprintf(stderr, "%s\n", error.message);
    std::exit(1);
  }
  std::printf(
      "{\"row\": \"device\", \"name\": \"%s\", \"memory_bytes\": %llu, \"compute\": \"%d.%d\", "
      "\"multiprocessors\": %d, \"driver\": %d, \"runtime\": %d, \"nccl\": %d}\n",
      p.name, static_cast<unsigned long long>(p.memory_bytes), p.compute_major, p.compute_minor,
      p.multiprocessors, p.driver_version, p.runtime_version, p.nccl_version);
}

// Half of the memory of the copy on each side, so that both measurements touch as much.
void MeasureMemory(CohortCudaDevice* device, const Options& options) {
  const DeviceMemory memory = Allocate(options.bytes);
  const DeviceMemory sink = Allocate(sizeof(uint32_t) * 64 * device->multiprocessors);
  FillRandom(device, memory.get(), options.bytes);
  const double bytes = static_cast<double>(options.bytes);
  unsigned char* half = static_cast<unsigned char*>(memory.get()) + options.bytes / 2;
  const auto seconds = [&](auto body) { return DeviceSeconds(device, options.repetitions, body); };
  Print({"limit.copy", seconds([&] { Copy(device, memory.get(), half, options.bytes / 2); }), bytes,
         0, "bytes read and bytes written"});
  Print({"limit.copy.driver", seconds([&] {
           Check(cudaMemcpyAsync(half, memory.get(), options.bytes / 2, cudaMemcpyDeviceToDevice,
                                 device->stream),
                 "cudaMemcpyAsync");
         }),
         bytes});
  for (const int blocks : {2, 4, 8}) {
    Print({"limit.read.loads." + std::to_string(blocks), seconds([&] {
             ReadWithLoads(device, memory.get(), options.bytes, blocks,
                           static_cast<uint32_t*>(sink.get()));
           }),
           bytes, 0, "blocks per multiprocessor"});
  }
  if (device->compute < 90) {
    return;
  }
  for (const uint32_t piece : {1u << 10, 4u << 10, 16u << 10}) {
    for (const std::size_t ring : {32u << 10, 64u << 10, 96u << 10, 192u << 10}) {
      Print({"limit.read.bulk." + std::to_string(piece >> 10) + "k.ring" +
                 std::to_string(ring >> 10) + "k",
             seconds([&] {
               ReadWithBulkCopies(device, memory.get(), options.bytes, piece, ring,
                                  static_cast<uint32_t*>(sink.get()));
             }),
             bytes});
    }
  }
}

void MeasureProducts(CohortCudaDevice* device, const Options& options) {
  const int64_t n = options.product;
  // A square product, and the widest and the narrowest of a 7B layer at 4096 tokens.
  const struct {
    const char* row;
    int64_t tokens, inner, columns;
  } products[] = {{"limit.product", n, n, n},
                  {"limit.product.wide", n / 2, 7 * n / 16, 37 * n / 8},
                  {"limit.product.narrow", n / 2, 7 * n / 16, 7 * n / 16}};
  for (const auto& p : products) {
    const std::vector<double> seconds =
        ProductSeconds(device, p.tokens, p.inner, p.columns, options.repetitions);
    if (!seconds.empty()) {
      const double operations = 2.0 * static_cast<double>(p.tokens) * static_cast<double>(p.inner) *
                                static_cast<double>(p.columns);
      Print({p.row, seconds, 0, operations,
             std::to_string(p.tokens) + " x " + std::to_string(p.inner) + " x " +
                 std::to_string(p.columns)});
    }
  }
}

void MeasureBus(CohortCudaDevice* device, const Options& options) {
  const std::size_t bytes = std::min(options.bytes, std::size_t{1} << 30);
  const DeviceMemory memory = Allocate(bytes);
  void* pinned = nullptr;
  Check(cudaMallocHost(&pinned, bytes), "cudaMallocHost");
  std::memset(pinned, 1, bytes);
  for (const cudaMemcpyKind kind : {cudaMemcpyHostToDevice, cudaMemcpyDeviceToHost}) {
    const bool is_up = kind == cudaMemcpyHostToDevice;
    Print({is_up ? "limit.bus.up" : "limit.bus.down",
           DeviceSeconds(device, options.repetitions,
                         [&] {
                           Check(cudaMemcpyAsync(is_up ? memory.get() : pinned,
                                                 is_up ? pinned : memory.get(), bytes, kind,
                                                 device->stream),
                                 "cudaMemcpyAsync");
                         }),
           static_cast<double>(bytes), 0, "pinned host memory"});
  }
  Check(cudaFreeHost(pinned), "cudaFreeHost");
}

// Seconds of one kernel among many in a graph.
void MeasureBoundary(CohortCudaDevice* device, const Options& options, bool programmatic) {
  Nothing(device, programmatic);  // loads its code before the capture
  Finish(device, "Nothing");
  cudaGraph_t graph = nullptr;
  cudaGraphExec_t executable = nullptr;
  Check(cudaStreamBeginCapture(device->stream, cudaStreamCaptureModeThreadLocal),
        "cudaStreamBeginCapture");
  for (int i = 0; i < options.nodes; ++i) {
    Nothing(device, programmatic);
  }
  Check(cudaStreamEndCapture(device->stream, &graph), "cudaStreamEndCapture");
  Check(cudaGraphInstantiate(&executable, graph, 0), "cudaGraphInstantiate");
  std::vector<double> seconds = DeviceSeconds(device, options.repetitions, [&] {
    Check(cudaGraphLaunch(executable, device->stream), "cudaGraphLaunch");
  });
  for (double& one : seconds) {
    one /= options.nodes;
  }
  Print({programmatic ? "limit.boundary.programmatic" : "limit.boundary.plain", seconds, 0, 0,
         "per kernel of a graph that does nothing"});
  Check(cudaGraphExecDestroy(executable), "cudaGraphExecDestroy");
  Check(cudaGraphDestroy(graph), "cudaGraphDestroy");
}

int Main(int argc, char** argv) {
  const Options options = Parse(argc, argv);
  DescribeDevice();
  CohortCudaDevice* device = nullptr;
  if (const CohortCudaError error = cuda::DeviceCreate(0, &device); error.code != kCohortCudaOk) {
    std::fprintf(stderr, "%s\n", error.message);
    return 1;
  }
  MeasureMemory(device, options);
  MeasureBoundary(device, options, false);
  MeasureBoundary(device, options, true);
  MeasureProducts(device, options);
  MeasureBus(device, options);
  cuda::DeviceDestroy(device);
  return 0;
}

}  // namespace
}  // namespace cohort::gpu

int main(int argc, char** argv) { return cohort::gpu::Main(argc, argv); }
