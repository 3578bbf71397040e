#include "runtime/memory_ledger.h"

#include <algorithm>
#include <limits>

#include "parallel/weight_parts.h"
#include "runtime/worker_batch.h"
#include "runtime/worker_chooser.h"
#include "runtime/worker_setup.h"
#include "runtime/worker_slots.h"

namespace cohort {
namespace {

ExpertExchangeKind ExchangeOf(const WorkerOptions& options) {
  return options.expert_exchange.value_or(
      options.parallelism.dp > 1 ? ExpertExchangeKind::kAllToAll : ExpertExchangeKind::kReplicated);
}

int64_t KvBytes(const ShardPlan& plan, const WorkerOptions& options) {
  int64_t bytes = 0;
  if (__builtin_mul_overflow(KvBlocksOf(options) * options.block_size, plan.kv_bytes_per_token(),
                             &bytes)) {
    return std::numeric_limits<int64_t>::max() / 2;
  }
  return bytes;
}

int64_t BatchBytes(const WorkerOptions& options) {
  const WorkerLimits limits = {.positions = options.max_model_len,
                               .block_size = options.block_size};
  return WorkerBatch::WorkspaceBytes(options.max_batch_tokens, options.max_running,
                                     limits.blocks_per_sequence());
}

int64_t RecordedBytes(const ModelConfig& config, const ShardPlan& plan,
                      const WorkerOptions& options) {
  return options.records_steps
             ? RecordedSteps::WorkspaceBytes(plan, RecordedOptionsOf(config, options))
             : 0;
}

}  // namespace

bool MayRecordSteps(const ModelConfig& config, const WorkerOptions& options) {
  return options.parallelism.dp == 1 || config.experts == 0 ||
         ExchangeOf(options) == ExpertExchangeKind::kReplicated;
}

RecordedStepsOptions RecordedOptionsOf(const ModelConfig& config, const WorkerOptions& options) {
  const WorkerLimits limits = {.positions = options.max_model_len,
                               .block_size = options.block_size};
  return {.max_rows = std::min(options.max_running, options.max_batch_tokens),
          .slots = options.max_running,
          .blocks_per_sequence = limits.blocks_per_sequence(),
          .scratch_block = static_cast<int32_t>(options.kv_blocks),
          .valid_ids = ValidIds(config, options),
          .timeout = options.step_timeout};
}

int64_t KvBlocksOf(const WorkerOptions& options) {
  return options.kv_blocks + (options.records_steps ? 1 : 0);
}

Qwen2Options ModelOptionsOf(const WorkerOptions& options) {
  return {.act = options.dtype,
          .max_batch_tokens = options.max_batch_tokens,
          .max_positions = options.max_model_len,
          .exchange = ExchangeOf(options)};
}

WorkerMemory LedgerOf(const ModelConfig& config, const ShardPlan& plan,
                      const WorkerOptions& options) {
  const int64_t on_host = options.host_embedding ? WeightPartsOf(plan).embedding : 0;
  return {.weights = plan.weight_bytes() - on_host,
          .kv = KvBytes(plan, options),
          .workspace = Qwen2::WorkspaceBytes(config, plan, ModelOptionsOf(options)) +
                       WorkerChooser::WorkspaceBytes(plan) + BatchBytes(options) +
                       RecordedBytes(config, plan, options)};
}

}  // namespace cohort
