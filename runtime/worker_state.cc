#include "runtime/worker_state.h"

#include <algorithm>
#include <utility>

#include "runtime/memory_ledger.h"
#include "runtime/step_digest.h"

namespace cohort {
namespace {

// Fills up lists of most probable ids.
constexpr TokenLogprob kNoLogprob{.id = -1, .logprob = 0};

}  // namespace

absl::StatusOr<std::unique_ptr<Worker::State>> Worker::State::Create(
    const ModelConfig& config, WorkerOptions options, std::unique_ptr<Device> unmetered,
    const LoadProgress& progress) {
  RETURN_IF_ERROR(CheckWorkerOptions(config, options, unmetered.get()));
  options.records_steps = unmetered->records_steps() && MayRecordSteps(config, options);
  ASSIGN_OR_RETURN(const ShardPlan plan,
                   ShardPlan::Make(config.Dims(options.dtype), options.parallelism, options.rank));
  const WorkerMemory planned = LedgerOf(config, plan, options);
  if (unmetered->kind() == "cpu") {
    RETURN_IF_ERROR(CheckHostMemory(planned));
  } else {
    ASSIGN_OR_RETURN(const DeviceMemory memory, unmetered->memory());
    RETURN_IF_ERROR(CheckMemory(planned, memory.free));
  }
  // While the device has the memory that weights will take.
  ASSIGN_OR_RETURN(ProductTuning tuning, TuneWorkerProducts(plan, options, *unmetered));
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
  std::unique_ptr<RecordedSteps> recorded;
  if (options.records_steps) {
    ASSIGN_OR_RETURN(recorded,
                     RecordedSteps::Create(plan, RecordedOptionsOf(config, options), *device));
  }
  allocated.workspace = device->TakeBytes();
  ASSIGN_OR_RETURN(KvCache kv, KvCache::Create(plan, KvBlocksOf(options), options.block_size,
                                               options.dtype, *device));
  allocated.kv = device->TakeBytes();
  ASSIGN_OR_RETURN(LoadedWeights loaded,
                   LoadWorkerWeights(config, options, plan, *device, progress));
  allocated.weights = device->TakeBytes();
  ASSIGN_OR_RETURN(
      std::unique_ptr<Qwen2> model,
      Qwen2::Create(config, plan, std::move(loaded.weights), ModelOptionsOf(options), *device));
  allocated.workspace += device->TakeBytes();
  return std::make_unique<State>(
      config, options, limits,
      Parts{std::move(device), std::move(model), std::move(kv), std::move(batch),
            std::move(chooser), std::move(recorded), std::move(loaded.warnings), planned, allocated,
            std::move(tuning)});
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
  recordable_.Reset();
  epoch_ = epoch;
  last_step_ = 0;
  const std::lock_guard<std::mutex> lock(mutex_);
  tensor_group_ = std::move(tensor_group);
  data_group_ = data_group != nullptr ? std::move(data_group) : MakeSelfCommunicator();
  return absl::OkStatus();
}

void Worker::State::LeaveEpoch() {
  Abort();
  if (parts_.recorded != nullptr) {
    parts_.recorded->Forget();  // the communicators are part of what is recorded
  }
  outstanding_.clear();
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
  // Decodes lead: attention has a way of its own for them.
  for (const bool is_decode : {true, false}) {
    for (size_t i = 0; i < plan.rows.size(); ++i) {
      if ((plan.rows[i].tokens.size() == 1) == is_decode) {
        RETURN_IF_ERROR(AddRows(plan.rows[i], i));
      }
    }
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
    StepRows rows = parts_.batch.Upload();
    rows.rows_of_groups = group_rows_.all;
    rows.wanted_of_groups = group_rows_.wanted;
    parts_.model->Forward(rows, parts_.kv, *tensor_group_, *data_group_);
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
  StepDigest digest;
  digest.Add(plan.step);
  StepResult step;
  step.epoch = plan.epoch;
  step.step = plan.step;
  for (SequenceResult& result : results) {
    for (const int32_t token : result.tokens) {
      digest.Add(static_cast<uint32_t>(token));
    }
    const bool has_result = !result.tokens.empty() || !result.logprobs.empty();
    if (has_result && answers()) {
      step.sequences.push_back(std::move(result));
    }
  }
  if (answers()) {
    step.expert_hits = TakeExpertHits();
  }
  step.digest = digest.value();
  return step;
}

std::vector<int32_t> Worker::State::TakeExpertHits() {
  const TensorView& hits = parts_.model->expert_hits();
  expert_hits_.resize(static_cast<size_t>(hits.shape.elements()));
  if (!expert_hits_.empty()) {
    parts_.device->CopyToHost(hits, expert_hits_.data());
  }
  std::vector<int32_t> gained;
  expert_load_.Take(expert_hits_, hits.columns(), gained);
  return gained;
}

absl::StatusOr<StepResult> Worker::State::RunAtOnce(const StepPlan& plan) {
  RETURN_IF_ERROR(Accept(plan));
  RETURN_IF_ERROR(Compute());
  StepResult result = Report(plan);
  for (const uint32_t slot : plan.releases) {
    RETURN_IF_ERROR(slots_.Release(slot));
  }
  for (SequenceResult& sequence : result.sequences) {
    sequence.slot += first_slot();
  }
  return result;
}

}  // namespace cohort
