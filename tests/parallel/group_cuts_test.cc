#include "parallel/group_cuts.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <vector>

#include "parallel/expert_cuts.h"
#include "tests/parallel/model_shapes.h"

namespace cohort {
namespace {

// What each rank reads of routed experts when they are cut evenly, as with ep 1.
std::vector<int64_t> EvenExpertBytes(const ModelDims& dims, int tp) {
  const ExpertCuts cuts = CutExperts(dims, {.tp = tp});
  std::vector<int64_t> bytes;
  for (int rank = 0; rank < tp; ++rank) {
    bytes.push_back(ExpertReadBytes(dims, cuts.Of(rank)));
  }
  return bytes;
}

void ForEveryWorld(const std::vector<Model>& models,
                   const std::function<void(const ModelDims&, const GroupCuts&)>& check) {
  for (const Model& model : models) {
    for (int tp = 1; tp <= model.dims.query_heads; ++tp) {
      SCOPED_TRACE(testing::Message() << model.name << " over " << tp);
      check(model.dims, CutGroup(model.dims, EvenExpertBytes(model.dims, tp)));
    }
  }
}

void ExpectTiles(const std::vector<Range>& ranges, int64_t size, int64_t least) {
  int64_t end = 0;
  for (const Range range : ranges) {
    EXPECT_EQ(range.begin, end);
    EXPECT_GE(range.size(), least);
    end = range.end;
  }
  EXPECT_EQ(end, size);
}

TEST(GroupCuts, SlicesTileEveryDimensionAndNobodyStaysEmptyWithoutNeed) {
  ForEveryWorld(AllModels(), [](const ModelDims& dims, const GroupCuts& cuts) {
    const auto ranks = static_cast<int64_t>(cuts.bytes.size());
    ExpectTiles(cuts.query_heads, dims.query_heads, 1);
    const int64_t ffn = dims.dense_layers() > 0 ? dims.ffn_columns : 0;
    ExpectTiles(cuts.ffn_columns, ffn, ffn >= ranks ? 1 : 0);
    const int64_t shared = dims.sparse_layers > 0 ? dims.shared_expert_columns : 0;
    ExpectTiles(cuts.shared_expert_columns, shared, shared >= ranks ? 1 : 0);
    ExpectTiles(cuts.vocabulary, dims.vocabulary, dims.vocabulary >= ranks ? 1 : 0);
  });
}

// The granularity the contract promises for a dimension.
int64_t Granularity(int64_t size, int64_t ranks) {
  for (const int64_t granularity : {64, 32, 16, 8, 4, 2}) {
    if ((size + granularity - 1) / granularity >= ranks) {
      return granularity;
    }
  }
  return 1;
}

// All borders but the end of the last rank.
void ExpectGranular(const std::vector<Range>& ranges, int64_t granularity) {
  for (const Range range : ranges) {
    EXPECT_EQ(range.begin % granularity, 0);
  }
}

TEST(GroupCuts, BordersKeepTheLargestGranularityThatLeavesEveryRankAGranule) {
  ForEveryWorld(AllModels(), [](const ModelDims& dims, const GroupCuts& cuts) {
    const auto ranks = static_cast<int64_t>(cuts.bytes.size());
    ExpectGranular(cuts.ffn_columns, Granularity(dims.ffn_columns, ranks));
    ExpectGranular(cuts.shared_expert_columns, Granularity(dims.shared_expert_columns, ranks));
    ExpectGranular(cuts.vocabulary, Granularity(dims.vocabulary, ranks));
  });
}

TEST(GroupCuts, GranularityIs64ForEveryPublishedModel) {
  ForEveryWorld(PublishedModels(), [](const ModelDims&, const GroupCuts& cuts) {
    ExpectGranular(cuts.ffn_columns, 64);
    ExpectGranular(cuts.shared_expert_columns, 64);
    ExpectGranular(cuts.vocabulary, 64);
  });
}

// A planner that any reader can check: even heads, columns and vocabulary cut evenly in granules.
int64_t SlowestOfEvenCuts(const ModelDims& dims, int ranks) {
  const std::vector<int64_t> expert_bytes = EvenExpertBytes(dims, ranks);
  const auto share = [ranks](int64_t size, int rank) {
    const int64_t granularity = Granularity(size, ranks);
    const int64_t granules = (size + granularity - 1) / granularity;
    return std::min(size, granules * (rank + 1) / ranks * granularity) -
           std::min(size, granules * rank / ranks * granularity);
  };
  const int64_t group = dims.query_heads / dims.kv_heads;
  int64_t slowest = 0;
  for (int rank = 0; rank < ranks; ++rank) {
    const int64_t begin = dims.query_heads * rank / ranks;
    const int64_t end = dims.query_heads * (rank + 1) / ranks;
    const int64_t query_rows = (end - begin) * dims.head_dim;
    const int64_t kv_rows = 2 * ((end - 1) / group - begin / group + 1) * dims.head_dim;
    const int64_t layer =
        query_rows * (2 * dims.hidden + 1) + kv_rows * (dims.hidden + 1) + 2 * dims.hidden;
    const int64_t dense = 3 * dims.hidden * share(dims.ffn_columns, rank);
    const int64_t sparse = 3 * dims.hidden * share(dims.shared_expert_columns, rank) +
                           (dims.experts + 1) * dims.hidden;
    const int64_t weights = dims.layers * layer + dims.dense_layers() * dense +
                            dims.sparse_layers * sparse +
                            (share(dims.vocabulary, rank) + 1) * dims.hidden;
    slowest = std::max(slowest, expert_bytes[rank] + weights * dims.weight_bytes +
                                    4096 * dims.layers * kv_rows * dims.kv_bytes);
  }
  return slowest;
}

TEST(GroupCuts, NeverSlowerThanEvenCuts) {
  ForEveryWorld(AllModels(), [](const ModelDims& dims, const GroupCuts& cuts) {
    EXPECT_LE(cuts.slowest(), SlowestOfEvenCuts(dims, static_cast<int>(cuts.bytes.size())));
  });
}

// The vocabulary of these models fills the gaps between the FFN's granules on up to 24 ranks;
// beyond, a rank may keep one granule more than the mean.
TEST(GroupCuts, PublishedModelsAreEvenUpToAGranule) {
  ForEveryWorld(PublishedModels(), [](const ModelDims& dims, const GroupCuts& cuts) {
    double mean = 0;
    for (const int64_t bytes : cuts.bytes) {
      mean += static_cast<double>(bytes) / static_cast<double>(cuts.bytes.size());
    }
    const int64_t ffn_granule = 64 * 3 * dims.hidden * dims.layers * dims.weight_bytes;
    EXPECT_LE(static_cast<double>(cuts.slowest()), mean + static_cast<double>(ffn_granule));
    if (cuts.bytes.size() <= 24) {
      EXPECT_LT(static_cast<double>(cuts.slowest()), 1.002 * mean);
    }
  });
}

// Attention over long contexts wants even heads, which bytes at 4,096 tokens alone would not give.
TEST(GroupCuts, HeadsAreEvenWhereThatCostsNothing) {
  const ModelDims dims = PublishedModels()[3].dims;
  for (const int tp : {2, 4, 8, 16}) {
    for (const Range heads : CutGroup(dims, std::vector<int64_t>(tp)).query_heads) {
      EXPECT_EQ(heads.size(), dims.query_heads / tp) << tp << " ranks";
    }
  }
  for (const Range heads : CutGroup(dims, std::vector<int64_t>(15)).query_heads) {
    EXPECT_TRUE(heads.size() == 8 || (heads.size() >= 3 && heads.size() <= 5)) << heads.size();
  }
}

}  // namespace
}  // namespace cohort
