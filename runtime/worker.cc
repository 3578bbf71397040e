#include "runtime/worker.h"

#include <algorithm>
#include <limits>
#include <mutex>
#include <utility>

#include "absl/memory/memory.h"
#include "runtime/expert_load.h"
#include "runtime/kv_cache.h"
#include "runtime/memory_ledger.h"
#include "runtime/metered_device.h"
#include "runtime/plan_parts.h"
#include "runtime/position_rule.h"
#include "runtime/qwen2.h"
#include "runtime/safetensors.h"
#include "runtime/weight_loader.h"
#include "runtime/weights.h"
#include "runtime/worker_batch.h"
#include "runtime/worker_chooser.h"
#include "runtime/worker_slots.h"

namespace cohort {
namespace {

absl::Status CheckOption(StringView name, int64_t value, int64_t limit) {
  return value >= 1 && value <= limit ? absl::OkStatus()
                                      : absl::InvalidArgumentError(absl::StrCat(
                                            name, " is ", value, "; it must be in 1..", limit));
}

absl::Status CheckOptions(const ModelConfig& config, const WorkerOptions& options, Device* device) {
  constexpr int64_t kMaxInt32 = std::numeric_limits<int32_t>::max();
  if (device == nullptr) {
    return absl::InvalidArgumentError("a worker needs a device");
  }
  if (options.dtype != DType::kF32 && options.dtype != DType::kBF16) {
    return absl::InvalidArgumentError(
        absl::StrCat("dtype is ", NameOf(options.dtype), "; fp32 and bf16 can be computed with"));
  }
  RETURN_IF_ERROR(CheckOption("kv_blocks", options.kv_blocks, kMaxInt32));
  RETURN_IF_ERROR(CheckOption("block_size", options.block_size, 1 << 16));
  RETURN_IF_ERROR(CheckOption("max_batch_tokens", options.max_batch_tokens, 1 << 20));
  RETURN_IF_ERROR(CheckOption("max_running", options.max_running, 1 << 20));
  RETURN_IF_ERROR(CheckOption("max_model_len", options.max_model_len, config.position_limit));
  RETURN_IF_ERROR(CheckOption("vocab_size", config.vocabulary, kMaxVocabulary));
  if (config.dual_chunk.has_value() && !device->ops().HasDualChunkAttention()) {
    return absl::UnimplementedError(absl::StrCat("dual chunk attention on device '", device->kind(),
                                                 "' is not there yet: use --device cpu"));
  }
  if (options.token_ids < 0) {
    return absl::InvalidArgumentError(absl::StrCat("token_ids is ", options.token_ids));
  }
  return absl::OkStatus();
}

struct LoadedWeights {
  ModelWeights weights;
  std::vector<std::string> warnings;
};

absl::StatusOr<LoadedWeights> Load(const ModelConfig& config, const WorkerOptions& options,
                                   const ShardPlan& plan, Device& device,
                                   const LoadProgress& progress) {
  LoadedWeights loaded;
  if (options.dummy_weights) {
    const std::unique_ptr<WeightSource> source = MakeDummySource();
    ASSIGN_OR_RETURN(loaded.weights,
                     LoadWeights(config, plan, *source, options.dtype, device, progress));
    return loaded;
  }
  ASSIGN_OR_RETURN(const std::unique_ptr<Checkpoint> checkpoint,
                   Checkpoint::Open(options.model_dir));
  ASSIGN_OR_RETURN(const CheckpointReport report, CheckCheckpoint(*checkpoint, config));
  for (const std::string& name : report.extra_tensors) {
    loaded.warnings.push_back(
        absl::StrCat("tensor ", name, " of the checkpoint is not part of the model: ignored"));
  }
  const std::unique_ptr<WeightSource> source = MakeCheckpointSource(*checkpoint);
  ASSIGN_OR_RETURN(loaded.weights,
                   LoadWeights(config, plan, *source, options.dtype, device, progress));
  return loaded;
}

// Ids that may be chosen: those with a token, or all where the tokenizer's are not known.
int64_t ValidIds(const ModelConfig& config, const WorkerOptions& options) {
  return options.mask_padding && options.token_ids > 0
             ? std::min(options.token_ids, config.vocabulary)
             : config.vocabulary;
}

// Fills up lists of most probable ids.
constexpr TokenLogprob kNoLogprob{.id = -1, .logprob = 0};

// FNV-1a over 64-bit words.
class Digest {
 public:
  void Add(uint64_t word) { hash_ = (hash_ ^ word) * 0x100000001b3u; }
  uint64_t value() const { return hash_; }

 private:
  uint64_t hash_ = 0xcbf29ce484222325u;
};

}  // namespace

class Worker::State {
 public:
  struct Parts {
    std::unique_ptr<Device> device;
    std::unique_ptr<Qwen2> model;
    KvCache kv;
    WorkerBatch batch;
    WorkerChooser chooser;
    std::vector<std::string> warnings;
    WorkerMemory planned;
    WorkerMemory allocated;
  };

