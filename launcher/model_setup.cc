#include "launcher/model_setup.h"

#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <utility>

#include "absl/strings/str_join.h"
#include "kernels/device.h"
#include "kernels/plugin_device.h"
#include "launcher/gpu_memory.h"
#include "launcher/gpu_placement.h"
#include "launcher/pocket_checkpoint.h"
#include "runtime/generation_defaults.h"
#include "runtime/json.h"
#include "runtime/model_config.h"
#include "runtime/safetensors.h"
#include "runtime/weights.h"

namespace cohort {
namespace {

// More than any group can fill; bounds what the scheduler keeps per block.
constexpr int64_t kMaxBlocks = int64_t{1} << 24;

absl::Status CheckPublishedName(const ServeOptions& options) {
  const std::string names = absl::StrJoin(PublishedConfigNames(), ", ");
  if (PublishedConfig(options.model) == nullptr) {
    return absl::NotFoundError(absl::StrCat("'", options.model,
                                            "' is neither a checkpoint directory nor pocket nor "
                                            "a published config (",
                                            names, ")"));
  }
  if (!options.dummy_weights) {
    return absl::FailedPreconditionError(
        absl::StrCat("'", options.model,
                     "' is a published config and has no weights: give a "
                     "checkpoint directory, or add --load-format dummy"));
  }
  return absl::OkStatus();
}

absl::Status ReadDirectoryConfig(const std::string& directory, const ServeOptions& options,
                                 ModelSetup& setup) {
  const std::string config = directory + "/config.json";
  ASSIGN_OR_RETURN(setup.config_json, ReadFile(config, kMaxConfigBytes));
  ASSIGN_OR_RETURN(setup.config, ParseModelConfig(setup.config_json, config, options.overrides));
  const std::string generation = directory + "/generation_config.json";
  const absl::StatusOr<std::string> text = ReadFile(generation, kMaxConfigBytes);
  if (absl::IsNotFound(text.status())) return absl::OkStatus();
  RETURN_IF_ERROR(text.status());
  if (options.generation_config == "auto") {
    ASSIGN_OR_RETURN(setup.default_sampling, ParseGenerationDefaults(*text, generation));
  }
  return MergeGenerationConfig(*text, generation, setup.config);
}

// Names, configuration and whether there is a directory at all.
absl::Status FindModel(const ServeOptions& options, ModelSetup& setup) {
  ASSIGN_OR_RETURN(const std::string model,
                   ResolveModel(options.model.empty() ? kPocketName : options.model));
  std::error_code ignored;
  if (std::filesystem::is_directory(model, ignored)) {
    const std::filesystem::path path = std::filesystem::canonical(model, ignored);
    setup.model = path.string();
    setup.served_name = path.filename().string();
    RETURN_IF_ERROR(ReadDirectoryConfig(setup.model, options, setup));
  } else {
    RETURN_IF_ERROR(CheckPublishedName(options));
    setup.model = setup.served_name = options.model;
    setup.config_json = PublishedConfig(options.model);
    ASSIGN_OR_RETURN(setup.config,
                     ParseModelConfig(setup.config_json, options.model, options.overrides));
  }
  if (!options.served_model_name.empty()) setup.served_name = options.served_model_name;
  return absl::OkStatus();
}

absl::Status CheckDeterministic(const ServeOptions& options, StringView device) {
  if (!options.deterministic || device == "cpu") return absl::OkStatus();
  return absl::FailedPreconditionError(
      absl::StrCat("--deterministic: sums on device '", device,
                   "' may depend on what is computed beside them; use --device cpu"));
}

absl::Status CheckProductTuning(const ServeOptions& options, StringView device) {
  const bool names_file = !options.tuning_file.empty();
  if (device == "cuda" || (options.product_tuning != "on" && !names_file)) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat(names_file ? "--tuning-file" : "--product-tuning on",
                   " is about GPUs, and the ranks are on device '", device,
                   "', which has nothing to tune: use --device cuda"));
}

// Of a single node; each of several decides for itself once it knows its ranks.
absl::Status CheckGpus(const ServeOptions& options, StringView device) {
  if (device != "cuda" && (options.require_nvlink || options.require_rdma)) {
    return absl::InvalidArgumentError(absl::StrCat(
        options.require_nvlink ? "--require-nvlink" : "--require-rdma",
        " is about GPUs, and the ranks are on device '", device, "': use --device cuda"));
  }
  if (device != "cuda" || options.agents > 1) return absl::OkStatus();
  ASSIGN_OR_RETURN(const int gpus, PluginDeviceCount());
  return GpuOf(0, static_cast<int>(options.world()), gpus, options.allow_shared_gpu).status();
}

absl::Status ChooseDevice(const ServeOptions& options, ModelSetup& setup) {
  setup.device = options.device;
  if (options.device == "auto") setup.device = DeviceAvailable("cuda").ok() ? "cuda" : "cpu";
  RETURN_IF_ERROR(DeviceAvailable(setup.device));
  RETURN_IF_ERROR(CheckDeterministic(options, setup.device));
  RETURN_IF_ERROR(CheckProductTuning(options, setup.device));
  RETURN_IF_ERROR(CheckGpus(options, setup.device));
  cpu_set_t allowed;
  const bool known = sched_getaffinity(0, sizeof(allowed), &allowed) == 0;
  const int64_t cores = known ? CPU_COUNT(&allowed) : 1;
  setup.threads =
      options.threads > 0 ? options.threads : std::max<int64_t>(1, cores / options.world());
  return absl::OkStatus();
}

absl::Status ReportExtraTensors(const CheckpointReport& report, bool strict, ModelSetup& setup) {
  if (report.extra_tensors.empty()) return absl::OkStatus();
  if (strict) {
    return absl::InvalidArgumentError(
        absl::StrCat("--strict: the checkpoint has tensors that the model does not: ",
                     absl::StrJoin(report.extra_tensors, ", ")));
  }
  for (const std::string& name : report.extra_tensors) {
    setup.warnings.push_back(
        absl::StrCat("tensor ", name, " of the checkpoint is unknown to the model and ignored"));
  }
  return absl::OkStatus();
}

// The checkpoint's header, and the dtype that follows from it.
absl::Status ChooseDtype(const ServeOptions& options, ModelSetup& setup) {
  bool is_fp32 = setup.config.checkpoint_dtype == "float32";
  if (!options.dummy_weights) {
    ASSIGN_OR_RETURN(const std::unique_ptr<Checkpoint> checkpoint, Checkpoint::Open(setup.model));
    ASSIGN_OR_RETURN(const CheckpointReport report, CheckCheckpoint(*checkpoint, setup.config));
    RETURN_IF_ERROR(ReportExtraTensors(report, options.strict, setup));
    is_fp32 = report.all_fp32;
  }
  if (!options.dtype.empty()) is_fp32 = options.dtype == NameOf(DType::kF32);
  setup.dtype = is_fp32 ? DType::kF32 : DType::kBF16;
  return absl::OkStatus();
}

// Chat of an unknown form is refused per request; the rest of the server does without it.
absl::Status LoadChat(ModelSetup& setup) {
  setup.chat_template = LoadChatTemplate(setup.model);
  const absl::Status status = setup.chat_template.status();
  if (status.ok() && setup.tokenizer->IdOfAddedToken("<|im_start|>") < 0) {
    setup.chat_template = absl::FailedPreconditionError(
        "the tokenizer has no <|im_start|>, which Qwen2's chat template needs: give text or "
        "token_ids");
  }
  if (!status.ok() && !absl::IsFailedPrecondition(status)) return status;
  if (!setup.chat_template.ok()) {
    setup.warnings.push_back(
        absl::StrCat("chat is refused: ", setup.chat_template.status().message()));
  }
  return absl::OkStatus();
}

absl::Status LoadTokenizer(ModelSetup& setup) {
  setup.token_ids = setup.config.vocabulary;
  std::error_code ignored;
  if (!std::filesystem::is_directory(setup.model, ignored)) return absl::OkStatus();
  absl::StatusOr<std::unique_ptr<Tokenizer>> tokenizer = Tokenizer::Load(setup.model);
  if (absl::IsNotFound(tokenizer.status())) return absl::OkStatus();
  RETURN_IF_ERROR(tokenizer.status());
  if ((*tokenizer)->size() > setup.config.vocabulary) {
    return absl::InvalidArgumentError(absl::StrCat(
        setup.model, "/tokenizer.json has ids up to ", (*tokenizer)->size() - 1,
        ", more than the model's vocab_size ", setup.config.vocabulary, " in config.json"));
  }
  setup.token_ids = (*tokenizer)->size();
  setup.tokenizer = *std::move(tokenizer);
  return LoadChat(setup);
}

void WarnOfUnusedYarn(ModelSetup& setup) {
  if (setup.config.dual_chunk.has_value() && setup.config.yarn.has_value()) {
    setup.warnings.push_back(absl::StrCat(
        "with dual chunk attention the rotations are plain: YaRN only says how long a ",
        "sequence may be"));
  }
}

// Refused before a rank is started; each rank then checks all it needs (runtime/worker_memory.h).
absl::Status CheckKvMemoryFitsHost(const ServeOptions& options, const ModelSetup& setup) {
  const int64_t bytes = int64_t{sysconf(_SC_PHYS_PAGES)} * sysconf(_SC_PAGESIZE);
  const int64_t wanted = options.kv_memory_bytes.value_or(kDefaultKvMemoryBytes);
  if (setup.device != "cpu" || wanted <= bytes) return absl::OkStatus();
  return absl::ResourceExhaustedError(absl::StrCat(
      "--kv-memory ", wanted, " bytes is more than the memory of this machine, ", bytes, " bytes"));
}

absl::Status CheckExperts(const ServeOptions& options, const ModelSetup& setup) {
  if (setup.config.experts == 0 && options.ep > 1) {
    return absl::InvalidArgumentError(absl::StrCat("--ep ", options.ep, ": ", setup.served_name,
                                                   " has no experts; leave it at 1"));
  }
  const int64_t world = options.world();
  if (world % options.ep == 0) return absl::OkStatus();
  std::vector<int64_t> legal;
  for (int64_t ep = 1; ep <= world; ++ep) {
    if (world % ep == 0) legal.push_back(ep);
  }
  return absl::InvalidArgumentError(
      absl::StrCat("--ep ", options.ep, " does not divide the number of ranks, ", world, ": ",
                   absl::StrJoin(legal, ", "), legal.size() == 1 ? " does" : " do"));
}

absl::Status CheckSimulated(const ServeOptions& options, const ModelSetup& setup) {
  if (options.tp > 1 || options.dp > 1 || options.ep > 1 || options.agents > 1) {
    return absl::InvalidArgumentError(
        "--simulate-rank is one rank alone: it goes with no --tp, --dp, --ep or --agents");
  }
  if (options.simulated->size <= setup.config.query_heads) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("--simulate-rank ", options.simulated->rank, "/", options.simulated->size, ": ",
                   setup.served_name, " can be cut over at most ", setup.config.query_heads,
                   " ranks, its query heads"));
}

