// Measures what a layer's exchange of rows for experts costs (parallel/expert_exchange.h): dispatch
// and combine without the experts' own work, for rows of the 57B-A14B shape, among ranks that are
// threads over one shared region. Prints one JSON object per number of ranks and rows.
//
//   exchange_bench [ROUNDS [RANKS...]]
//
// Rows are those of all ranks together, each rank having its share. "all_to_all" and "replicated"
// are the two exchanges with one data-parallel group per rank; "reduce" is what one group of all
// ranks pays, which moves nothing and adds the experts with the layer's own reduce of every row.
#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <random>
#include <thread>
#include <vector>

#include "kernels/check.h"
#include "parallel/expert_exchange.h"
#include "parallel/host_communicator.h"

namespace cohort {
namespace {

using Clock = std::chrono::steady_clock;

constexpr int64_t kHidden = 3584;
constexpr int32_t kExperts = 64;
constexpr int64_t kExpertsPerToken = 8;
constexpr int64_t kMostRows = 256;

ShardPlan PlanOf(const Parallelism& parallelism, int rank) {
  ModelDims dims;
  dims.hidden = kHidden;
  dims.layers = dims.sparse_layers = 1;
  dims.query_heads = 28;
  dims.kv_heads = 4;
  dims.head_dim = 128;
  dims.ffn_columns = 18944;
  dims.vocabulary = 151936;
  dims.experts = kExperts;
  dims.experts_per_token = kExpertsPerToken;
  dims.expert_columns = 2560;
  dims.shared_expert_columns = 20480;
  auto plan = ShardPlan::Make(dims, parallelism, rank);
  CHECK_OK(plan.status());
  return *std::move(plan);
}

// One rank's memory for a layer's rows, routed at random.
struct RankRows {
  Tensor x, ids, weights, out;

  RankRows(int rank, Device& device)
      : x(*device.Allocate({kMostRows, kHidden}, DType::kBF16)),
        ids(*device.Allocate({kMostRows, kExpertsPerToken}, DType::kI32)),
        weights(*device.Allocate({kMostRows, kExpertsPerToken}, DType::kF32)),
        out(*device.Allocate({kMostRows, kHidden}, DType::kF32)) {
    std::mt19937 random(static_cast<uint32_t>(rank));
    std::vector<int32_t> experts(kExperts);
    for (int32_t i = 0; i < kExperts; ++i) experts[static_cast<size_t>(i)] = i;
    for (int64_t row = 0; row < kMostRows; ++row) {
      std::shuffle(experts.begin(), experts.end(), random);
      std::copy_n(experts.begin(), kExpertsPerToken, ids.view().Row<int32_t>(row));
    }
  }
};

// The time of `round` that a tenth of the rounds stay below, as rank 0 sees it, microseconds: what
// it costs while nothing else wants the cores.
template <class Round>
double TenthMicroseconds(int ranks, int rounds, Round round) {
  std::vector<double> times;
  const auto run = [&](Communicator& group) {
    for (int i = 0; i < rounds; ++i) {
      group.Barrier();
      const Clock::time_point start = Clock::now();
      round(group);
      if (group.rank() == 0) {
        times.push_back(std::chrono::duration<double, std::micro>(Clock::now() - start).count());
      }
    }
    CHECK_OK(group.status());
  };
  const absl::StatusOr<int> region = CreateHostCommunicatorRegion(ranks);
  CHECK_OK(region.status());
  const bool every_rank_has_a_core = ranks <= static_cast<int>(std::thread::hardware_concurrency());
  std::vector<std::thread> threads;
  for (int rank = 0; rank < ranks; ++rank) {
    threads.emplace_back([&, rank] {
      const auto group = MakeHostCommunicator(
          *region,
          {.rank = rank, .size = ranks, .spin_iterations = every_rank_has_a_core ? 2000 : 0});
      CHECK_OK(group.status());
      run(**group);
    });
  }
  for (std::thread& thread : threads) thread.join();
  std::sort(times.begin(), times.end());
  return times[times.size() / 10];
}

class Bench {
 public:
  explicit Bench(int ranks) : ranks_(ranks), device_(*Device::Create({})) {
    for (int rank = 0; rank < ranks; ++rank) {
      rows_.emplace_back(rank, *device_);
      for (const auto kind : {ExpertExchangeKind::kReplicated, ExpertExchangeKind::kAllToAll}) {
        const ShardPlan plan = PlanOf({.tp = 1, .dp = ranks, .ep = ranks}, rank);
        auto exchange = MakeExpertExchange(
            {.kind = kind, .act = DType::kBF16, .max_tokens = kMostRows}, plan, *device_);
        CHECK_OK(exchange.status());
        (kind == ExpertExchangeKind::kAllToAll ? all_to_all_ : replicated_)
            .push_back(*std::move(exchange));
      }
    }
  }

  void Run(int64_t rows, int rounds) {
    const double all_to_all = Time(all_to_all_, rows, rounds);
    const double replicated = Time(replicated_, rows, rounds);
    const double reduce = TenthMicroseconds(ranks_, rounds, [&](Communicator& group) {
      group.AllReduceSum(rows_[static_cast<size_t>(group.rank())].out.view().Rows(0, rows));
    });
    std::printf(
        "{\"ranks\": %d, \"rows\": %lld, \"all_to_all_us\": %.1f, \"replicated_us\": %.1f, "
        "\"reduce_us\": %.1f}\n",
        ranks_, static_cast<long long>(rows), all_to_all, replicated, reduce);
  }

 private:
  using Exchanges = std::vector<std::unique_ptr<ExpertExchange>>;

  double Time(const Exchanges& exchanges, int64_t rows, int rounds) {
    return TenthMicroseconds(ranks_, rounds, [&](Communicator& group) {
      const size_t rank = static_cast<size_t>(group.rank());
      const int64_t own = (rows + ranks_ - 1 - group.rank()) / ranks_;
      std::vector<int64_t> rows_of_groups;
      for (int group_rank = 0; group_rank < ranks_; ++group_rank) {
        rows_of_groups.push_back((rows + ranks_ - 1 - group_rank) / ranks_);
      }
      const RankRows& memory = rows_[rank];
      const TensorView out = memory.out.view().Rows(0, own);
      const ExpertRows dispatched = exchanges[rank]->Dispatch(
          memory.x.view().Rows(0, own),
          {memory.ids.view().Rows(0, own), memory.weights.view().Rows(0, own)}, out, group,
          rows_of_groups);
      exchanges[rank]->Combine(dispatched, out, group);
    });
  }

  const int ranks_;
  const std::unique_ptr<Device> device_;
  std::vector<RankRows> rows_;
  Exchanges replicated_, all_to_all_;
};

}  // namespace
}  // namespace cohort

int main(int argc, char** argv) {
  const int rounds = argc > 1 ? std::atoi(argv[1]) : 300;
  std::vector<int> counts;
  for (int i = 2; i < argc; ++i) counts.push_back(std::atoi(argv[i]));
  if (counts.empty()) counts = {2, 4};
  if (rounds < 1 || *std::min_element(counts.begin(), counts.end()) < 1) {
    std::fprintf(stderr, "usage: exchange_bench [ROUNDS [RANKS...]]\n");
    return 2;
  }
  for (const int ranks : counts) {
    cohort::Bench bench(ranks);
    for (int64_t rows = 1; rows <= cohort::kMostRows; rows *= 2) bench.Run(rows, rounds);
  }
  return 0;
}