  State(const WorkerOptions& options, const WorkerLimits& limits, Parts parts)
      : options_(options), parts_(std::move(parts)), slots_(limits) {}

  static absl::StatusOr<std::unique_ptr<State>> Create(const ModelConfig& config,
                                                       const WorkerOptions& options,
                                                       std::unique_ptr<Device> device,
                                                       const LoadProgress& progress);

  absl::Status JoinEpoch(uint64_t epoch, std::unique_ptr<Communicator> tensor_group,
                         std::unique_ptr<Communicator> data_group);
  void LeaveEpoch();
  absl::StatusOr<StepResult> Run(StepPlan plan);
  void Abort();

  const Parts& parts() const { return parts_; }

 private:
  absl::Status CheckGroup(const Communicator* communicator, const RankList& group) const;
  absl::Status CheckTurn(const StepPlan& plan) const;
  absl::StatusOr<StepResult> RunPart(StepPlan whole);
  absl::Status Accept(const StepPlan& plan);
  absl::Status AddRows(const SequenceRows& rows, size_t sequence);
  absl::Status Compute();
  StepResult Report(const StepPlan& plan);

  WorkerOptions options_;
  Parts parts_;
  WorkerSlots slots_;
  ExpertLoad expert_load_;
  uint64_t epoch_ = 0;
  uint64_t last_step_ = 0;
  std::mutex mutex_;  // of the pointers, against Abort() from another thread
  std::unique_ptr<Communicator> tensor_group_;
  std::unique_ptr<Communicator> data_group_;
};

absl::StatusOr<std::unique_ptr<Worker::State>> Worker::State::Create(
    const ModelConfig& config, const WorkerOptions& options, std::unique_ptr<Device> unmetered,
    const LoadProgress& progress) {
  RETURN_IF_ERROR(CheckOptions(config, options, unmetered.get()));
  ASSIGN_OR_RETURN(const ShardPlan plan,
                   ShardPlan::Make(config.Dims(options.dtype), options.parallelism, options.rank));
  const WorkerMemory planned = LedgerOf(config, plan, options);
  if (unmetered->kind() == "cpu") {
    RETURN_IF_ERROR(CheckHostMemory(planned));
  }
  WorkerMemory allocated;
  auto device = std::make_unique<MeteredDevice>(std::move(unmetered));
  const WorkerLimits limits = {
      .slots = options.max_running,
      .positions = options.max_model_len,
      .plain_positions = std::min(config.plain_rope_positions(), options.max_model_len),
      .kv_blocks = options.kv_blocks,
      .block_size = options.block_size,
      .vocabulary = config.vocabulary};
  ASSIGN_OR_RETURN(WorkerBatch batch,
                   WorkerBatch::Create(options.max_batch_tokens, options.max_running,
                                       limits.blocks_per_sequence(),
                                       PositionRule(config, options.max_model_len), *device));
  ASSIGN_OR_RETURN(WorkerChooser chooser, WorkerChooser::Create(plan, ValidIds(config, options),
                                                                options.max_batch_tokens, *device));
  allocated.workspace = device->TakeBytes();
  ASSIGN_OR_RETURN(KvCache kv, KvCache::Create(plan, options.kv_blocks, options.block_size,
                                               options.dtype, *device));
  allocated.kv = device->TakeBytes();
  ASSIGN_OR_RETURN(LoadedWeights loaded, Load(config, options, plan, *device, progress));
  allocated.weights = device->TakeBytes();
  ASSIGN_OR_RETURN(
      std::unique_ptr<Qwen2> model,
      Qwen2::Create(config, plan, std::move(loaded.weights), ModelOptionsOf(options), *device));
  allocated.workspace += device->TakeBytes();
  return std::make_unique<State>(
      options, limits,
      Parts{std::move(device), std::move(model), std::move(kv), std::move(batch),
            std::move(chooser), std::move(loaded.warnings), planned, allocated});
}

absl::Status Worker::State::CheckGroup(const Communicator* communicator,
                                       const RankList& group) const {
  const int index =
      static_cast<int>(std::find(group.begin(), group.end(), options_.rank) - group.begin());
  if (communicator == nullptr || communicator->size() != static_cast<int>(group.size()) ||
      communicator->rank() != index) {
    return absl::InvalidArgumentError(
        absl::StrCat("rank ", options_.rank, " came with a communicator that is not that of rank ",
                     index, " of a group of ", group.size()));
  }
  return absl::OkStatus();
}

absl::Status Worker::State::JoinEpoch(uint64_t epoch, std::unique_ptr<Communicator> tensor_group,
                                      std::unique_ptr<Communicator> data_group) {
  const Parallelism& parallelism = options_.parallelism;
  absl::Status status = CheckGroup(tensor_group.get(), TensorGroup(parallelism, options_.rank));
  if (status.ok() && (data_group != nullptr || parts_.model->exchanges_rows())) {
    status = CheckGroup(data_group.get(), DataGroup(parallelism, options_.rank));
  }
  RETURN_IF_ERROR(Annotate(status, absl::StrCat("joining epoch ", epoch)));
  LeaveEpoch();
  slots_.Reset();
  epoch_ = epoch;
  last_step_ = 0;
  const std::lock_guard<std::mutex> lock(mutex_);
  tensor_group_ = std::move(tensor_group);
  data_group_ = data_group != nullptr ? std::move(data_group) : MakeSelfCommunicator();
  return absl::OkStatus();
}

void Worker::State::LeaveEpoch() {
  Abort();
  const std::lock_guard<std::mutex> lock(mutex_);
  tensor_group_ = nullptr;
  data_group_ = nullptr;
}

void Worker::State::Abort() {
  const std::lock_guard<std::mutex> lock(mutex_);
  for (Communicator* group : {tensor_group_.get(), data_group_.get()}) {
    if (group != nullptr) {
      group->Abort();
    }
  }
}

absl::Status Worker::State::CheckTurn(const StepPlan& plan) const {
  if (tensor_group_ == nullptr) {
    return absl::FailedPreconditionError(
        absl::StrCat("a plan of epoch ", plan.epoch, " came outside of any epoch"));
  }
  if (plan.epoch != epoch_ || plan.step != last_step_ + 1) {
    return absl::FailedPreconditionError(absl::StrCat("a plan of epoch ", plan.epoch, ", step ",
                                                      plan.step, " came where epoch ", epoch_,
                                                      ", step ", last_step_ + 1, " was expected"));
  }
  return absl::OkStatus();
}

// Brings slots, batch and the wanted logits to what the plan says.
absl::Status Worker::State::Accept(const StepPlan& plan) {
  parts_.batch.Clear();
  parts_.chooser.rows().clear();
  if (plan.tokens() > options_.max_batch_tokens ||
      static_cast<int64_t>(plan.rows.size()) > options_.max_running) {
    return absl::InternalError(absl::StrCat("the plan has ", plan.tokens(), " rows of ",
                                            plan.rows.size(), " sequences, over the limits of ",
                                            options_.max_batch_tokens, " and ",
                                            options_.max_running));
  }
  for (const AdmitSequence& admit : plan.admits) {
    RETURN_IF_ERROR(slots_.Admit(admit));
  }
  for (size_t i = 0; i < plan.rows.size(); ++i) {
    RETURN_IF_ERROR(AddRows(plan.rows[i], i));
  }
  return absl::OkStatus();
}

absl::Status Worker::State::AddRows(const SequenceRows& rows, size_t sequence) {
  const size_t first_row = parts_.batch.ids().size();
  RETURN_IF_ERROR(slots_.Extend(rows, parts_.batch.ids()));
  parts_.batch.AddSequence(static_cast<int64_t>(rows.first_position), slots_.kind(rows.slot),
                           slots_.blocks(rows.slot));
  for (size_t i = 0; i < rows.tokens.size(); ++i) {
    LogitRow wanted;
    wanted.target = rows.score_targets.empty() ? -1 : std::max(rows.score_targets[i], -1);
    wanted.score_top = wanted.target < 0 ? 0 : static_cast<int32_t>(rows.score_top);
    wanted.sample = rows.sample && i + 1 == rows.tokens.size();
    wanted.sequence = sequence;
    wanted.row_of_rows = i;
    if (wanted.sample) {
      wanted.sampling = slots_.NextSamplingRow(rows.slot);
      wanted.view = slots_.View(rows.slot);
    }
    if (wanted.sample || wanted.target >= 0) {
      wanted.row = parts_.batch.Want(first_row + i);
      parts_.chooser.rows().push_back(std::move(wanted));
    }
  }
  return absl::OkStatus();
}

absl::Status Worker::State::Compute() {
  // Other groups may need this one's experts.
  if (parts_.batch.tokens() > 0 || parts_.model->exchanges_rows()) {
    parts_.model->Forward(parts_.batch.Upload(), parts_.kv, *tensor_group_, *data_group_);
    parts_.chooser.Run(*parts_.model, *tensor_group_);
  }
  const absl::Status device_status = parts_.device->Synchronize();
  RETURN_IF_ERROR(tensor_group_->status());
  RETURN_IF_ERROR(data_group_->status());
  return device_status;
}

// Every rank remembers what was sampled; the first of the group tells.
StepResult Worker::State::Report(const StepPlan& plan) {
  std::vector<SequenceResult> results(plan.rows.size());
  for (size_t i = 0; i < plan.rows.size(); ++i) {
    results[i].slot = plan.rows[i].slot;
    results[i].logprobs.resize(plan.rows[i].score_targets.size());
    results[i].score_top.resize(plan.rows[i].score_targets.size() * plan.rows[i].score_top,
                                kNoLogprob);
  }
  for (const LogitRow& row : parts_.chooser.rows()) {
    SequenceResult& result = results[row.sequence];
    if (row.target >= 0) {
      result.logprobs[row.row_of_rows] = row.logprob;
      const size_t wanted = plan.rows[row.sequence].score_top;
      std::copy_n(row.top.begin(), std::min(wanted, row.top.size()),
                  result.score_top.begin() + static_cast<std::ptrdiff_t>(row.row_of_rows * wanted));
    }
    if (row.sample) {
      if (row.token_top() >= 0) {
        const size_t wanted = static_cast<size_t>(row.token_top());
        result.token_logprobs.push_back(row.token_logprob);
        result.token_top.assign(
            row.top.begin(),
            row.top.begin() + static_cast<std::ptrdiff_t>(std::min(wanted, row.top.size())));
        result.token_top.resize(wanted, kNoLogprob);
      }
      result.tokens.push_back(row.token);
      slots_.RecordSample(result.slot, plan.step, row.token);
    }
  }
  Digest digest;
  digest.Add(plan.step);
  StepResult step;
  step.epoch = plan.epoch;
  step.step = plan.step;
  for (SequenceResult& result : results) {
    for (const int32_t token : result.tokens) {
      digest.Add(static_cast<uint32_t>(token));
    }
    const bool has_result = !result.tokens.empty() || !result.logprobs.empty();
    if (has_result && tensor_group_->rank() == 0) {
      step.sequences.push_back(std::move(result));
    }
  }
  if (tensor_group_->rank() == 0) {
    step.expert_hits = expert_load_.Take(parts_.model->expert_hits(), *parts_.device);
  }
  step.digest = digest.value();
  return step;
}

// What the plan has for this rank's data-parallel group.
absl::StatusOr<StepResult> Worker::State::RunPart(StepPlan whole) {
  const int group = options_.rank / options_.parallelism.tp;
  ASSIGN_OR_RETURN(const StepPlan plan,
                   PartOf(std::move(whole), group, options_.parallelism.dp, options_.max_running));
  RETURN_IF_ERROR(Accept(plan));
  RETURN_IF_ERROR(Compute());
  StepResult result = Report(plan);
  for (const uint32_t slot : plan.releases) {
    RETURN_IF_ERROR(slots_.Release(slot));
  }
  for (SequenceResult& sequence : result.sequences) {
    sequence.slot += static_cast<uint32_t>(group * options_.max_running);
  }
  return result;
}

absl::StatusOr<StepResult> Worker::State::Run(StepPlan plan) {
  RETURN_IF_ERROR(CheckTurn(plan));
  const uint64_t step = plan.step;
  absl::StatusOr<StepResult> result = RunPart(std::move(plan));
  if (!result.ok()) {
    return Annotate(result.status(),
                    absl::StrCat("rank ", options_.rank, ", epoch ", epoch_, ", step ", step));
  }
  last_step_ = step;
  return result;
}

Worker::Worker(std::unique_ptr<State> state) : state_(std::move(state)) {}
Worker::~Worker() { state_->LeaveEpoch(); }

absl::StatusOr<std::unique_ptr<Worker>> Worker::Create(const ModelConfig& config,
                                                       const WorkerOptions& options,
                                                       std::unique_ptr<Device> device,
                                                       LoadProgress progress) {
  ASSIGN_OR_RETURN(std::unique_ptr<State> state,
                   State::Create(config, options, std::move(device), progress));
  return absl::WrapUnique(new Worker(std::move(state)));
}

absl::Status Worker::JoinEpoch(uint64_t epoch, std::unique_ptr<Communicator> tensor_group,
                               std::unique_ptr<Communicator> data_group) {
  return state_->JoinEpoch(epoch, std::move(tensor_group), std::move(data_group));
}
void Worker::LeaveEpoch() { state_->LeaveEpoch(); }
absl::StatusOr<StepResult> Worker::Run(StepPlan plan) { return state_->Run(std::move(plan)); }
void Worker::Abort() { state_->Abort(); }

int64_t Worker::weight_bytes() const { return state_->parts().model->weight_bytes(); }
int64_t Worker::kv_bytes() const { return state_->parts().kv.bytes(); }
WorkerMemory Worker::planned_memory() const { return state_->parts().planned; }
WorkerMemory Worker::allocated_memory() const { return state_->parts().allocated; }
std::vector<std::string> Worker::warnings() const { return state_->parts().warnings; }

}  // namespace cohort
