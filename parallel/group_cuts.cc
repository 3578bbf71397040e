#include "parallel/group_cuts.h"

#include <algorithm>
#include <numeric>
#include <optional>
#include <utility>

#include "kernels/check.h"
#include "parallel/granules.h"

namespace cohort {
namespace {

// A dimension cut in granules, and where its ranges go.
struct Dimension {
  Granules granules;
  std::vector<Range> GroupCuts::*ranges;
};

// Those the model has, from the coarsest granules to the finest.
std::vector<Dimension> DimensionsOf(const ModelDims& dims, const ReadCosts& costs, int ranks) {
  std::vector<Dimension> dimensions;
  if (costs.ffn_column > 0) {
    dimensions.push_back(
        {Granules(dims.ffn_columns, costs.ffn_column, ranks), &GroupCuts::ffn_columns});
  }
  if (costs.shared_expert_column > 0) {
    dimensions.push_back({Granules(dims.shared_expert_columns, costs.shared_expert_column, ranks),
                          &GroupCuts::shared_expert_columns});
  }
  dimensions.push_back(
      {Granules(dims.vocabulary, costs.vocabulary_row, ranks), &GroupCuts::vocabulary});
  std::stable_sort(dimensions.begin(), dimensions.end(),
                   [](const Dimension& one, const Dimension& other) {
                     return one.granules.bytes() > other.granules.bytes();
                   });
  return dimensions;
}

class GroupCutter {
 public:
  GroupCutter(const ModelDims& dims, const std::vector<int64_t>& expert_bytes)
      : costs_(ReadCostsOf(dims)),
        ranks_(static_cast<int>(expert_bytes.size())),
        expert_bytes_(expert_bytes),
        alike_(AlikeRanks(expert_bytes)),
        dimensions_(DimensionsOf(dims, costs_, ranks_)) {
    for (const Dimension& dimension : dimensions_) {
      saved_by_last_rank_ += dimension.granules.saved_by_last_rank();
    }
  }

  GroupCuts Cut() {
    for (HeadSplit& split : AttentionSplits(costs_.heads, ranks_)) {
      Try(std::move(split));
    }
    PreferEvenHeads(Refine());
    return std::move(best_);
  }

 private:
  const Granules& coarse() const { return dimensions_.front().granules; }
  const Granules& fine() const { return dimensions_.back().granules; }

  // For each rank the first one that any heads suit as well: it reads as much of routed experts,
  // and is not the last one, which saves on partial granules.
  static std::vector<int> AlikeRanks(const std::vector<int64_t>& expert_bytes) {
    std::vector<int> alike;
    for (const int64_t bytes : expert_bytes) {
      alike.push_back(static_cast<int>(std::find(expert_bytes.begin(), expert_bytes.end(), bytes) -
                                       expert_bytes.begin()));
    }
    alike.back() = static_cast<int>(alike.size()) - 1;
    return alike;
  }

  // Coarser dimensions are levelled first, finer ones fill what those leave.
  GroupCuts LevelAround(HeadSplit query_heads) const {
    GroupCuts cuts;
    for (int rank = 0; rank < ranks_; ++rank) {
      cuts.bytes.push_back(AttentionBytes(costs_.heads, query_heads[rank]) + costs_.replicated +
                           expert_bytes_[rank]);
    }
    cuts.query_heads = std::move(query_heads);
    cuts.ffn_columns.resize(ranks_);
    cuts.shared_expert_columns.resize(ranks_);
    int64_t saved_by_last_rank = saved_by_last_rank_;
    for (const Dimension& dimension : dimensions_) {
      cuts.*dimension.ranges = Level(dimension.granules, saved_by_last_rank, cuts.bytes);
      saved_by_last_rank -= dimension.granules.saved_by_last_rank();
    }
    return cuts;
  }

  // Keeps the better one, between equals the earlier. Returns the slowest rank's bytes.
  int64_t Try(HeadSplit query_heads) {
    GroupCuts cuts = LevelAround(std::move(query_heads));
    const int64_t slowest = cuts.slowest();
    if (best_.bytes.empty() || slowest < best_.slowest()) {
      best_ = std::move(cuts);
    }
    return slowest;
  }

  // Where the finer dimension is too small to fill the gaps between coarse granules, heads must
  // make room for those: bisects the level below which everything still finds a place. Returns the
  // highest level found impossible.
  int64_t Refine() {
    int64_t impossible = LowerBound() - 1;
    int64_t possible = best_.slowest();
    while (possible - impossible > fine().bytes()) {
      const int64_t level = impossible + (possible - impossible) / 2;
      if (TryLevel(level)) {
        possible = best_.slowest();
      } else {
        impossible = level;
      }
    }
    return impossible;
  }

  // Room for coarse granules and room for fine ones are two aims; each may come first.
  bool TryLevel(int64_t level) {
    for (const bool coarse_first : {true, false}) {
      std::optional<HeadSplit> split = LowestScoreSplit(
          costs_.heads, alike_,
          [&](int64_t length, int64_t kv_heads, int rank) -> std::optional<SplitScore> {
            const std::optional<Room> room = RoomBelow(level, length, kv_heads, rank);
            if (!room.has_value()) {
              return std::nullopt;
            }
            return coarse_first ? SplitScore{-room->coarse_granules, -room->fine_granules}
                                : SplitScore{-room->fine_granules, -room->coarse_granules};
          });
      if (!split.has_value()) {
        return false;
      }
      if (Try(*std::move(split)) <= level) {
        return true;
      }
    }
    return false;
  }

