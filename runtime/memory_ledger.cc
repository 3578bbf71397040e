#include "runtime/memory_ledger.h"

#include <limits>

#include "runtime/worker_batch.h"
#include "runtime/worker_chooser.h"
#include "runtime/worker_slots.h"

namespace cohort {
namespace {

ExpertExchangeKind ExchangeOf(const WorkerOptions& options) {
  return options.expert_exchange.value_or(
      options.parallelism.dp > 1 ? ExpertExchangeKind::kAllToAll : ExpertExchangeKind::kReplicated);
}

int64_t KvBytes(const ShardPlan& plan, const WorkerOptions& options) {
  int64_t bytes = 0;
  if (__builtin_mul_overflow(options.kv_blocks * options.block_size, plan.kv_bytes_per_token(),
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

}  // namespace

Qwen2Options ModelOptionsOf(const WorkerOptions& options) {
  return {.act = options.dtype,
          .max_batch_tokens = options.max_batch_tokens,
          .max_positions = options.max_model_len,
          .exchange = ExchangeOf(options)};
}

WorkerMemory LedgerOf(const ModelConfig& config, const ShardPlan& plan,
                      const WorkerOptions& options) {
  return {.weights = plan.weight_bytes(),
          .kv = KvBytes(plan, options),
          .workspace = Qwen2::WorkspaceBytes(config, plan, ModelOptionsOf(options)) +
                       WorkerChooser::WorkspaceBytes(plan) + BatchBytes(options)};
}

}  // namespace cohort
