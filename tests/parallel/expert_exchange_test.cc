// Both exchanges against the naive loop: every row's weighted sum over its experts, whatever the
// degrees and wherever the router sends the rows. All values are small integers and powers of two,
// so every sum is exact and the order of additions cannot show.
#include "parallel/expert_exchange.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <thread>
#include <vector>

#include "kernels/bfloat16.h"
#include "parallel/thread_communicator.h"

namespace cohort {
namespace {

constexpr int64_t kHidden = 5;  // odd: a row of bf16 is no whole number of words
constexpr int64_t kExperts = 7;
constexpr int64_t kExpertsPerToken = 3;
constexpr int64_t kColumns = 6;
constexpr int64_t kMaxTokens = 9;

ShardPlan PlanOf(const Parallelism& parallelism, int rank) {
  ModelDims dims;
  dims.hidden = kHidden;
  dims.layers = dims.sparse_layers = 1;
  dims.query_heads = dims.kv_heads = 6;
  dims.head_dim = 4;
  dims.ffn_columns = 8;
  dims.vocabulary = 32;
  dims.experts = kExperts;
  dims.experts_per_token = kExpertsPerToken;
  dims.expert_columns = kColumns;
  dims.shared_expert_columns = 8;
  auto plan = ShardPlan::Make(dims, parallelism, rank);
  EXPECT_TRUE(plan.ok()) << plan.status();
  return *std::move(plan);
}

// The rows of one data-parallel group.
struct Rows {
  std::vector<float> x;        // [tokens, kHidden]
  std::vector<int32_t> ids;    // [tokens, kExpertsPerToken]
  std::vector<float> weights;  // [tokens, kExpertsPerToken]
  int64_t tokens = 0;
};

// What the router does.
enum class Routed { kRandom, kFirst, kLast, kNowhere };

Rows MakeRows(int64_t tokens, Routed routed, std::mt19937& random) {
  Rows rows;
  rows.tokens = tokens;
  for (int64_t i = 0; i < tokens * kHidden; ++i) {
    rows.x.push_back(static_cast<float>(random() % 8));
  }
  for (int64_t token = 0; token < tokens; ++token) {
    std::vector<int32_t> experts(kExperts);
    for (int32_t i = 0; i < kExperts; ++i) {
      experts[static_cast<size_t>(i)] = routed == Routed::kLast ? kExperts - 1 - i : i;
    }
    if (routed == Routed::kRandom) {
      std::shuffle(experts.begin(), experts.end(), random);
    }
    for (size_t k = 0; k < kExpertsPerToken; ++k) {
      rows.ids.push_back(routed == Routed::kNowhere ? -1 : experts[k]);
      rows.weights.push_back(0.25f * static_cast<float>(1 + random() % 4));
    }
  }
  return rows;
}

// out[h] += weight * what columns [columns) of expert `id` make of x.
template <class T>
void AddExpert(int64_t id, Range columns, const T* x, float weight, float* out) {
  for (int64_t column = columns.begin; column < columns.end; ++column) {
    for (int64_t h = 0; h < kHidden; ++h) {
      out[h] += weight * static_cast<float>((id + 1) * (column + 1)) * ToFloat(x[h]);
    }
  }
}

std::vector<float> NaiveSums(const Rows& rows) {
  std::vector<float> sums(rows.x.size());
  for (int64_t token = 0; token < rows.tokens; ++token) {
    for (int64_t k = 0; k < kExpertsPerToken; ++k) {
      const size_t choice = static_cast<size_t>(token * kExpertsPerToken + k);
      if (rows.ids[choice] >= 0) {
        AddExpert(rows.ids[choice], {0, kColumns}, rows.x.data() + token * kHidden,
                  rows.weights[choice], sums.data() + token * kHidden);
      }
    }
  }
  return sums;
}

// This rank's part of its experts.
template <class T>
void ComputeExperts(const ExpertRows& rows, const ShardPlan& plan) {
  for (int64_t row = 0; row < rows.x.rows(); ++row) {
    float* const sums = rows.sums.Row<float>(row);
    std::fill_n(sums, kHidden, 0.0f);
    for (int64_t k = 0; k < kExpertsPerToken; ++k) {
      const int32_t id = rows.routing.ids.Row<int32_t>(row)[k];
      if (id >= plan.experts().begin && id < plan.experts().end) {
        AddExpert(id, plan.expert_columns(), rows.x.Row<T>(row),
                  rows.routing.weights.Row<float>(row)[k], sums);
      }
    }
  }
}

class Rank {
 public:
  Rank(const Parallelism& parallelism, int rank, ExpertExchangeKind kind, DType act)
      : plan_(PlanOf(parallelism, rank)), act_(act) {
    device_ = *Device::Create({});
    auto exchange =
        MakeExpertExchange({.kind = kind, .act = act, .max_tokens = kMaxTokens}, plan_, *device_);
    EXPECT_TRUE(exchange.ok()) << exchange.status();
    exchange_ = *std::move(exchange);
  }

