// Loading: writes a checkpoint of a model's shape where there is none yet, and reads it as a rank
// does, from the page cache to the device.
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>

#include "absl/strings/str_join.h"
#include "kernels/bfloat16.h"
#include "kernels/check.h"
#include "runtime/published_configs.h"
#include "runtime/weights.h"
#include "runtime/worker.h"
#include "tests/gpu/bench_setup.h"
#include "tests/gpu/measurement.h"

namespace cohort::gpu {
namespace {

bool EndsWith(const std::string& text, const std::string& end) {
  return text.size() >= end.size() && text.compare(text.size() - end.size(), end.size(), end) == 0;
}

int64_t BytesOf(const DeclaredTensor& tensor) {
  int64_t bytes = 2;
  for (const int64_t dim : tensor.shape) {
    bytes *= dim;
  }
  return bytes;
}

std::string HeaderOf(const std::vector<DeclaredTensor>& tensors) {
  std::string header = "{";
  int64_t offset = 0;
  for (const DeclaredTensor& tensor : tensors) {
    absl::StrAppend(&header, header.size() > 1 ? "," : "", "\"", tensor.name,
                    "\":{\"dtype\":\"BF16\",\"shape\":[", absl::StrJoin(tensor.shape, ","),
                    "],\"data_offsets\":[", offset, ",", offset + BytesOf(tensor), "]}");
    offset += BytesOf(tensor);
  }
  header += "}";
  header.append((8 - header.size() % 8) % 8, ' ');
  return header;
}

// Small numbers, repeated; ones for the norms.
void WriteTensor(const DeclaredTensor& tensor, std::ofstream& file) {
  static const std::vector<BFloat16> small = [] {
    std::vector<BFloat16> numbers((size_t{1} << 23) - 5);
    uint32_t state = 1;
    for (BFloat16& number : numbers) {
      state = state * 1664525u + 1013904223u;
      number = BFloat16::FromFloat((static_cast<float>(state >> 16) / 65536 - 0.5f) * 0.07f);
    }
    return numbers;
  }();
  static const std::vector<BFloat16> ones(1 << 16, BFloat16::FromFloat(1));
  const bool is_norm = EndsWith(tensor.name, "norm.weight");
  const std::vector<BFloat16>& numbers = is_norm ? ones : small;
  const int64_t period = static_cast<int64_t>(numbers.size() * sizeof(BFloat16));
  for (int64_t left = BytesOf(tensor); left > 0; left -= period) {
    file.write(reinterpret_cast<const char*>(numbers.data()), std::min(left, period));
  }
}

void WriteCheckpoint(const std::string& model, const std::string& folder) {
  CHECK(mkdir(folder.c_str(), 0755) == 0 || errno == EEXIST)
      << folder << ": " << std::strerror(errno);
  for (const PublishedModel& published : PublishedModels()) {
    if (published.name == model) {
      std::ofstream(folder + "/config.json") << published.config_json;
    }
  }
  std::ofstream file(folder + "/model.safetensors", std::ios::binary);
  const std::vector<DeclaredTensor> tensors = DeclareTensors(ConfigOf(folder));
  const std::string header = HeaderOf(tensors);
  const uint64_t size = header.size();
  file.write(reinterpret_cast<const char*>(&size), sizeof(size));
  file << header;
  for (const DeclaredTensor& tensor : tensors) {
    WriteTensor(tensor, file);
  }
  file.close();
  CHECK(file) << "cannot write " << folder << "/model.safetensors";
}

// The ways that are compared; the first is what ranks do.
struct Way {
  const char* suffix;
  const char* note;
  int queues;
  int64_t window_bytes;
};
constexpr Way kWays[] = {
    {"", "pinned buffers, two queues; with the allocation of everything that a rank needs", 2, 0},
    {".one-queue", "pinned buffers, one queue", 1, 0},
    {".windows", "windows of 64 MiB of the mapped file, pinned where they lie, two queues", 2,
     int64_t{64} << 20},
};

void MeasureWay(const Flags& flags, const ModelConfig& config, WorkerOptions options,
                const Way& way) {
  options.weight_stream.queues = way.queues;
  options.weight_stream.window_bytes = way.window_bytes;
  std::vector<double> seconds;
  double bytes = 0;
  for (int64_t round = 0; round < Number(flags, "rounds"); ++round) {
    std::unique_ptr<Device> device = OpenDevice(flags);
    const double begin = Now();
    auto worker = Worker::Create(config, options, std::move(device), nullptr);
    if (!worker.ok() && way.window_bytes > 0) {  // not every system pins pages of files
      std::printf("load%s: not measured: %s\n", way.suffix, worker.status().ToString().c_str());
      return;
    }
    CHECK_OK(worker.status());
    seconds.push_back(Now() - begin);
    bytes = static_cast<double>((*worker)->weight_bytes());
  }
  Print({absl::StrCat("load.", ShortName(flags.at("model")), way.suffix), seconds, bytes, 0,
         way.note});
}

}  // namespace

void MeasureLoad(int argc, char** argv) {
  const Flags flags =
      ParseFlags(argc, argv,
                 WithCommonFlags({{"model", "Qwen2-7B"}, {"folder", "/dev/shm/cohort-gpu-suite"}}));
  const std::string& folder = flags.at("folder");
  if (!std::ifstream(folder + "/model.safetensors")) {
    const double begin = Now();
    WriteCheckpoint(flags.at("model"), folder);
    std::fprintf(stderr, "wrote %s in %.1f s\n", folder.c_str(), Now() - begin);
  }
  const ModelConfig config = ConfigOf(folder);
  WorkerOptions options;
  options.model_dir = folder;
  options.kv_blocks = 64;
  options.max_model_len = 512;
  for (const Way& way : kWays) {
    MeasureWay(flags, config, options, way);
  }
}

}  // namespace cohort::gpu
