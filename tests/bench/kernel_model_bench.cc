// Speed of one model of random weights in this process, without scheduler, RPC and processes: ranks
// are threads that execute plans. Prints tokens per second of a prefill and of decodes, each next
// to the memory's read bandwidth measured in turn with it.
//
//   kernel_model_bench [--model=Qwen2-0.5B] [--tp=1] [--threads=2] [--instruction-set=]
//                      [--prompt=512] [--batches=1,8,16] [--context=128] [--rounds=7] [--steps=8]
//                      [--layers=0] [--clock=wall]
//
// --clock=cpu measures the CPU time of the process instead: with one thread that is what the same
// work takes on a machine that does nothing else, but for the memory's bandwidth.
#include <algorithm>
#include <cstdio>
#include <map>
#include <numeric>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "kernels/check.h"
#include "parallel/host_communicator.h"
#include "runtime/published_configs.h"
#include "runtime/worker.h"
#include "tests/bench/flags.h"
#include "tests/bench/kernel_bandwidth.h"

namespace cohort {
namespace {

ModelConfig ConfigOf(const std::string& name, int64_t layers) {
  for (const PublishedModel& model : PublishedModels()) {
    if (model.name == name) {
      auto config = ParseModelConfig(model.config_json, name);
      CHECK_OK(config.status());
      config->layers = layers > 0 ? layers : config->layers;
      return *std::move(config);
    }
  }
  CHECK(false) << "no published model " << name;
  return {};
}

// The ranks of one model, one thread each, driven plan by plan.
class Ranks {
 public:
  Ranks(const ModelConfig& config, WorkerOptions options, const DeviceOptions& device_options,
        Clock clock)
      : clock_(clock), options_(options), results_(static_cast<size_t>(options.parallelism.tp)) {
    const int tp = options.parallelism.tp;
    auto region = CreateHostCommunicatorRegion(tp);
    CHECK_OK(region.status());
    for (int rank = 0; rank < tp; ++rank) {
      options.rank = rank;
      auto device = Device::Create(device_options);
      CHECK_OK(device.status());
      description_ = (*device)->description();
      auto worker = Worker::Create(config, options, *std::move(device), nullptr);
      CHECK_OK(worker.status());
      HostCommunicatorOptions communicator{.rank = rank, .size = tp};
      communicator.spin_iterations = 2000;
      auto group = MakeHostCommunicator(*region, communicator);
      CHECK_OK(group.status());
      CHECK_OK((*worker)->JoinEpoch(1, *std::move(group)));
      workers_.push_back(*std::move(worker));
    }
  }

  const std::string& description() const { return description_; }
  int64_t weight_bytes() const {
    return std::accumulate(
        workers_.begin(), workers_.end(), int64_t{0},
        [](int64_t sum, const auto& worker) { return sum + worker->weight_bytes(); });
  }

  // Forgets all sequences' progress.
  void Restart() { positions_.clear(); }

  // `rows` new positions of each of the first `sequences`.
  StepPlan NextPlan(int64_t sequences, int64_t rows) {
    StepPlan plan;
    plan.epoch = 1;
    plan.step = ++last_step_;
    const int64_t blocks = (options_.max_model_len + options_.block_size - 1) / options_.block_size;
    for (int64_t slot = 0; slot < sequences; ++slot) {
      SequenceRows& planned = plan.rows.emplace_back();
      int64_t& position = positions_[slot];
      planned.slot = static_cast<uint32_t>(slot);
      planned.first_position = static_cast<uint64_t>(position);
      planned.sample = true;
      if (position == 0) {
        plan.admits.push_back({.slot = planned.slot, .sequence_index = 0, .sampling = {}});
        for (int64_t block = 0; block < blocks; ++block) {
          planned.appended_blocks.push_back(static_cast<int32_t>(slot * blocks + block));
        }
      }
      for (int64_t row = 0; row < rows; ++row) {
        planned.tokens.push_back({.id = static_cast<int32_t>((position + row) * 31 % 1000)});
      }
      position += rows;
    }
    return plan;
  }

  // Seconds of `plans` one after the other on all ranks.
  double Run(const std::vector<StepPlan>& plans) {
    const double start = clock_();
    std::vector<std::thread> threads;
    for (size_t rank = 1; rank < workers_.size(); ++rank) {
      threads.emplace_back([&, rank] { RunOn(rank, plans); });
    }
    RunOn(0, plans);
    for (std::thread& thread : threads) {
      thread.join();
    }
    return clock_() - start;
  }

 private:
  void RunOn(size_t rank, const std::vector<StepPlan>& plans) {
    for (const StepPlan& plan : plans) {
      CHECK_OK(workers_[rank]->Run(plan).status());
    }
  }

