#include "runtime/planner.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "runtime/memory_ledger.h"
#include "tests/runtime/plan_requests.h"

namespace cohort {
namespace {

using ::testing::HasSubstr;

int64_t PublishedBytes(const std::string& model) {
  const std::vector<std::pair<std::string, int64_t>> bytes = {{"Qwen2-0.5B", 988'065'536},
                                                              {"Qwen2-1.5B", 3'087'428'608},
                                                              {"Qwen2-7B", 15'231'233'024},
                                                              {"Qwen2-57B-A14B", 114'817'317'888},
                                                              {"Qwen2-72B", 145'412'407'296}};
  for (const auto& [name, value] : bytes) {
    if (name == model) {
      return value;
    }
  }
  ADD_FAILURE() << model;
  return 0;
}

Plan Planned(const PlanRequest& request) {
  const auto plan = MakePlan(request);
  EXPECT_TRUE(plan.ok()) << plan.status();
  return *plan;
}

void ExpectSumsAreExact(const std::string& model, const LayoutPlan& layout) {
  int64_t weights = 0, host = 0;
  for (const RankPlan& rank : layout.ranks) {
    weights += rank.weights.total();
    host += rank.host;
  }
  EXPECT_EQ(static_cast<int>(layout.ranks.size()), layout.parallelism.world());
  EXPECT_EQ(layout.checkpoint_bytes, PublishedBytes(model));
  EXPECT_EQ(weights, layout.checkpoint_bytes + layout.replicated_bytes);
  EXPECT_EQ(host, layout.host_bytes);
}

// Everything of a device's memory is accounted for, to the byte.
void ExpectMemoryIsFull(const Hardware& hardware, const LayoutPlan& layout) {
  int64_t all = 0;
  for (const RankPlan& rank : layout.ranks) {
    const int64_t bytes = rank.weights.total() - rank.host + rank.kv + rank.workspace +
                          rank.communication + rank.reserve + rank.free;
    all += bytes;
    if (!hardware.is_shared) {
      EXPECT_EQ(bytes, hardware.memory_bytes);
      EXPECT_EQ(rank.free<0, layout.missing_bytes> 0 && rank.free < 0);
    }
  }
  if (hardware.is_shared) {
    EXPECT_EQ(all, hardware.memory_bytes);
  }
  EXPECT_EQ(layout.fits, layout.missing_bytes == 0);
}

// The smallest memory that fits is exactly what is there and what is missing.
void ExpectRefusalIsExact(const PlanRequest& request, const LayoutPlan& layout) {
  PlanRequest larger = request;
  larger.hardware.memory_bytes += layout.missing_bytes;
  const auto fits = PlanLayout(larger, layout.parallelism);
  ASSERT_TRUE(fits.ok()) << fits.status();
  EXPECT_TRUE(fits->fits);
  larger.hardware.memory_bytes -= 1;
  const auto lacks = PlanLayout(larger, layout.parallelism);
  ASSERT_TRUE(lacks.ok()) << lacks.status();
  EXPECT_FALSE(lacks->fits);
  EXPECT_EQ(lacks->missing_bytes, 1);
}

TEST(Planner, EveryModelOnOneToSixteenOfEveryKind) {
  for (const std::string& model : PublishedConfigNames()) {
    for (const Hardware& hardware : KnownHardware()) {
      for (int64_t gpus = 1; gpus <= 16; ++gpus) {
        SCOPED_TRACE(testing::Message() << model << " on " << gpus << " " << hardware.name);
        const PlanRequest request = RequestFor(model, hardware.name, gpus);
        const Plan plan = Planned(request);
        std::vector<LayoutPlan> layouts = plan.alternatives;
        layouts.push_back(plan.best);
        for (const LayoutPlan& layout : layouts) {
          ExpectSumsAreExact(model, layout);
          ExpectMemoryIsFull(hardware, layout);
          EXPECT_GE(layout.predicted.prefill_tokens_per_second, 1);
        }
        if (!plan.best.fits) {
          ExpectRefusalIsExact(request, plan.best);
        }
      }
    }
  }
}

TEST(Planner, SumsAreExactAtEveryDegree) {
  for (const std::string& model : PublishedConfigNames()) {
    const PlanRequest request = RequestFor(model, "B200", 64 * 3);
    for (int tp = 1; tp <= request.config.query_heads; ++tp) {
      for (const Parallelism& parallelism :
           {Parallelism{tp, 1, 1}, Parallelism{tp, 3, 1}, Parallelism{tp, 2, 2},
            Parallelism{tp, 1, tp}, Parallelism{tp, 3, 3 * tp}}) {
        SCOPED_TRACE(testing::Message()
                     << model << " at " << tp << ", " << parallelism.dp << ", " << parallelism.ep);
        const auto layout = PlanLayout(request, parallelism);
        ASSERT_TRUE(layout.ok()) << layout.status();
        ExpectSumsAreExact(model, *layout);
      }
    }
  }
}

TEST(Planner, BytesAreThoseOfTheLedgerThatWorkersAreCheckedBy) {
  PlanRequest request = RequestFor("Qwen2-7B", "H100", 3);
  request.tp = 3;
  request.context = 20'000;
  const LayoutPlan layout = Planned(request).best;
  WorkerOptions options;
  options.parallelism.tp = 3;
  options.max_model_len = 20'000;
  options.kv_blocks = layout.kv_tokens / options.block_size;
  options.records_steps = true;
  for (int rank = 0; rank < 3; ++rank) {
    const auto shard =
        ShardPlan::Make(request.config.Dims(DType::kBF16), options.parallelism, rank);
    ASSERT_TRUE(shard.ok()) << shard.status();
    const WorkerMemory ledger = LedgerOf(request.config, *shard, options);
    const RankPlan& planned = layout.ranks[static_cast<size_t>(rank)];
    EXPECT_EQ(planned.weights.total(), ledger.weights);
    // The block that recorded steps scribble on is workspace to the planner.
    EXPECT_EQ(planned.workspace + planned.kv, ledger.workspace + ledger.kv);
    EXPECT_EQ(ledger.kv - planned.kv, options.block_size * shard->kv_bytes_per_token());
  }
}

TEST(Planner, TheSeventyTwoBillionFitsOneH200WithItsEmbeddingInHostMemory) {
  const Plan plan = Planned(RequestFor("Qwen2-72B", "H200", 1));
  EXPECT_TRUE(plan.best.fits);
  EXPECT_EQ(plan.best.host_bytes, int64_t{152064} * 8192 * 2);
  EXPECT_GT(plan.best.kv_tokens, 4096);
  EXPECT_LT(plan.best.kv_tokens, 16'384) << "a short context";

  PlanRequest longer = RequestFor("Qwen2-72B", "H200", 1);
  longer.context = 32'768;
  const Plan refused = Planned(longer);
  EXPECT_FALSE(refused.best.fits);
  ASSERT_EQ(refused.changes.size(), 2u);
  EXPECT_EQ(refused.changes[0].kind, PlanChange::Kind::kMoreGpus);
  EXPECT_EQ(refused.changes[0].value, 2);
  EXPECT_EQ(refused.changes[1].kind, PlanChange::Kind::kShorterContext);
  longer.context = refused.changes[1].value;
  EXPECT_TRUE(Planned(longer).best.fits);
}

TEST(Planner, NothingLeavesTheDeviceWhereThereIsRoom) {
  EXPECT_EQ(Planned(RequestFor("Qwen2-7B", "L40S", 1)).best.host_bytes, 0);
  EXPECT_EQ(Planned(RequestFor("Qwen2-72B", "H200", 2)).best.host_bytes, 0);
}

TEST(Planner, ATiedEmbeddingCannotLeave) {
  PlanRequest request = RequestFor("Qwen2-1.5B", "H100", 1);
  request.hardware = WithMemory(request.hardware, 4'300'000'000);
  const LayoutPlan layout = Planned(request).best;
  EXPECT_FALSE(layout.fits);
  EXPECT_EQ(layout.host_bytes, 0);
}

TEST(Planner, MoreGpusAreTheFewestThatFit) {
  for (const auto& [model, kind] : std::vector<std::pair<std::string, std::string>>{
           {"Qwen2-72B", "H100"}, {"Qwen2-72B", "L40S"}, {"Qwen2-57B-A14B", "L40S"}}) {
    SCOPED_TRACE(model + " on " + kind);
    const Plan refused = Planned(RequestFor(model, kind, 1));
    ASSERT_FALSE(refused.best.fits);
    ASSERT_FALSE(refused.changes.empty());
    ASSERT_EQ(refused.changes[0].kind, PlanChange::Kind::kMoreGpus);
    const int64_t gpus = refused.changes[0].value;
    EXPECT_TRUE(Planned(RequestFor(model, kind, gpus)).best.fits);
    EXPECT_FALSE(Planned(RequestFor(model, kind, gpus - 1)).best.fits);
  }
}

TEST(Planner, AShorterContextAndFewerSequencesAreTheMostThatFit) {
  PlanRequest request = RequestFor("Qwen2-7B", "L40S", 1);
  request.context = 65'536;
  request.concurrency = 40;
  const Plan refused = Planned(request);
  ASSERT_FALSE(refused.best.fits);
  ASSERT_EQ(refused.changes.size(), 3u);
  EXPECT_EQ(refused.changes[1].kind, PlanChange::Kind::kShorterContext);
  EXPECT_EQ(refused.changes[2].kind, PlanChange::Kind::kFewerSequences);
  PlanRequest fewer = request;
  fewer.concurrency = refused.changes[2].value;
  EXPECT_TRUE(Planned(fewer).best.fits);
  fewer.concurrency += 1;
  EXPECT_FALSE(Planned(fewer).best.fits);
  // A shorter model length also needs less workspace, so a little more may fit.
  PlanRequest shorter = request;
  shorter.context = refused.changes[1].value;
  EXPECT_TRUE(Planned(shorter).best.fits);
}

TEST(Planner, TheFastestComesFirstAndTheFullestSecond) {
  for (const std::string& model : PublishedConfigNames()) {
    const Plan plan = Planned(RequestFor(model, "H100", 8));
    SCOPED_TRACE(model);
    for (const LayoutPlan& other : plan.alternatives) {
      EXPECT_GE(other.predicted.decode.total(), 0.995 * plan.best.predicted.decode.total());
      const LayoutPlan& fullest = plan.best.why.find("most tokens") == std::string::npos
                                      ? plan.alternatives.front()
                                      : plan.best;
      EXPECT_LE(other.predicted.decode_tokens_per_second,
                1.005 * fullest.predicted.decode_tokens_per_second);
      EXPECT_FALSE(other.why.empty());
    }
    EXPECT_THAT(plan.best.why, HasSubstr("shortest time per token"));
  }
}

TEST(Planner, GivenDegreesAreKept) {
  PlanRequest request = RequestFor("Qwen2-57B-A14B", "H100", 8);
  request.tp = 2;
  request.dp = 4;
  request.ep = 8;
  const Plan plan = Planned(request);
  EXPECT_EQ(plan.best.parallelism.tp, 2);
  EXPECT_EQ(plan.best.parallelism.dp, 4);
  EXPECT_EQ(plan.best.parallelism.ep, 8);
  EXPECT_TRUE(plan.alternatives.empty());
  request.dp = request.ep = std::nullopt;
  EXPECT_EQ(Planned(request).best.parallelism.dp, 4);
  request.tp = 3;
  EXPECT_EQ(Planned(request).best.idle_gpus, 2);
}

TEST(Planner, ManySequencesAreSpreadOverTheGroups) {
  PlanRequest request = RequestFor("Qwen2-7B", "H100", 2);
  request.tp = 1;
  request.context = 4096;
  request.concurrency = 5;
  const LayoutPlan layout = Planned(request).best;
  EXPECT_EQ(layout.parallelism.dp, 2);
  EXPECT_EQ(layout.kv_tokens % 2, 0);
  EXPECT_EQ(layout.ranks[0].kv, layout.kv_tokens / 2 * layout.ranks[0].kv_per_token);
}

TEST(Planner, RefusesWhatMakesNoSenseByName) {
  const std::pair<std::string, std::function<void(PlanRequest&)>> cases[] = {
      {"tp is 29; it must be in 1..28", [](PlanRequest& r) { r.tp = 29; }},
      {"tp 4 x dp 4 is 16 ranks; there are 8 GPUs", [](PlanRequest& r) { r.tp = r.dp = 4; }},
      {"dp is 9", [](PlanRequest& r) { r.dp = 9; }},
      {"ep is 3; it must be >= 1 and divide tp x dp, which is 8",
       [](PlanRequest& r) { r.tp = 2, r.dp = 4, r.ep = 3; }},
      {"ep is 9", [](PlanRequest& r) { r.ep = 9; }},
      {"gpus is 0", [](PlanRequest& r) { r.gpus = 0; }},
      {"nodes is 9; it must be in 1..8", [](PlanRequest& r) { r.nodes = 9; }},
      {"context is 131073; it must be in 1..131072", [](PlanRequest& r) { r.context = 131073; }},
      {"concurrency is 0", [](PlanRequest& r) { r.concurrency = 0; }},
  };
  for (const auto& [message, spoil] : cases) {
    PlanRequest request = RequestFor("Qwen2-7B", "H100", 8);
    spoil(request);
    const absl::Status status = MakePlan(request).status();
    EXPECT_TRUE(absl::IsInvalidArgument(status)) << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr(message));
  }
}

TEST(Planner, RanksOfACpuShareItsMemory) {
  PlanRequest request = RequestFor("Qwen2-7B", "CPU", 3);
  const LayoutPlan layout = Planned(request).best;
  EXPECT_TRUE(layout.fits);
  EXPECT_EQ(layout.nodes, 1);
  request.hardware = WithMemory(request.hardware, int64_t{8} << 30);
  const Plan refused = Planned(request);
  EXPECT_FALSE(refused.best.fits);
  EXPECT_TRUE(refused.changes.empty()) << "more ranks bring no memory";
}

}  // namespace
}  // namespace cohort