  // The layer's sum over experts for this rank's rows.
  std::vector<float> Layer(const Rows& rows, const std::vector<int64_t>& rows_of_groups,
                           Communicator& tensor, Communicator& data) {
    rows_of_groups_ = rows_of_groups;
    if (act_ == DType::kF32) {
      return Layer(rows, rows.x, tensor, data);
    }
    std::vector<BFloat16> x;
    for (const float value : rows.x) {
      x.push_back(FromFloat<BFloat16>(value));
    }
    return Layer(rows, x, tensor, data);
  }

 private:
  template <class T>
  std::vector<float> Layer(Rows rows, std::vector<T> x, Communicator& tensor, Communicator& data) {
    std::vector<float> out(rows.x.size(), 1e6f);
    const TensorView out_view(out.data(), DType::kF32, {rows.tokens, kHidden});
    const Routing routing = {
        TensorView(rows.ids.data(), DType::kI32, {rows.tokens, kExpertsPerToken}),
        TensorView(rows.weights.data(), DType::kF32, {rows.tokens, kExpertsPerToken})};
    const ExpertRows own =
        exchange_->Dispatch(TensorView(x.data(), DTypeOf<T>(), {rows.tokens, kHidden}), routing,
                            out_view, data, rows_of_groups_);
    EXPECT_LE(own.x.rows(), exchange_->max_rows());
    ComputeExperts<T>(own, plan_);
    exchange_->Combine(own, out_view, data);
    tensor.AllReduceSum(out_view);
    EXPECT_EQ(data.status(), absl::OkStatus());
    return out;
  }