absl::Status CheckDegrees(const ServeOptions& options, const ModelSetup& setup) {
  constexpr int64_t kMaxRanks = 4096;
  if (options.simulated.has_value()) return CheckSimulated(options, setup);
  if (options.tp > setup.config.query_heads) {
    return absl::InvalidArgumentError(
        absl::StrCat("--tp ", options.tp, " is outside 1 to ", setup.config.query_heads,
                     ", the number of query heads of ", setup.served_name));
  }
  if (options.world() > kMaxRanks) {
    return absl::InvalidArgumentError(absl::StrCat(
        "--dp ", options.dp, " is outside 1 to ", kMaxRanks / options.tp, ": with --tp ",
        options.tp, " it makes ", options.world(), " ranks; there can be ", kMaxRanks));
  }
  return absl::OkStatus();
}

absl::Status CheckGpuMemoryFlags(const ServeOptions& options, const ModelSetup& setup) {
  if (setup.device != "cuda" &&
      (options.gpu_memory.has_value() || options.embedding_memory != "auto")) {
    return absl::InvalidArgumentError(absl::StrCat(
        options.gpu_memory.has_value() ? "--gpu-memory" : "--embedding-memory",
        " is about GPUs, and the ranks are on device '", setup.device, "': use --kv-memory"));
  }
  if (options.gpu_memory.has_value() && options.kv_memory_bytes.has_value()) {
    return absl::InvalidArgumentError(
        "--gpu-memory and --kv-memory both say how much KV memory a rank has: give one of them");
  }
  return absl::OkStatus();
}

