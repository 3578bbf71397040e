#include "launcher/gpu_memory.h"

#include <algorithm>

#include "runtime/planner.h"

namespace cohort {
namespace {

PlanRequest RequestFor(const ServeOptions& options, const ModelConfig& config, DType dtype,
                       int64_t rank_bytes) {
  PlanRequest request;
  request.config = config;
  request.dtype = dtype;
  // Any GPU: only its memory is asked about.
  request.hardware = WithMemory(KnownHardware().front(), rank_bytes);
  request.gpus = options.parallelism().world();
  request.nodes = options.agents;
  if (options.max_model_len > 0) request.context = options.max_model_len;
  request.max_batch_tokens = options.max_batch_tokens;
  request.max_running = options.max_running;
  request.block_size = options.block_size;
  if (options.embedding_memory != "auto") {
    request.host_embedding = options.embedding_memory == "host";
  }
  return request;
}

absl::Status NoRoom(const RankPlan& rank, int64_t rank_bytes, int64_t block_bytes) {
  const int64_t needed = rank.weights.total() - rank.host + rank.workspace + rank.communication +
                         rank.reserve + block_bytes;
  return absl::ResourceExhaustedError(absl::StrCat(
      "rank ", rank.rank, " needs ", needed, " bytes of its GPU (weights ",
      rank.weights.total() - rank.host, ", workspace ", rank.workspace, ", communication ",
      rank.communication, ", reserve ", rank.reserve, ", one block of KV ", block_bytes,
      ") and may take ", rank_bytes, ", ", needed - rank_bytes,
      " bytes are missing; use more ranks (`cohort plan` says how many), a smaller "
      "--max-batch-tokens or --max-running, or a larger --gpu-memory"));
}

}  // namespace

absl::StatusOr<int64_t> GpuBytesOfRank(const GpuMemoryLimit& limit, int64_t total_bytes,
                                       int64_t sharers) {
  if (limit.bytes > 0) {
    if (limit.bytes * sharers <= total_bytes) return limit.bytes;
    return absl::ResourceExhaustedError(
        absl::StrCat("--gpu-memory ", limit.bytes, " bytes for each of ", sharers,
                     " ranks is more than the GPU has, ", total_bytes, " bytes"));
  }
  return static_cast<int64_t>(limit.fraction * static_cast<double>(total_bytes / sharers));
}

absl::StatusOr<GpuRoom> FindGpuRoom(const ServeOptions& options, const ModelConfig& config,
                                    DType dtype, int64_t rank_bytes) {
  if (options.embedding_memory == "host" && config.tied_embeddings) {
    return absl::InvalidArgumentError(
        "--embedding-memory host: the model's head is its embedding, which every step reads");
  }
  const PlanRequest request = RequestFor(options, config, dtype, rank_bytes);
  ASSIGN_OR_RETURN(const LayoutPlan layout, PlanLayout(request, options.parallelism()));
  const int64_t tokens = layout.kv_tokens / layout.parallelism.dp;
  const auto fullest = std::max_element(layout.ranks.begin(), layout.ranks.end(),
                                        [](const RankPlan& left, const RankPlan& right) {
                                          return left.kv_per_token < right.kv_per_token;
                                        });
  if (tokens >= options.block_size) {
    return GpuRoom{.kv_bytes = tokens * fullest->kv_per_token,
                   .host_embedding = layout.host_bytes > 0};
  }
  const auto neediest = std::max_element(
      layout.ranks.begin(), layout.ranks.end(), [](const RankPlan& left, const RankPlan& right) {
        return left.weights.total() - left.host + left.workspace <
               right.weights.total() - right.host + right.workspace;
      });
  return NoRoom(*neediest, rank_bytes, options.block_size * neediest->kv_per_token);
}

}  // namespace cohort
