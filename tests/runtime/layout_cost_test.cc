#include "runtime/layout_cost.h"

#include <gtest/gtest.h>

#include <string>
#include <utility>
#include <vector>

#include "tests/runtime/plan_requests.h"

namespace cohort {
namespace {

std::vector<ShardPlan> Shards(const std::string& model, const Parallelism& parallelism) {
  const auto shards =
      ShardPlan::MakeAll(RequestFor(model, "H200", 1).config.Dims(DType::kBF16), parallelism);
  EXPECT_TRUE(shards.ok()) << shards.status();
  return *shards;
}

LayoutCost CostOf(const std::string& model, const Parallelism& parallelism,
                  const Hardware& hardware) {
  return LayoutCost(Shards(model, parallelism), hardware, hardware.ranks_per_node);
}

Hardware H200() { return RequestFor("Qwen2-7B", "H200", 1).hardware; }

// Every byte and operation takes one second.
Hardware Counter(double bytes_per_second, double operations_per_second) {
  Hardware hardware;
  hardware.bytes_per_second = bytes_per_second;
  hardware.operations_per_second = operations_per_second;
  return hardware;
}

// Bytes that one token must read: layers, final norm, head; of the mixture its 8 experts.
TEST(LayoutCost, ATokenReadsTheWeightsOnce) {
  const std::vector<std::pair<std::string, double>> bytes = {{"Qwen2-0.5B", 988'065'536},
                                                             {"Qwen2-1.5B", 3'087'428'608},
                                                             {"Qwen2-7B", 14'141'238'272},
                                                             {"Qwen2-72B", 142'920'990'720},
                                                             {"Qwen2-57B-A14B", 27'409'464'320}};
  for (const auto& [model, expected] : bytes) {
    const StepSeconds step = CostOf(model, {}, Counter(1, 1e30)).DecodeSeconds(1, 0);
    EXPECT_DOUBLE_EQ(step.compute, expected) << model;
    EXPECT_EQ(step.launches + step.collectives + step.exchange, 0) << model;
  }
}

TEST(LayoutCost, KeysAndValuesAreReadForEverySequence) {
  const LayoutCost cost = CostOf("Qwen2-7B", {}, Counter(1, 1e30));
  EXPECT_DOUBLE_EQ(cost.DecodeSeconds(3, 1000).compute - cost.DecodeSeconds(1, 0).compute,
                   3 * 1000 * 57344.0);
}

// The matrices' operations per token, and the causal attention of a whole prompt.
TEST(LayoutCost, APromptsOperationsAreThoseOfTheFormula) {
  const std::vector<std::pair<std::string, double>> per_token = {{"Qwen2-0.5B", 0.72e9},
                                                                 {"Qwen2-1.5B", 2.62e9},
                                                                 {"Qwen2-7B", 13.05e9},
                                                                 {"Qwen2-72B", 140.43e9},
                                                                 {"Qwen2-57B-A14B", 26.32e9}};
  for (const auto& [model, expected] : per_token) {
    const StepSeconds step =
        CostOf(model, {}, Counter(1e30, 1)).Seconds({.rows = 1, .sampled = 0, .context = 0});
    EXPECT_NEAR(step.compute, expected, 0.006e9 + 0.0005 * expected) << model;
  }
  const StepSeconds prompt =
      CostOf("Qwen2-7B", {}, Counter(1e30, 1))
          .Seconds({.rows = 8192, .sampled = 1, .context = 4096, .cached_reads = 1});
  EXPECT_NEAR(prompt.compute, 120.38e12, 0.02e12);
}

TEST(LayoutCost, TheFloorsOfOneH200) {
  const std::vector<std::pair<std::string, double>> microseconds = {{"Qwen2-0.5B", 230},
                                                                    {"Qwen2-1.5B", 718},
                                                                    {"Qwen2-7B", 3289},
                                                                    {"Qwen2-72B", 33237},
                                                                    {"Qwen2-57B-A14B", 6374}};
  for (const auto& [model, expected] : microseconds) {
    EXPECT_NEAR(CostOf(model, {}, H200()).DecodeSeconds(1, 0).compute * 1e6, expected, 0.6)
        << model;
  }
}

TEST(LayoutCost, RanksDivideTheBytesAndWaitForEachOther) {
  const StepSeconds step = CostOf("Qwen2-7B", {.tp = 8}, H200()).DecodeSeconds(1, 0);
  EXPECT_NEAR(step.compute * 1e6, 417, 2);
  const double reduce = AllReduceSeconds(H200(), {.ranks = 8}, 3584 * 4);
  EXPECT_DOUBLE_EQ(step.collectives, (2 * 28 + 2) * reduce);
  EXPECT_NEAR(step.launches, 28 * 5 * 1.3e-6, 1e-12);
  EXPECT_EQ(step.exchange, 0);
}

TEST(LayoutCost, WholeExpertsOfOneTokenAreUneven) {
  const double cut =
      CostOf("Qwen2-57B-A14B", {.tp = 4, .ep = 1}, H200()).DecodeSeconds(1, 0).compute;
  const double whole =
      CostOf("Qwen2-57B-A14B", {.tp = 4, .ep = 4}, H200()).DecodeSeconds(1, 0).compute;
  EXPECT_GT(whole, 1.2 * cut);
  const double cut_batch =
      CostOf("Qwen2-57B-A14B", {.tp = 4, .ep = 1}, H200()).DecodeSeconds(256, 0).compute;
  const double whole_batch =
      CostOf("Qwen2-57B-A14B", {.tp = 4, .ep = 4}, H200()).DecodeSeconds(256, 0).compute;
  EXPECT_NEAR(whole_batch / cut_batch, 1, 0.01) << "every expert is read anyway";
}

TEST(LayoutCost, OnlyExpertsOfSeveralGroupsAreExchanged) {
  EXPECT_EQ(CostOf("Qwen2-7B", {.dp = 2}, H200()).DecodeSeconds(1, 0).exchange, 0);
  EXPECT_EQ(CostOf("Qwen2-57B-A14B", {.tp = 2}, H200()).DecodeSeconds(1, 0).exchange, 0);
  EXPECT_GT(CostOf("Qwen2-57B-A14B", {.dp = 2}, H200()).DecodeSeconds(1, 0).exchange,
            28 * 2 * H200().reduce_seconds);
}

TEST(LayoutCost, RanksOfANodeOfCpusShareIt) {
  const Hardware cpu = RequestFor("Qwen2-0.5B", "CPU", 1).hardware;
  const double one = CostOf("Qwen2-0.5B", {}, cpu).DecodeSeconds(1, 0).compute;
  const double two = CostOf("Qwen2-0.5B", {.tp = 2}, cpu).DecodeSeconds(1, 0).compute;
  EXPECT_NEAR(two / one, 1, 0.001);
}

TEST(LayoutCost, APromptIsComputedInSteps) {
  const LayoutCost cost = CostOf("Qwen2-7B", {}, H200());
  const double step =
      cost.Seconds({.rows = 512, .sampled = 1, .context = 1024, .cached_reads = 1}).total();
  EXPECT_DOUBLE_EQ(cost.PrefillTokensPerSecond(2048, 512), 512 / step);
  EXPECT_LT(cost.PrefillTokensPerSecond(16, 512), cost.PrefillTokensPerSecond(2048, 512));
  const LayoutCost groups = CostOf("Qwen2-7B", {.dp = 3}, H200());
  EXPECT_DOUBLE_EQ(groups.PrefillTokensPerSecond(2048, 512), 3 * 512 / step);
}

}  // namespace
}  // namespace cohort