// KV memory is what the ranks' weights and workspaces leave of their GPUs. The GPUs of other nodes
// are taken to be like this node's; a rank that finds less refuses to start.
absl::Status DivideGpuMemory(ServeOptions& options, ModelSetup& setup) {
  setup.host_embedding = options.embedding_memory == "host";
  if (options.kv_memory_bytes.has_value()) return absl::OkStatus();
  ASSIGN_OR_RETURN(const int64_t gpus, PluginDeviceCount());
  ASSIGN_OR_RETURN(const int64_t total_bytes, PluginDeviceMemory());
  const int64_t local_ranks = (options.world() + options.agents - 1) / options.agents;
  const int64_t sharers = (local_ranks + gpus - 1) / gpus;
  // Ranks that share a GPU are tests: none of them is to take what the others may need.
  if (sharers > 1 && !options.gpu_memory.has_value()) return absl::OkStatus();
  ASSIGN_OR_RETURN(
      const int64_t rank_bytes,
      GpuBytesOfRank(options.gpu_memory.value_or(GpuMemoryLimit{}), total_bytes, sharers));
  ASSIGN_OR_RETURN(const GpuRoom room, FindGpuRoom(options, setup.config, setup.dtype, rank_bytes));
  options.kv_memory_bytes = room.kv_bytes;
  setup.host_embedding = room.host_embedding;
  return absl::OkStatus();
}

