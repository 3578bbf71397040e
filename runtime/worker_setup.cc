#include "runtime/worker_setup.h"

#include <algorithm>
#include <limits>

#include "runtime/checkpoint_source.h"
#include "runtime/tuned_products.h"
#include "runtime/weights.h"

namespace cohort {
namespace {

absl::Status CheckOption(StringView name, int64_t value, int64_t limit) {
  return value >= 1 && value <= limit ? absl::OkStatus()
                                      : absl::InvalidArgumentError(absl::StrCat(
                                            name, " is ", value, "; it must be in 1..", limit));
}

}  // namespace

absl::Status CheckWorkerOptions(const ModelConfig& config, const WorkerOptions& options,
                                Device* device) {
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
  if (options.host_embedding && config.tied_embeddings) {
    return absl::InvalidArgumentError(
        "the embedding cannot lie in host memory: it is the model's head too");
  }
  if (options.token_ids < 0) {
    return absl::InvalidArgumentError(absl::StrCat("token_ids is ", options.token_ids));
  }
  return absl::OkStatus();
}

absl::StatusOr<LoadedWeights> LoadWorkerWeights(const ModelConfig& config,
                                                const WorkerOptions& options, const ShardPlan& plan,
                                                Device& device, const LoadProgress& progress) {
  LoadedWeights loaded;
  if (options.dummy_weights) {
    const std::unique_ptr<WeightSource> source = MakeDummySource();
    ASSIGN_OR_RETURN(loaded.weights, LoadWeights(config, plan, *source, options.dtype, device,
                                                 progress, options.host_embedding));
    return loaded;
  }
  ASSIGN_OR_RETURN(const std::unique_ptr<Checkpoint> checkpoint,
                   Checkpoint::Open(options.model_dir));
  ASSIGN_OR_RETURN(const CheckpointReport report, CheckCheckpoint(*checkpoint, config));
  for (const std::string& name : report.extra_tensors) {
    loaded.warnings.push_back(
        absl::StrCat("tensor ", name, " of the checkpoint is not part of the model: ignored"));
  }
  const std::unique_ptr<WeightSource> source =
      MakeCheckpointSource(*checkpoint, options.weight_stream);
  ASSIGN_OR_RETURN(loaded.weights, LoadWeights(config, plan, *source, options.dtype, device,
                                               progress, options.host_embedding));
  return loaded;
}

absl::StatusOr<ProductTuning> TuneWorkerProducts(const ShardPlan& plan,
                                                 const WorkerOptions& options, Device& device) {
  if (!options.tune_products) {
    return ProductTuning();
  }
  absl::StatusOr<ProductTuning> tuning = TuneProducts(
      device, TunedProductsOf(plan, options.dtype, options.max_batch_tokens), options.tuning_file);
  if (!absl::IsResourceExhausted(tuning.status())) {
    return tuning;
  }
  // Beside other ranks on the device. What was tuned so far is.
  ProductTuning none;
  none.note = absl::StrCat("products are not tuned: ", tuning.status().message());
  return none;
}

int64_t ValidIds(const ModelConfig& config, const WorkerOptions& options) {
  return options.mask_padding && options.token_ids > 0
             ? std::min(options.token_ids, config.vocabulary)
             : config.vocabulary;
}

}  // namespace cohort
