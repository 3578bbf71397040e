#include "parallel/group_cuts.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "kernels/check.h"
#include "parallel/water_fill.h"

namespace cohort {
namespace {

constexpr int64_t kMaxGranularity = 64;

// A dimension as it is handed out: in granules, of which the last may be partial.
struct Granules {
  Granules(int64_t size_in, int64_t unit_bytes_in, int ranks)
      : size(size_in), unit_bytes(unit_bytes_in), granularity(kMaxGranularity) {
    while (granularity > 1 && (size + granularity - 1) / granularity < ranks) {
      granularity /= 2;
    }
    count = (size + granularity - 1) / granularity;
    minimum = count >= ranks ? 1 : 0;
  }

  int64_t bytes() const { return granularity * unit_bytes; }  // of a whole granule
  // What the last rank saves on the partial granule, which is surely its own when every rank has
  // one. (When not every rank has one, granules are single columns and none is partial.)
  int64_t saved_by_last_rank() const { return (count * granularity - size) * unit_bytes; }

  int64_t size;        // columns
  int64_t unit_bytes;  // of one column
  int64_t granularity;
  int64_t count = 0;
  int64_t minimum = 0;  // granules of each rank
};

// Lays a dimension over ranks that already read `bytes`, so that the slowest stays lowest when the
// last rank saves `saved_by_last_rank` of what is still to be counted.
std::vector<Range> Level(const Granules& granules, int64_t saved_by_last_rank,
                         std::vector<int64_t>& bytes) {
  std::vector<int64_t> loads = bytes;
  loads.back() -= saved_by_last_rank;
  std::vector<Range> ranges;
  int64_t begin = 0;
  for (const int64_t count : WaterFill(loads, granules.bytes(), granules.count, granules.minimum)) {
    const int64_t end = std::min(granules.size, begin + count * granules.granularity);
    bytes[ranges.size()] += (end - begin) * granules.unit_bytes;
    ranges.push_back({begin, end});
    begin = end;
  }
  CHECK_EQ(begin, granules.size);
  return ranges;
}

class GroupCutter {
 public:
  GroupCutter(const ModelDims& dims, int ranks)
      : costs_(ReadCostsOf(dims)),
        ranks_(ranks),
        ffn_(dims.ffn_columns, costs_.ffn_column, ranks),
        vocabulary_(dims.vocabulary, costs_.vocabulary_row, ranks),
        ffn_is_coarser_(ffn_.bytes() >= vocabulary_.bytes()) {}

  GroupCuts Cut() {
    for (HeadSplit& split : AttentionSplits(costs_.heads, ranks_)) {
      Try(std::move(split));
    }
    PreferEvenHeads(Refine());
    return std::move(best_);
  }

 private:
  const Granules& coarse() const { return ffn_is_coarser_ ? ffn_ : vocabulary_; }
  const Granules& fine() const { return ffn_is_coarser_ ? vocabulary_ : ffn_; }

  // The coarser dimension is levelled first, the finer one fills what that leaves.
  GroupCuts LevelAround(HeadSplit query_heads) const {
    GroupCuts cuts;
    for (const Range heads : query_heads) {
      cuts.bytes.push_back(AttentionBytes(costs_.heads, heads) + costs_.replicated);
    }
    cuts.query_heads = std::move(query_heads);
    std::vector<Range> coarse_ranges =
        Level(coarse(), coarse().saved_by_last_rank() + fine().saved_by_last_rank(), cuts.bytes);
    std::vector<Range> fine_ranges = Level(fine(), fine().saved_by_last_rank(), cuts.bytes);
    cuts.ffn_columns = std::move(ffn_is_coarser_ ? coarse_ranges : fine_ranges);
    cuts.vocabulary = std::move(ffn_is_coarser_ ? fine_ranges : coarse_ranges);
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
          costs_.heads, ranks_,
          [&](int64_t length, int64_t kv_heads, bool is_last_rank) -> std::optional<SplitScore> {
            const std::optional<Room> room = RoomBelow(level, length, kv_heads, is_last_rank);
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
          costs_.heads, ranks_,
          [&](int64_t length, int64_t kv_heads, bool is_last_rank) -> std::optional<SplitScore> {
            const std::optional<Room> room = RoomBelow(level, length, kv_heads, is_last_rank);
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
  std::optional<Room> RoomBelow(int64_t level, int64_t length, int64_t kv_heads,
                                bool is_last_rank) const {
    int64_t bytes = level - costs_.replicated - length * costs_.heads.query_head_bytes -
                    kv_heads * costs_.heads.kv_head_bytes;
    if (is_last_rank) {
      bytes += coarse().saved_by_last_rank() + fine().saved_by_last_rank();
    }
    const int64_t coarse_bytes = bytes - fine().minimum * fine().bytes();
    if (coarse_bytes < coarse().minimum * coarse().bytes()) {
      return std::nullopt;
    }
    return Room{std::min(coarse().count, coarse_bytes / coarse().bytes()), bytes / fine().bytes()};
  }

  // The mean when no KV head is read more often than it must.
  int64_t LowerBound() const {
    const HeadCosts& heads = costs_.heads;
    const int64_t attention = heads.query_heads * heads.query_head_bytes +
                              FewestReplicas(heads, ranks_) * heads.kv_head_bytes;
    return costs_.replicated +
           (attention + ffn_.size * ffn_.unit_bytes + vocabulary_.size * vocabulary_.unit_bytes) /
               ranks_;
  }

  const ReadCosts costs_;
  const int ranks_;
  const Granules ffn_;
  const Granules vocabulary_;
  const bool ffn_is_coarser_;
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
  // Rows of q with their bias, columns of o.
  costs.heads.query_head_bytes = (2 * head_matrix + dims.head_dim) * layer_bytes;
  // Rows of k and v with their biases; cached keys and values.
  costs.heads.kv_head_bytes = 2 * (head_matrix + dims.head_dim) * layer_bytes + 2 * context_bytes;
  costs.ffn_column = 3 * dims.hidden * layer_bytes;
  costs.vocabulary_row = dims.hidden * dims.weight_bytes;
  costs.replicated = 2 * dims.hidden * layer_bytes + dims.hidden * dims.weight_bytes;
  return costs;
}

int64_t GroupCuts::slowest() const { return *std::max_element(bytes.begin(), bytes.end()); }

GroupCuts CutGroup(const ModelDims& dims, int tp) { return GroupCutter(dims, tp).Cut(); }

}  // namespace cohort
