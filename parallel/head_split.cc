#include "parallel/head_split.h"

#include <algorithm>
#include <limits>

#include "kernels/check.h"

namespace cohort {
namespace {

int64_t CeilDiv(int64_t value, int64_t divisor) { return (value + divisor - 1) / divisor; }

// Contiguous query heads use at least FewestKvHeads(length) KV heads, and at most one more.
int64_t FewestKvHeads(const HeadCosts& costs, int64_t length) {
  return CeilDiv(length, costs.query_heads / costs.kv_heads);
}
int64_t MostKvHeads(const HeadCosts& costs, int64_t length) {
  const int64_t group = costs.query_heads / costs.kv_heads;
  return std::min(costs.kv_heads, CeilDiv(length - 1, group) + 1);
}

// Scores of all kinds of ranges, so that the search only looks them up.
class ScoreTable {
 public:
  ScoreTable(const HeadCosts& costs, const std::vector<int>& alike, const RangeScore& score)
      : alike_(alike), entries_(alike.size()) {
    for (int rank = 0; rank < static_cast<int>(alike.size()); ++rank) {
      if (alike[rank] == rank) {
        Fill(costs, rank, score);
      }
    }
  }

  // Of any allowed range.
  int64_t longest() const { return longest_; }

  const std::optional<SplitScore>& Of(int64_t length, int64_t kv_heads, int rank) const {
    const Entry& entry = entries_[alike_[rank]][length];
    return entry.scores[kv_heads - entry.fewest_kv_heads];
  }

 private:
  struct Entry {
    int64_t fewest_kv_heads = 0;
    std::optional<SplitScore> scores[2];  // with the fewest KV heads, with one more
  };

  void Fill(const HeadCosts& costs, int rank, const RangeScore& score) {
    entries_[rank].resize(costs.query_heads + 1);
    for (int64_t length = 1; length <= costs.query_heads; ++length) {
      Entry& entry = entries_[rank][length];
      entry.fewest_kv_heads = FewestKvHeads(costs, length);
      for (int64_t kv_heads = entry.fewest_kv_heads; kv_heads <= MostKvHeads(costs, length);
           ++kv_heads) {
        std::optional<SplitScore>& slot = entry.scores[kv_heads - entry.fewest_kv_heads];
        slot = score(length, kv_heads, rank);
        longest_ = slot.has_value() ? std::max(longest_, length) : longest_;
      }
    }
  }

  const std::vector<int>& alike_;
  std::vector<std::vector<Entry>> entries_;  // by rank (of the first that are alike) and length
  int64_t longest_ = 0;
};

// Dynamic programming: the best way for the first r ranks to cover the first h heads.
class SplitSearch {
 public:
  SplitSearch(const HeadCosts& costs, int ranks, const ScoreTable& table)
      : heads_(costs.query_heads),
        ranks_(ranks),
        table_(table),
        states_((ranks + 1) * (heads_ + 1)),
        kv_head_(heads_) {
    for (int64_t head = 0; head < heads_; ++head) {
      kv_head_[head] = KvHeadsOf(costs, {head, head + 1}).begin;
    }
  }

  std::optional<HeadSplit> Run() {
    At(0, 0) = {.reached = true, .length = 0, .score = {}};
    for (int rank = 0; rank < ranks_; ++rank) {
      for (int64_t begin = rank; begin <= heads_ - (ranks_ - rank); ++begin) {
        if (At(rank, begin).reached) {
          Extend(rank, begin);
        }
      }
    }
    if (!At(ranks_, heads_).reached) {
      return std::nullopt;
    }
    HeadSplit split(ranks_);
    int64_t end = heads_;
    for (int rank = ranks_; rank-- > 0;) {
      const int64_t begin = end - At(rank + 1, end).length;
      split[rank] = {begin, end};
      end = begin;
    }
    return split;
  }

 private:
  struct State {
    bool reached = false;
    int64_t length = 0;  // of the last range
    SplitScore score;
  };

  State& At(int ranks, int64_t heads) { return states_[ranks * (heads_ + 1) + heads]; }