  Clock clock_;
  WorkerOptions options_;
  std::vector<std::unique_ptr<Worker>> workers_;
  std::vector<StepResult> results_;
  std::map<int64_t, int64_t> positions_;
  uint64_t last_step_ = 0;
  std::string description_;
};

void Report(const std::string& what, const std::vector<double>& tokens_per_second,
            const std::vector<double>& bandwidth, double bytes_per_token) {
  const double median = Median(tokens_per_second);
  std::vector<double> fractions;
  for (size_t i = 0; i < bandwidth.size(); ++i) {
    fractions.push_back(tokens_per_second[i] * bytes_per_token / bandwidth[i]);
  }
  std::printf("%-18s %8.1f tokens/s (best %.1f)   read %.1f GB/s", what.c_str(), median,
              *std::max_element(tokens_per_second.begin(), tokens_per_second.end()),
              Median(bandwidth) / 1e9);
  if (bytes_per_token > 0) {
    std::printf("   %.2f of it (best %.2f)", Median(fractions),
                *std::max_element(fractions.begin(), fractions.end()));
  }
  std::printf("\n");
  std::fflush(stdout);
}

void MeasurePrefill(Ranks& ranks, int64_t prompt, int64_t rounds, ReadBandwidth& memory) {
  std::vector<double> speeds, bandwidth;
  for (int64_t round = 0; round < rounds; ++round) {
    ranks.Restart();
    const double seconds = ranks.Run({ranks.NextPlan(1, prompt)});
    speeds.push_back(static_cast<double>(prompt) / seconds);
    bandwidth.push_back(memory.Measure());
  }
  Report(absl::StrCat("prefill ", prompt), speeds, bandwidth, 0);
}

void MeasureDecode(Ranks& ranks, int64_t batch, int64_t context, int64_t steps, int64_t rounds,
                   ReadBandwidth& memory) {
  std::vector<double> speeds, bandwidth;
  ranks.Restart();
  for (int64_t slot = 0; slot < batch && context > 0; slot += 4) {
    ranks.Run({ranks.NextPlan(std::min(batch, slot + 4), context / 4)});
  }
  for (int64_t round = 0; round < rounds; ++round) {
    std::vector<StepPlan> plans;
    for (int64_t step = 0; step < steps; ++step) {
      plans.push_back(ranks.NextPlan(batch, 1));
    }
    const double seconds = ranks.Run(plans);
    speeds.push_back(static_cast<double>(batch * steps) / seconds);
    bandwidth.push_back(memory.Measure());
  }
  Report(absl::StrCat("decode batch ", batch), speeds, bandwidth,
         static_cast<double>(ranks.weight_bytes()) / static_cast<double>(batch));
}

Flags Defaults() {
  return {{"model", "Qwen2-0.5B"}, {"tp", "1"},       {"threads", "2"},
          {"instruction-set", ""}, {"prompt", "512"}, {"batches", "1,8,16"},
          {"context", "128"},      {"rounds", "7"},   {"layers", "0"},
          {"steps", "8"},          {"clock", "wall"}};
}

void Main(const Flags& flags) {
  const ModelConfig config = ConfigOf(flags.at("model"), Number(flags, "layers"));
  DeviceOptions device;
  device.threads = static_cast<int>(Number(flags, "threads"));
  device.instruction_set = flags.at("instruction-set");
  WorkerOptions options;
  options.dummy_weights = true;
  options.parallelism.tp = static_cast<int>(Number(flags, "tp"));
  options.max_model_len = 4096;
  options.max_running = 32;
  options.kv_blocks = options.max_running * options.max_model_len / options.block_size;
  options.max_batch_tokens = std::max<int64_t>(512, Number(flags, "prompt"));
  const Clock clock = flags.at("clock") == "cpu" ? CpuSeconds : WallSeconds;
  Ranks ranks(config, options, device, clock);
  std::printf("%s, %d ranks, %s\n", flags.at("model").c_str(), options.parallelism.tp,
              ranks.description().c_str());
  ReadBandwidth memory(options.parallelism.tp * device.threads, clock);
  const int64_t rounds = Number(flags, "rounds");
  if (Number(flags, "prompt") > 0) {
    MeasurePrefill(ranks, Number(flags, "prompt"), rounds, memory);
  }
  for (const int64_t batch : Numbers(flags, "batches")) {
    CHECK_LE(batch, options.max_running);
    MeasureDecode(ranks, batch, Number(flags, "context"), Number(flags, "steps"), rounds, memory);
  }
}

}  // namespace
}  // namespace cohort

int main(int argc, char** argv) {
  cohort::Main(cohort::ParseFlags(argc, argv, cohort::Defaults()));
}