  ShardPlan plan_;
  DType act_;
  std::unique_ptr<Device> device_;
  std::unique_ptr<ExpertExchange> exchange_;
  std::vector<int64_t> rows_of_groups_;
};

// One communicator per rank of the world, of groups of `size` ranks: rank r is in group group(r).
std::vector<std::unique_ptr<Communicator>> Communicators(const Parallelism& parallelism,
                                                         RankList (*group_of)(const Parallelism&,
                                                                              int)) {
  std::vector<std::unique_ptr<Communicator>> ranks(static_cast<size_t>(parallelism.world()));
  for (int rank = 0; rank < parallelism.world(); ++rank) {
    const RankList group = group_of(parallelism, rank);
    if (group.front() != rank) {
      continue;
    }
    auto members = MakeThreadCommunicators(static_cast<int>(group.size()), absl::Seconds(60));
    for (size_t i = 0; i < group.size(); ++i) {
      ranks[static_cast<size_t>(group[i])] = std::move(members[i]);
    }
  }
  return ranks;
}

// Exchange after exchange with the same ranks; groups with other numbers of rows each time.
void ExpectNaiveSums(const Parallelism& parallelism, ExpertExchangeKind kind, DType act) {
  SCOPED_TRACE(testing::Message() << "tp " << parallelism.tp << " dp " << parallelism.dp << " ep "
                                  << parallelism.ep
                                  << (kind == ExpertExchangeKind::kAllToAll ? " all-to-all"
                                                                            : " replicated"));
  const auto tensor = Communicators(parallelism, TensorGroup);
  const auto data = Communicators(parallelism, DataGroup);
  std::vector<std::thread> threads;
  for (int rank = 0; rank < parallelism.world(); ++rank) {
    threads.emplace_back([&, rank] {
      Rank self(parallelism, rank, kind, act);
      std::mt19937 random(5);  // the same on all ranks
      int round = 0;
      for (const Routed routed : {Routed::kRandom, Routed::kFirst, Routed::kRandom, Routed::kLast,
                                  Routed::kNowhere, Routed::kRandom}) {
        const int own_group = rank / parallelism.tp;
        Rows own;
        std::vector<int64_t> rows_of_groups;
        for (int group = 0; group < parallelism.dp; ++group) {
          const int64_t tokens = (round + 4 * group) % (kMaxTokens + 1);
          rows_of_groups.push_back(tokens);
          const Rows rows = MakeRows(tokens, routed, random);
          own = group == own_group ? rows : own;
        }
        ASSERT_EQ(self.Layer(own, rows_of_groups, *tensor[static_cast<size_t>(rank)],
                             *data[static_cast<size_t>(rank)]),
                  NaiveSums(own))
            << "rank " << rank << " round " << round;
        ++round;
      }
    });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
}

TEST(ExpertExchange, BothGiveTheNaiveSumsAtEveryDegreeUpToSixRanks) {
  for (int world = 1; world <= 6; ++world) {
    for (int tp = 1; tp <= world; ++tp) {
      for (int ep = 1; ep <= world; ++ep) {
        if (world % tp != 0 || world % ep != 0) {
          continue;
        }
        const Parallelism parallelism = {.tp = tp, .dp = world / tp, .ep = ep};
        for (const auto kind : {ExpertExchangeKind::kReplicated, ExpertExchangeKind::kAllToAll}) {
          ExpectNaiveSums(parallelism, kind, (tp + ep) % 2 == 0 ? DType::kF32 : DType::kBF16);
        }
      }
    }
  }
}

TEST(ExpertExchange, NothingIsAllocatedWhereEveryRankHasTheRowsAnyway) {
  const ShardPlan plan = PlanOf({.tp = 2, .ep = 2}, 0);
  ExpertExchangeOptions options;
  options.max_tokens = kMaxTokens;
  EXPECT_EQ(ExpertExchangeBytes(options, plan), 0);
  options.kind = ExpertExchangeKind::kAllToAll;
  EXPECT_GT(ExpertExchangeBytes(options, plan), 0);
}

TEST(ExpertExchange, AFailureOfTheGroupSticksThereAndTheCallsReturn) {
  for (const auto kind : {ExpertExchangeKind::kReplicated, ExpertExchangeKind::kAllToAll}) {
    const Parallelism parallelism = {.tp = 1, .dp = 2, .ep = 2};
    const ShardPlan plan = PlanOf(parallelism, 0);
    const std::unique_ptr<Device> device = *Device::Create({});
    const auto exchange =
        *MakeExpertExchange({.kind = kind, .act = DType::kF32, .max_tokens = 2}, plan, *device);
    const auto data = MakeThreadCommunicators(2, absl::Milliseconds(50));  // nobody else comes
    std::mt19937 random(1);
    Rows rows = MakeRows(2, Routed::kRandom, random);
    std::vector<float> out(rows.x.size());
    const TensorView out_view(out.data(), DType::kF32, {2, kHidden});
    const ExpertRows own =
        exchange->Dispatch(TensorView(rows.x.data(), DType::kF32, {2, kHidden}),
                           {TensorView(rows.ids.data(), DType::kI32, {2, kExpertsPerToken}),
                            TensorView(rows.weights.data(), DType::kF32, {2, kExpertsPerToken})},
                           out_view, *data[0], std::vector<int64_t>{2, 2});
    EXPECT_EQ(own.x.rows(), 0);
    exchange->Combine(own, out_view, *data[0]);
    EXPECT_TRUE(absl::IsDeadlineExceeded(data[0]->status())) << data[0]->status();
  }
}

}  // namespace
}  // namespace cohort