  // Among cuts as good up to one fine granule, one with more even heads: attention over long
  // contexts and large batches gains by it. The weights say how much unevenness room for one more
  // coarse granule is worth; the first that does is the most even.
  void PreferEvenHeads(int64_t impossible) {
    const int64_t level = std::max(best_.slowest(), impossible + fine().bytes());
    for (const int64_t weight : {0, 1, 4, 16}) {
      std::optional<HeadSplit> split = LowestScoreSplit(
          costs_.heads, alike_,
          [&](int64_t length, int64_t kv_heads, int rank) -> std::optional<SplitScore> {
            const std::optional<Room> room = RoomBelow(level, length, kv_heads, rank);
            if (!room.has_value()) {
              return std::nullopt;
            }
            return SplitScore{kv_heads, length * length - weight * room->coarse_granules};
          });
      if (!split.has_value() || Unevenness(*split) >= Unevenness(best_.query_heads)) {
        continue;
      }
      GroupCuts cuts = LevelAround(*std::move(split));
      if (cuts.slowest() <= level) {
        best_ = std::move(cuts);
        return;
      }
    }
  }

  static int64_t Unevenness(const HeadSplit& split) {
    int64_t squares = 0;
    for (const Range heads : split) {
      squares += heads.size() * heads.size();
    }
    return squares;
  }

  struct Room {
    int64_t coarse_granules = 0;
    int64_t fine_granules = 0;  // instead of the coarse ones, not beside them
  };

  // What a rank with these heads can still take without exceeding `level`; nothing when not even
  // the minimum.
  std::optional<Room> RoomBelow(int64_t level, int64_t length, int64_t kv_heads, int rank) const {
    int64_t bytes = level - costs_.replicated - expert_bytes_[rank] -
                    length * costs_.heads.query_head_bytes - kv_heads * costs_.heads.kv_head_bytes;
    if (rank + 1 == ranks_) {
      bytes += saved_by_last_rank_;
    }
    int64_t coarse_bytes = bytes;
    int64_t fine_bytes = bytes;
    for (size_t i = 0; i < dimensions_.size(); ++i) {
      const Granules& granules = dimensions_[i].granules;
      const bool is_coarse = i == 0;
      const bool is_between = !is_coarse && i + 1 < dimensions_.size();
      coarse_bytes -= is_coarse ? 0 : granules.minimum * granules.bytes();
      fine_bytes -= is_between ? granules.minimum * granules.bytes() : 0;
    }
    if (coarse_bytes < coarse().minimum * coarse().bytes()) {
      return std::nullopt;
    }
    return Room{std::min(coarse().count, coarse_bytes / coarse().bytes()),
                fine_bytes / fine().bytes()};
  }

  // The mean when no KV head is read more often than it must.
  int64_t LowerBound() const {
    const HeadCosts& heads = costs_.heads;
    int64_t sum = heads.query_heads * heads.query_head_bytes +
                  FewestReplicas(heads, ranks_) * heads.kv_head_bytes +
                  std::accumulate(expert_bytes_.begin(), expert_bytes_.end(), int64_t{0});
    for (const Dimension& dimension : dimensions_) {
      sum += dimension.granules.size * dimension.granules.unit_bytes;
    }
    return costs_.replicated + sum / ranks_;
  }

  const ReadCosts costs_;
  const int ranks_;
  const std::vector<int64_t>& expert_bytes_;
  const std::vector<int> alike_;
  const std::vector<Dimension> dimensions_;
  int64_t saved_by_last_rank_ = 0;  // on the partial granules of all dimensions
  GroupCuts best_;
};

}  // namespace

ReadCosts ReadCostsOf(const ModelDims& dims) {
  const int64_t layer_bytes = dims.layers * dims.weight_bytes;
  const int64_t head_matrix = dims.hidden * dims.head_dim;
  const int64_t context_bytes =
      dims.layers * dims.kv_bytes * dims.head_dim * ShardPlan::kPlanContextTokens;
  ReadCosts costs;
  costs.heads.query_heads = dims.query_heads;
  costs.heads.kv_heads = dims.kv_heads;
  const int64_t bias = dims.qkv_bias ? dims.head_dim : 0;
  // Rows of q with their bias, columns of o.
  costs.heads.query_head_bytes = (2 * head_matrix + bias) * layer_bytes;
  // Rows of k and v with their biases; cached keys and values.
  costs.heads.kv_head_bytes = 2 * (head_matrix + bias) * layer_bytes + 2 * context_bytes;
  const int64_t column_bytes = 3 * dims.hidden * dims.weight_bytes;
  costs.ffn_column = column_bytes * dims.dense_layers();
  costs.shared_expert_column = column_bytes * dims.sparse_layers;
  costs.vocabulary_row = dims.hidden * dims.weight_bytes;
  const int64_t routers = dims.sparse_layers * (dims.experts + 1) * dims.hidden;
  costs.replicated = 2 * dims.hidden * layer_bytes + (dims.hidden + routers) * dims.weight_bytes;
  return costs;
}

int64_t GroupCuts::slowest() const { return *std::max_element(bytes.begin(), bytes.end()); }

GroupCuts CutGroup(const ModelDims& dims, const std::vector<int64_t>& expert_bytes) {
  return GroupCutter(dims, expert_bytes).Cut();
}

}  // namespace cohort