  // Tries every range of `rank` that starts at `begin` and leaves a head for each rank after it.
  void Extend(int rank, int64_t begin) {
    const SplitScore base = At(rank, begin).score;
    const bool is_last = rank + 1 == ranks_;
    const int64_t room = heads_ - (ranks_ - rank - 1) - begin;
    for (int64_t length = is_last ? room : 1; length <= std::min(room, table_.longest());
         ++length) {
      const int64_t end = begin + length;
      const std::optional<SplitScore>& own =
          table_.Of(length, kv_head_[end - 1] - kv_head_[begin] + 1, rank);
      if (!own.has_value()) {
        continue;
      }
      const SplitScore score = {base.first + own->first, base.second + own->second};
      State& state = At(rank + 1, end);
      if (!state.reached || score < state.score) {
        state = {.reached = true, .length = length, .score = score};
      }
    }
  }

  const int64_t heads_;
  const int ranks_;
  const ScoreTable& table_;
  std::vector<State> states_;     // [ranks + 1, heads + 1]
  std::vector<int64_t> kv_head_;  // of each query head
};

// The values a rank's bytes can take, ascending; none below what the rank with the most heads reads
// at least.
std::vector<int64_t> PossibleBounds(const HeadCosts& costs, int ranks) {
  const auto bytes = [&](int64_t length, int64_t kv_heads) {
    return length * costs.query_head_bytes + kv_heads * costs.kv_head_bytes;
  };
  const int64_t share = CeilDiv(costs.query_heads, ranks);
  const int64_t least = bytes(share, FewestKvHeads(costs, share));
  std::vector<int64_t> bounds;
  for (int64_t length = 1; length <= costs.query_heads; ++length) {
    for (int64_t kv_heads = FewestKvHeads(costs, length); kv_heads <= MostKvHeads(costs, length);
         ++kv_heads) {
      if (bytes(length, kv_heads) >= least) {
        bounds.push_back(bytes(length, kv_heads));
      }
    }
  }
  std::sort(bounds.begin(), bounds.end());
  bounds.erase(std::unique(bounds.begin(), bounds.end()), bounds.end());
  return bounds;
}

int64_t Replicas(const HeadCosts& costs, const HeadSplit& split) {
  int64_t replicas = 0;
  for (const Range heads : split) {
    replicas += KvHeadsOf(costs, heads).size();
  }
  return replicas;
}

}  // namespace

Range KvHeadsOf(const HeadCosts& costs, Range query_heads) {
  const int64_t group = costs.query_heads / costs.kv_heads;
  return {query_heads.begin / group, (query_heads.end - 1) / group + 1};
}

int64_t AttentionBytes(const HeadCosts& costs, Range query_heads) {
  return query_heads.size() * costs.query_head_bytes +
         KvHeadsOf(costs, query_heads).size() * costs.kv_head_bytes;
}

int64_t FewestReplicas(const HeadCosts& costs, int ranks) {
  return std::max<int64_t>(ranks, costs.kv_heads);
}

std::optional<HeadSplit> LowestScoreSplit(const HeadCosts& costs, const std::vector<int>& alike,
                                          const RangeScore& score) {
  const int ranks = static_cast<int>(alike.size());
  CHECK_GE(ranks, 1);
  CHECK_LE(ranks, costs.query_heads);
  CHECK_EQ(costs.query_heads % costs.kv_heads, 0);
  const ScoreTable table(costs, alike, score);
  return SplitSearch(costs, ranks, table).Run();
}

std::vector<HeadSplit> AttentionSplits(const HeadCosts& costs, int ranks) {
  const std::vector<int> all_alike(ranks, 0);
  std::vector<HeadSplit> splits;
  int64_t replicas = std::numeric_limits<int64_t>::max();
  for (const int64_t bound : PossibleBounds(costs, ranks)) {
    std::optional<HeadSplit> split = LowestScoreSplit(
        costs, all_alike,
        [&](int64_t length, int64_t kv_heads, int /*rank*/) -> std::optional<SplitScore> {
          if (length * costs.query_head_bytes + kv_heads * costs.kv_head_bytes > bound) {
            return std::nullopt;
          }
          return SplitScore{kv_heads, length * length};
        });
    if (split.has_value() && Replicas(costs, *split) < replicas) {
      replicas = Replicas(costs, *split);
      splits.push_back(*std::move(split));
    }
    if (replicas == FewestReplicas(costs, ranks)) {
      break;
    }
  }
  CHECK_EQ(replicas, FewestReplicas(costs, ranks))
      << costs.query_heads << " query heads over " << ranks << " ranks";
  return splits;
}

}  // namespace cohort
