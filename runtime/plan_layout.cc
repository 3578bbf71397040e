// Memory and rates of one layout.
#include <algorithm>
#include <limits>
#include <utility>

#include "kernels/check.h"
#include "parallel/host_communicator.h"
#include "runtime/memory_ledger.h"
#include "runtime/planner.h"

namespace cohort {
namespace {

// Buffers of NCCL for one communicator: those of its channels and protocols. An estimate.
constexpr int64_t kDeviceCommunicatorBytes = int64_t{512} << 20;

int64_t RoundedUp(int64_t value, int64_t unit) { return (value + unit - 1) / unit * unit; }

class LayoutPlanner {
 public:
  LayoutPlanner(const PlanRequest& request, std::vector<ShardPlan> shards)
      : request_(request),
        hardware_(request.hardware),
        shards_(std::move(shards)),
        parallelism_(shards_.front().parallelism()),
        nodes_(request.nodes.value_or((request.gpus + hardware_.ranks_per_node - 1) /
                                      hardware_.ranks_per_node)),
        ranks_per_node_(request.nodes.has_value() ? (request.gpus + nodes_ - 1) / nodes_
                                                  : hardware_.ranks_per_node),
        context_(
            request.context.value_or(std::min(kDefaultContext, request.config.max_positions))) {}

  // `checkpoint_bytes`: of the whole model.
  LayoutPlan Make(int64_t checkpoint_bytes);

 private:
  // Ranks whose memory is one: a GPU, or all ranks of a node of CPUs.
  struct Pool {
    int64_t first_rank = 0;
    int64_t ranks = 0;
  };

  std::vector<Pool> Pools() const;
  void AddRanks();
  int64_t CommunicationBytes() const;
  int64_t ReplicatedBytes() const;
  // Tokens that each group needs for what was asked, in whole blocks.
  int64_t WantedTokens(int64_t context) const;
  // Tokens for which each group has room; negative where not even the rest fits.
  int64_t RoomTokens() const;
  int64_t FixedBytes(const Pool& pool) const;
  int64_t KvBytes(const Pool& pool) const;  // of one token of every group
  void SettleMemory();
  void Predict();