// KV bytes of one token on the rank that holds most of them.
absl::StatusOr<int64_t> KvBytesPerToken(const ServeOptions& options, const ModelSetup& setup) {
  int64_t most = 0;
  ASSIGN_OR_RETURN(const std::vector<ShardPlan> plans,
                   ShardPlan::MakeAll(setup.config.Dims(setup.dtype), options.parallelism()));
  for (const ShardPlan& plan : plans) {
    most = std::max(most, plan.kv_bytes_per_token());
  }
  return most;
}

}  // namespace

absl::StatusOr<KvSetup> SetUpKv(const ServeOptions& options, int64_t bytes_per_token,
                                const PositionBounds& positions, StringView kv_source) {
  if (options.max_model_len > positions.limit) {
    return absl::InvalidArgumentError(absl::StrCat(
        "--max-model-len ", options.max_model_len, " is outside 1 to ", positions.limit,
        ", the model's max_position_embeddings or what YaRN makes of it; --rope-scaling and "
        "--dual-chunk make it longer"));
  }
  KvSetup kv;
  const int64_t memory = options.kv_memory_bytes.value_or(kDefaultKvMemoryBytes);
  const int64_t bytes_per_block = bytes_per_token * options.block_size;
  kv.blocks = std::min(memory / bytes_per_block, kMaxBlocks);
  if (kv.blocks < 1) {
    return absl::ResourceExhaustedError(
        absl::StrCat("--kv-memory ", memory, " bytes is less than one block (", options.block_size,
                     " tokens) takes on a rank: ", bytes_per_block, " bytes"));
  }
  kv.max_model_len = options.max_model_len > 0 ? options.max_model_len : positions.usual;
  if (kv.blocks * options.block_size >= kv.max_model_len) return kv;
  const int64_t needed_blocks = (kv.max_model_len + options.block_size - 1) / options.block_size;
  const int64_t needed_bytes = needed_blocks * bytes_per_block;
  const std::string missing =
      absl::StrCat("a sequence of ", kv.max_model_len, " tokens takes ", needed_bytes,
                   " bytes of KV memory on a rank; ", kv_source, " gives ", memory, " bytes, ",
                   needed_bytes - memory, " bytes are missing");
  if (options.max_model_len > 0) {
    return absl::ResourceExhaustedError(
        absl::StrCat("--max-model-len ", options.max_model_len, ": ", missing));
  }
  kv.max_model_len = kv.blocks * options.block_size;
  kv.warnings.push_back(
      absl::StrCat("max_model_len is lowered to ", kv.max_model_len, ": ", missing));
  return kv;
}

absl::StatusOr<ModelSetup> SetUpModel(const ServeOptions& asked) {
  ModelSetup setup;
  ServeOptions options = asked;
  RETURN_IF_ERROR(FindModel(options, setup));
  RETURN_IF_ERROR(ChooseDevice(options, setup));
  RETURN_IF_ERROR(CheckKvMemoryFitsHost(options, setup));
  RETURN_IF_ERROR(ChooseDtype(options, setup));
  RETURN_IF_ERROR(LoadTokenizer(setup));
  RETURN_IF_ERROR(CheckDegrees(options, setup));
  RETURN_IF_ERROR(CheckExperts(options, setup));
  ASSIGN_OR_RETURN(const int64_t bytes_per_token, KvBytesPerToken(options, setup));
  RETURN_IF_ERROR(CheckGpuMemoryFlags(options, setup));
  if (setup.device == "cuda") RETURN_IF_ERROR(DivideGpuMemory(options, setup));
  ASSIGN_OR_RETURN(
      const KvSetup kv,
      SetUpKv(options, bytes_per_token, {setup.config.max_positions, setup.config.position_limit},
              asked.kv_memory_bytes == options.kv_memory_bytes ? "--kv-memory" : "--gpu-memory"));
  WarnOfUnusedYarn(setup);
  setup.kv_blocks = kv.blocks;
  setup.max_model_len = kv.max_model_len;
  setup.warnings.insert(setup.warnings.end(), kv.warnings.begin(), kv.warnings.end());
  return setup;
}

