// Where query heads are cut over ranks, given that a rank reads every KV head its queries use.
#ifndef COHORT_PARALLEL_HEAD_SPLIT_H_
#define COHORT_PARALLEL_HEAD_SPLIT_H_

#include <compare>
#include <cstdint>
#include <functional>
#include <optional>
#include <vector>

#include "parallel/shard_plan.h"

namespace cohort {

struct HeadCosts {
  int64_t query_heads = 0;       // of the whole model, a multiple of kv_heads
  int64_t kv_heads = 0;          // query head a reads KV head a / (query_heads / kv_heads)
  int64_t query_head_bytes = 0;  // what a rank reads for each of its query heads
  int64_t kv_head_bytes = 0;     // and for each KV head that at least one of them uses
};

// The query heads of each rank: contiguous, ascending, none empty.
using HeadSplit = std::vector<Range>;

// The KV heads that these query heads use.
Range KvHeadsOf(const HeadCosts& costs, Range query_heads);

int64_t AttentionBytes(const HeadCosts& costs, Range query_heads);

// The fewest KV heads that all ranks together can read: each reads one, each is read, and cutting
// only inside groups, or only between them, attains it.
int64_t FewestReplicas(const HeadCosts& costs, int ranks);

// Compared in order; summed member by member.
struct SplitScore {
  int64_t first = 0;
  int64_t second = 0;
  auto operator<=>(const SplitScore&) const = default;
};

// What a rank's range adds to the score of a split; nothing where the range is not allowed.
using RangeScore =
    std::function<std::optional<SplitScore>(int64_t length, int64_t kv_heads, int rank)>;

// The split with the lowest sum of scores, or nothing when no split is allowed. `alike` holds, for
// each of 1..query_heads ranks, the first rank that is scored alike; only those are asked for.
std::optional<HeadSplit> LowestScoreSplit(const HeadCosts& costs, const std::vector<int>& alike,
                                          const RangeScore& score);

// The splits worth considering for attention alone: the first has the smallest maximum of
// AttentionBytes, each further one a larger maximum but fewer replicas of KV heads in all, the last
// one the fewest possible. Between splits equal in both, the most even one.
//   28 query heads on 4 KV heads over 3 ranks: {9, 9, 10} reads 2 + 2 + 2 KV heads, {7, 7, 14}
//   reads 1 + 1 + 2; which is better depends on what else can level the ranks.
std::vector<HeadSplit> AttentionSplits(const HeadCosts& costs, int ranks);

}  // namespace cohort

#endif  // COHORT_PARALLEL_HEAD_SPLIT_H_