  const PlanRequest& request_;
  const Hardware& hardware_;
  const std::vector<ShardPlan> shards_;
  const Parallelism parallelism_;
  const int64_t nodes_;
  const int64_t ranks_per_node_;
  const int64_t context_;
  LayoutPlan layout_;
};

std::vector<LayoutPlanner::Pool> LayoutPlanner::Pools() const {
  const int64_t world = parallelism_.world();
  const int64_t ranks = hardware_.is_shared ? ranks_per_node_ : 1;
  std::vector<Pool> pools;
  for (int64_t first = 0; first < world; first += ranks) {
    pools.push_back({first, std::min(ranks, world - first)});
  }
  return pools;
}

int64_t LayoutPlanner::CommunicationBytes() const {
  if (parallelism_.world() == 1) {
    return 0;
  }
  if (hardware_.is_shared) {
    // One region of the node, which its ranks divide.
    return HostCommunicatorRegionBytes(parallelism_.world()) / parallelism_.world();
  }
  // Of the tensor group, and of the world where experts are exchanged.
  const bool exchanges = parallelism_.dp > 1 && shards_.front().dims().sparse_layers > 0;
  return ((parallelism_.tp > 1 ? 1 : 0) + (exchanges ? 1 : 0)) * kDeviceCommunicatorBytes;
}

void LayoutPlanner::AddRanks() {
  WorkerOptions options;
  options.dtype = request_.dtype;
  options.max_batch_tokens = request_.max_batch_tokens;
  options.max_running = request_.max_running;
  options.block_size = request_.block_size;
  options.max_model_len = request_.context.value_or(request_.config.max_positions);
  options.parallelism = parallelism_;
  options.expert_exchange = ExpertExchangeKind::kReplicated;  // what GPUs have
  options.records_steps = !hardware_.is_shared && MayRecordSteps(request_.config, options);
  for (const ShardPlan& shard : shards_) {
    const WorkerMemory memory = LedgerOf(request_.config, shard, options);
    RankPlan& rank = layout_.ranks.emplace_back();
    rank.rank = shard.rank();
    rank.query_heads = shard.query_heads();
    rank.kv_heads = shard.kv_heads();
    rank.ffn_columns = shard.ffn_columns();
    rank.experts = shard.experts();
    rank.expert_columns = shard.expert_columns();
    rank.shared_expert_columns = shard.shared_expert_columns();
    rank.vocabulary = shard.vocabulary();
    rank.weights = WeightPartsOf(shard);
    CHECK_EQ(rank.weights.total(), memory.weights);
    rank.kv_per_token = shard.kv_bytes_per_token();
    // The blocks of sequences are settled later; what recorded steps scribble on is no room.
    rank.workspace = memory.workspace + memory.kv;
    rank.communication = CommunicationBytes();
  }
  for (const Pool& pool : Pools()) {
    for (int64_t i = 0; i < pool.ranks; ++i) {
      // The first ranks of a pool take what the division leaves.
      const int64_t rest = i < hardware_.reserve_bytes % pool.ranks ? 1 : 0;
      layout_.ranks[static_cast<size_t>(pool.first_rank + i)].reserve =
          hardware_.reserve_bytes / pool.ranks + rest;
    }
  }
}

// What a rank holds although an earlier one does: the KV head that it shares with the rank before
// it, norms and routers, and in further data-parallel groups everything but experts.
int64_t LayoutPlanner::ReplicatedBytes() const {
  int64_t bytes = 0;
  for (const ShardPlan& shard : shards_) {
    const WeightParts& parts = layout_.ranks[static_cast<size_t>(shard.rank())].weights;
    if (shard.rank() >= parallelism_.tp) {
      bytes += parts.total() - parts.experts;
      continue;
    }
    if (shard.rank() == 0) {
      continue;
    }
    bytes += parts.norms + parts.router;
    const ShardPlan& before = shards_[static_cast<size_t>(shard.rank()) - 1];
    const int64_t shared_heads = std::max<int64_t>(
        0, std::min(before.kv_heads().end, shard.kv_heads().end) - shard.kv_heads().begin);
    const ModelDims& dims = shard.dims();
    const int64_t head_elements = 2 * dims.head_dim * (dims.hidden + (dims.qkv_bias ? 1 : 0));
    bytes += dims.layers * shared_heads * head_elements * dims.weight_bytes;
  }
  return bytes;
}

int64_t LayoutPlanner::WantedTokens(int64_t context) const {
  const int64_t sequences = (request_.concurrency + parallelism_.dp - 1) / parallelism_.dp;
  return sequences * RoundedUp(context, request_.block_size);
}

int64_t LayoutPlanner::FixedBytes(const Pool& pool) const {
  int64_t bytes = 0;
  for (int64_t i = pool.first_rank; i < pool.first_rank + pool.ranks; ++i) {
    const RankPlan& rank = layout_.ranks[static_cast<size_t>(i)];
    bytes += rank.weights.total() - rank.host + rank.workspace + rank.communication + rank.reserve;
  }
  return bytes;
}

int64_t LayoutPlanner::KvBytes(const Pool& pool) const {
  int64_t bytes = 0;
  for (int64_t i = pool.first_rank; i < pool.first_rank + pool.ranks; ++i) {
    bytes += layout_.ranks[static_cast<size_t>(i)].kv_per_token;
  }
  return bytes;
}

int64_t LayoutPlanner::RoomTokens() const {
  int64_t blocks = std::numeric_limits<int64_t>::max();
  for (const Pool& pool : Pools()) {
    const int64_t free = hardware_.memory_bytes - FixedBytes(pool);
    const int64_t block_bytes = KvBytes(pool) * request_.block_size;
    blocks = std::min(blocks, free < 0 ? -1 : free / block_bytes);
  }
  return blocks * request_.block_size;
}

void LayoutPlanner::SettleMemory() {
  const int64_t wanted = WantedTokens(context_);
  // The embedding leaves the device where it would leave no room for a sequence of use.
  const int64_t of_use = std::min(kDefaultContext, request_.config.max_positions);
  const bool may_move = !hardware_.is_shared && !request_.config.tied_embeddings;
  const bool is_tight = RoomTokens() < std::max(wanted, RoundedUp(of_use, request_.block_size));
  if (may_move && request_.host_embedding.value_or(is_tight)) {
    for (RankPlan& rank : layout_.ranks) {
      rank.host = rank.weights.embedding;
      layout_.host_bytes += rank.host;
    }
  }
  const int64_t room = RoomTokens();
  layout_.fits = room >= wanted;
  layout_.kv_tokens = std::max<int64_t>(room, 0) * parallelism_.dp;
  for (const Pool& pool : Pools()) {
    const int64_t needed = FixedBytes(pool) + wanted * KvBytes(pool);
    layout_.missing_bytes = std::max(layout_.missing_bytes, needed - hardware_.memory_bytes);
  }
  CHECK_EQ(layout_.fits, layout_.missing_bytes == 0);
  for (const Pool& pool : Pools()) {
    const int64_t tokens = layout_.fits ? room : wanted;
    const int64_t free = hardware_.memory_bytes - FixedBytes(pool) - tokens * KvBytes(pool);
    for (int64_t i = 0; i < pool.ranks; ++i) {
      RankPlan& rank = layout_.ranks[static_cast<size_t>(pool.first_rank + i)];
      rank.kv = tokens * rank.kv_per_token;
      rank.free = i == 0 ? free : 0;  // of the pool
    }
  }
}

void LayoutPlanner::Predict() {
  const LayoutCost cost(shards_, hardware_, ranks_per_node_);
  Prediction& predicted = layout_.predicted;
  const double context = static_cast<double>(context_);
  predicted.decode = cost.DecodeSeconds(1, context);
  predicted.prefill_tokens_per_second =
      cost.PrefillTokensPerSecond(context_, request_.max_batch_tokens);
  const int64_t group_tokens = layout_.kv_tokens / parallelism_.dp;
  const int64_t sequences = std::clamp<int64_t>(
      group_tokens / RoundedUp(context_, request_.block_size), 1, request_.max_running);
  predicted.decode_sequences = sequences * parallelism_.dp;
  predicted.decode_tokens_per_second =
      static_cast<double>(predicted.decode_sequences) /
      cost.DecodeSeconds(static_cast<double>(sequences), context).total();
}

LayoutPlan LayoutPlanner::Make(int64_t checkpoint_bytes) {
  layout_.parallelism = parallelism_;
  layout_.nodes = nodes_;
  layout_.idle_gpus = request_.gpus - parallelism_.world();
  layout_.checkpoint_bytes = checkpoint_bytes;
  layout_.context = context_;
  layout_.concurrency = request_.concurrency;
  layout_.imbalance = shards_.front().imbalance();
  AddRanks();
  layout_.replicated_bytes = ReplicatedBytes();
  SettleMemory();
  Predict();
  return std::move(layout_);
}

}  // namespace

absl::StatusOr<LayoutPlan> PlanLayout(const PlanRequest& request, const Parallelism& parallelism) {
  const ModelDims dims = request.config.Dims(request.dtype);
  ASSIGN_OR_RETURN(std::vector<ShardPlan> shards, ShardPlan::MakeAll(dims, parallelism));
  ASSIGN_OR_RETURN(const ShardPlan whole, ShardPlan::Make(dims, {}, 0));
  return LayoutPlanner(request, std::move(shards)).Make(whole.weight_bytes());
}

}  // namespace cohort
