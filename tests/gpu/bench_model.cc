#include "tests/gpu/bench_model.h"

#include <algorithm>

#include "kernels/check.h"
#include "parallel/plugin_communicator.h"
#include "runtime/layout_cost.h"
#include "tests/gpu/measurement.h"

namespace cohort::gpu {
namespace {

// Its copies are ordered with the device's other work.
std::unique_ptr<Communicator> GroupOfOne(Device& device) {
  if (device.kind() != "cuda") {
    return MakeSelfCommunicator();
  }
  auto group = MakePluginCommunicator(device, PluginCommunicatorOptions());
  CHECK_OK(group.status());
  CHECK_OK((*group)->Join());
  return *std::move(group);
}

}  // namespace

ModelRun::ModelRun(const Flags& flags, const std::string& checkpoint, int64_t sequences,
                   int64_t max_len, int64_t batch_tokens)
    : config_(ConfigOf(checkpoint.empty() ? flags.at("model") : checkpoint)) {
  options_.model_dir = checkpoint;
  options_.dummy_weights = checkpoint.empty();
  options_.max_model_len = max_len;
  options_.max_running = sequences;
  options_.max_batch_tokens = batch_tokens;
  options_.kv_blocks = sequences * ((max_len + options_.block_size - 1) / options_.block_size);
  options_.tune_products = Number(flags, "tune") != 0;
  options_.host_embedding = Number(flags, "host-embedding") != 0;
  std::unique_ptr<Device> device = OpenDevice(flags);
  Device& kept = *device;  // by the worker
  auto worker = Worker::Create(config_, options_, std::move(device), nullptr);
  CHECK_OK(worker.status());
  worker_ = *std::move(worker);
  CHECK_OK(worker_->JoinEpoch(1, GroupOfOne(kept)));
}

ModelRun::~ModelRun() { worker_->LeaveEpoch(); }

StepPlan ModelRun::PlanFor(int64_t first, int64_t count, int64_t rows, bool sample) {
  const int64_t blocks = options_.kv_blocks / options_.max_running;
  StepPlan plan;
  plan.epoch = 1;
  plan.step = last_step_ + 1;
  for (int64_t slot = first; slot < first + count; ++slot) {
    SequenceRows& planned = plan.rows.emplace_back();
    planned.slot = static_cast<uint32_t>(slot);
    planned.first_position = static_cast<uint64_t>(position_);
    planned.sample = sample;
    if (position_ == 0) {
      plan.admits.push_back({.slot = planned.slot, .sampling = {}});
      for (int64_t block = 0; block < blocks; ++block) {
        planned.appended_blocks.push_back(static_cast<int32_t>(slot * blocks + block));
      }
    }
    for (int64_t row = 0; row < rows; ++row) {
      planned.tokens.push_back(
          {.id = static_cast<int32_t>((position_ + row) * 31 %
                                      std::min<int64_t>(config_.vocabulary, 1000))});
    }
    if (rows == 1 && have_all_sampled_) {
      planned.tokens[0].sampled_in_step = last_step_;
    }
  }
  return plan;
}

// As a rank does: the next plan is enqueued while the device computes the one before it.
void ModelRun::Run(StepPlan plan) {
  ++last_step_;
  const double begin = Now();
  CHECK_OK(worker_->Enqueue(std::move(plan)));
  enqueue_seconds_.push_back(Now() - begin);
  while (worker_->outstanding() > 1) {
    CHECK_OK(worker_->Collect().status());
  }
}

void ModelRun::Finish() {
  while (worker_->outstanding() > 0) {
    CHECK_OK(worker_->Collect().status());
  }
}

void ModelRun::Step(int64_t sequences, int64_t rows, bool sample) {
  Run(PlanFor(0, sequences, rows, sample));
  position_ += rows;
  have_all_sampled_ = sample;
}

void ModelRun::FillTo(int64_t context) {
  while (position_ < context) {
    const int64_t rows = std::min(options_.max_batch_tokens, context - position_);
    const int64_t together = std::max<int64_t>(options_.max_batch_tokens / rows, 1);
    for (int64_t slot = 0; slot < options_.max_running; slot += together) {
      Run(PlanFor(slot, std::min(together, options_.max_running - slot), rows, false));
    }
    position_ += rows;
  }
  Step(options_.max_running, 1);
}

StepWork WorkOfStep(const ModelConfig& config, double rows, double sampled, double context,
                    double cached) {
  auto plans = ShardPlan::MakeAll(config.Dims(DType::kBF16), {});
  CHECK_OK(plans.status());
  const StepShape shape{
      .rows = rows, .sampled = sampled, .context = context, .cached_reads = cached};
  // Seconds on machines that need one for a byte, or for an operation, and none for the other.
  constexpr double kNone = 1e300;
  Hardware reads, computes;
  reads.bytes_per_second = computes.operations_per_second = 1;
  reads.operations_per_second = computes.bytes_per_second = kNone;
  return {.bytes = LayoutCost(*plans, reads, 8).Seconds(shape).compute,
          .operations = LayoutCost(*plans, computes, 8).Seconds(shape).compute};
}

void MeasureDecode(int argc, char** argv) {
  const Flags flags = ParseFlags(argc, argv,
                                 WithCommonFlags({{"model", "Qwen2-7B"},
                                                  {"checkpoint", ""},
                                                  {"batches", "1"},
                                                  {"context", "128"},
                                                  {"steps", "64"},
                                                  {"batch-tokens", "512"},
                                                  {"tune", "1"},
                                                  {"host-embedding", "0"},
                                                  {"suffix", ""}}));
  const int64_t context = Number(flags, "context"), steps = Number(flags, "steps");
  const int64_t rounds = Number(flags, "rounds");
  const std::vector<int64_t> batches = Numbers(flags, "batches");
  const int64_t most = *std::max_element(batches.begin(), batches.end());
  ModelRun run(flags, flags.at("checkpoint"), most, context + (rounds + 2) * steps,
               Number(flags, "batch-tokens"));
  for (const int64_t batch : batches) {
    run.Restart();
    run.FillTo(context);
    run.Finish();
    std::vector<double> seconds;
    for (int64_t round = -1; round < rounds; ++round) {  // the first one warms up
      if (round == 0) {
        run.TakeEnqueueSeconds();
      }
      const double begin = Now();
      for (int64_t step = 0; step < steps; ++step) {
        run.Step(batch, 1);
      }
      run.Finish();
      if (round >= 0) {
        seconds.push_back((Now() - begin) / static_cast<double>(steps));
      }
    }
    const double rows = static_cast<double>(batch);
    // The bars of one sequence are about weights alone; a batch reads its keys and values too.
    const StepWork work =
        WorkOfStep(run.config(), rows, rows, static_cast<double>(batch > 1 ? context : 0), rows);
    Print({absl::StrCat("decode.", ShortName(flags.at("model")), ".b", batch, flags.at("suffix")),
           seconds, work.bytes, work.operations,
           absl::StrCat("context ", context, ", ", run.weight_bytes(), " bytes of weights")});
    Print({absl::StrCat("host.", ShortName(flags.at("model")), ".b", batch, flags.at("suffix")),
           run.TakeEnqueueSeconds(), 0, 0, "the host's part of a step: until it is enqueued"});
  }
}

void MeasurePrefill(int argc, char** argv) {
  const Flags flags = ParseFlags(argc, argv,
                                 WithCommonFlags({{"model", "Qwen2-7B"},
                                                  {"checkpoint", ""},
                                                  {"prompts", "4096"},
                                                  {"batch-tokens", "4096"},
                                                  {"tune", "1"},
                                                  {"host-embedding", "0"},
                                                  {"suffix", ""}}));
  const std::vector<int64_t> prompts = Numbers(flags, "prompts");
  const int64_t longest = *std::max_element(prompts.begin(), prompts.end());
  const int64_t chunk = Number(flags, "batch-tokens");
  ModelRun run(flags, flags.at("checkpoint"), 1, longest, chunk);
  for (const int64_t prompt : prompts) {
    std::vector<double> seconds;
    for (int64_t round = -1; round < Number(flags, "rounds"); ++round) {
      run.Restart();
      const double begin = Now();
      for (int64_t done = 0; done < prompt; done += chunk) {
        run.Step(1, std::min(chunk, prompt - done), done + chunk >= prompt);
      }
      run.Finish();
      if (round >= 0) {
        seconds.push_back(Now() - begin);
      }
    }
    const double rows = static_cast<double>(prompt);
    const StepWork work = WorkOfStep(run.config(), rows, 1, rows / 2, 1);
    Print({absl::StrCat("prefill.", ShortName(flags.at("model")), ".", prompt, flags.at("suffix")),
           seconds, work.bytes, work.operations, absl::StrCat("chunks of ", chunk)});
  }
}

}  // namespace cohort::gpu