v1::RankConfiguration MakeRankConfiguration(const ServeOptions& options, const ModelSetup& setup) {
  v1::RankConfiguration configuration;
  configuration.set_model(setup.model);
  configuration.set_config_json(setup.config_json);
  configuration.set_dummy_weights(options.dummy_weights);
  configuration.set_mask_padding(options.mask_padding);
  configuration.set_token_ids(setup.token_ids);
  configuration.set_dtype(std::string(NameOf(setup.dtype)));
  configuration.set_device(setup.device);
  configuration.set_allow_shared_gpu(options.allow_shared_gpu);
  configuration.set_require_nvlink(options.require_nvlink);
  configuration.set_require_rdma(options.require_rdma);
  configuration.set_peer_reduction(options.peer_reduction);
  v1::ReductionSizes& sizes = *configuration.mutable_reduction_sizes();
  sizes.set_are_measured(options.reduction_sizes.are_measured);
  sizes.set_one_shot(options.reduction_sizes.one_shot);
  sizes.set_two_shot(options.reduction_sizes.two_shot);
  // Nodes differ: each of several shares its own cores among its ranks.
  const int64_t threads = options.agents > 1 ? options.threads : setup.threads;
  configuration.set_threads(static_cast<uint32_t>(threads));
  configuration.set_tensor_parallel(static_cast<uint32_t>(options.tp));
  configuration.set_data_parallel(static_cast<uint32_t>(options.dp));
  configuration.set_expert_parallel(static_cast<uint32_t>(options.ep));
  configuration.set_exchanges_experts(options.dp > 1 && setup.config.experts > 0);
  configuration.set_expert_exchange(options.expert_exchange);
  configuration.set_recorded_steps(options.recorded_steps);
  configuration.set_persistent_steps(options.persistent_steps);
  // A tuned product's bits depend on how many rows are computed together.
  configuration.set_product_tuning(options.deterministic ? "off" : options.product_tuning);
  configuration.set_tuning_file(options.tuning_file);
  configuration.set_host_embedding(setup.host_embedding);
  if (options.simulated.has_value()) {
    configuration.set_simulated_rank(static_cast<uint32_t>(options.simulated->rank));
    configuration.set_simulated_size(static_cast<uint32_t>(options.simulated->size));
  }
  configuration.set_kv_blocks(setup.kv_blocks);
  configuration.set_block_size(options.block_size);
  configuration.set_max_batch_tokens(options.max_batch_tokens);
  configuration.set_max_running(options.max_running);
  configuration.set_max_model_len(setup.max_model_len);
  configuration.set_step_timeout_milliseconds(absl::ToInt64Milliseconds(options.step_timeout));
  for (const int32_t id : setup.config.eos_token_ids) configuration.add_eos_token_ids(id);
  if (options.overrides.yarn.has_value()) {
    configuration.mutable_yarn()->set_factor(options.overrides.yarn->factor);
    configuration.mutable_yarn()->set_original_positions(
        options.overrides.yarn->original_positions);
  }
  configuration.set_yarn_auto(options.overrides.yarn_auto);
  if (const auto& chunks = options.overrides.dual_chunk; chunks.has_value()) {
    configuration.mutable_dual_chunks()->set_chunk_size(chunks->chunk_size);
    configuration.mutable_dual_chunks()->set_local_size(chunks->local_size);
    configuration.mutable_dual_chunks()->set_original_positions(chunks->original_positions);
  }
  return configuration;
}

SchedulerOptions MakeSchedulerOptions(const ServeOptions& options, const ModelSetup& setup) {
  SchedulerOptions scheduler;
  scheduler.blocks = setup.kv_blocks;
  scheduler.block_size = options.block_size;
  scheduler.max_running = options.max_running;
  scheduler.max_batch_tokens = options.max_batch_tokens;
  scheduler.max_model_len = setup.max_model_len;
  scheduler.max_waiting = options.max_waiting;
  scheduler.max_waiting_tokens = options.max_waiting_tokens;
  scheduler.max_prefill_tokens = options.max_prefill_tokens;
  scheduler.prefix_caching = options.prefix_caching;
  scheduler.eos_token_ids = setup.config.eos_token_ids;
  scheduler.plain_rope_positions = setup.config.plain_rope_positions();
  scheduler.unscaled_positions = setup.config.unscaled_positions();
  return scheduler;
}

}  // namespace cohort
