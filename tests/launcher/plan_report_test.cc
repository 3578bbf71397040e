#include "launcher/plan_report.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

namespace cohort {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

PlanRequest Request(const std::string& model, StringView hardware, int64_t gpus) {
  PlanRequest request;
  request.config = *ParseModelConfig(PublishedConfig(model), model);
  request.hardware = *FindHardware(hardware);
  request.gpus = gpus;
  return request;
}

PlanSubject SubjectOf(const std::string& model, const PlanRequest& request) {
  return {
      .model = model, .dtype = request.dtype, .hardware = request.hardware, .gpus = request.gpus};
}

size_t Count(const std::string& text, const std::string& part) {
  size_t count = 0;
  for (size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++count;
  return count;
}

TEST(PlanReport, NumbersAreForPeople) {
  EXPECT_EQ(BytesText(0), "0");
  EXPECT_EQ(BytesText(1536), "1.5 kB");
  EXPECT_EQ(BytesText(107'100'000), "107.1 MB");
  EXPECT_EQ(BytesText(12'345'678'901), "12.35 GB");
  EXPECT_EQ(BytesText(8'924'130'000'000), "8.92 TB");
  EXPECT_EQ(CountText(0), "0");
  EXPECT_EQ(CountText(999), "999");
  EXPECT_EQ(CountText(1000), "1,000");
  EXPECT_EQ(CountText(1'234'567), "1,234,567");
  EXPECT_EQ(CountText(-123'456), "-123,456");
  EXPECT_EQ(RangeText({3, 5}), "3-4");
  EXPECT_EQ(RangeText({3, 4}), "3");
  EXPECT_EQ(RangeText({3, 3}), "-");
  EXPECT_EQ(ChangeText({PlanChange::Kind::kMoreGpus, 2, {.tp = 2}}), "--gpus 2 (tp 2, dp 1, ep 1)");
}

TEST(PlanReport, PartsAreAllThatARankHolds) {
  const PlanRequest request = Request("Qwen2-57B-A14B", "H100", 8);
  const auto layout = PlanLayout(request, {2, 4, 8});
  ASSERT_TRUE(layout.ok()) << layout.status();
  for (const RankPlan& rank : layout->ranks) {
    int64_t bytes = rank.free;
    for (const MemoryPart& part : MemoryParts(rank)) bytes += part.bytes;
    EXPECT_EQ(bytes, request.hardware.memory_bytes);
  }
}

TEST(PlanReport, JsonHasTheKeysThatProgramsRead) {
  const PlanRequest request = Request("Qwen2-7B", "H100", 2);
  const auto plan = MakePlan(request);
  ASSERT_TRUE(plan.ok()) << plan.status();
  const nlohmann::ordered_json json = PlanJson(SubjectOf("Qwen2-7B", request), *plan);
  for (const char* key :
       {"layout", "ranks", "checkpoint_bytes", "replicated_bytes", "host_bytes", "kv_tokens",
        "imbalance", "predicted", "fits", "missing_bytes", "alternatives", "changes"}) {
    EXPECT_TRUE(json.contains(key)) << key;
  }
  for (const char* key :
       {"rank", "query_heads", "kv_heads", "ffn_columns", "experts", "vocabulary_rows",
        "weight_bytes", "kv_bytes_per_token", "workspace_bytes"}) {
    EXPECT_TRUE(json["ranks"][1].contains(key)) << key;
  }
  EXPECT_EQ(json["layout"]["tp"], plan->best.parallelism.tp);
  EXPECT_GT(json["predicted"]["decode_ms_batch1"].get<double>(), 0);
  EXPECT_GT(json["predicted"]["prefill_tokens_per_s"].get<double>(), 0);
  EXPECT_EQ(json["alternatives"].size(), plan->alternatives.size());
  EXPECT_TRUE(json["alternatives"][0].contains("ranks"));
}

TEST(PlanReport, TheTableSaysWhatFitsAndWhy) {
  const PlanRequest request = Request("Qwen2-7B", "H100", 8);
  const std::string table = PlanTable(SubjectOf("Qwen2-7B", request), *MakePlan(request));
  EXPECT_THAT(table, HasSubstr("Qwen2-7B in bf16 on 8 x H100 (85.52 GB), 1 node"));
  EXPECT_THAT(table, HasSubstr("layout       tp 8, dp 1, ep 1"));
  EXPECT_THAT(table, HasSubstr("(not measured)"));
  EXPECT_THAT(table, HasSubstr("shortest time per token at batch 1"));
  EXPECT_THAT(table, HasSubstr("0,2,4,6  "));
  EXPECT_THAT(table, Not(HasSubstr("experts")));
  EXPECT_THAT(table, HasSubstr("\nor  tp 1, dp 8, ep 1: most tokens at a time"));
}

TEST(PlanReport, TheTableCountsTheSequencesOnceForEachLength) {
  PlanRequest request = Request("Qwen2-7B", "H100", 8);
  request.context = 32'768;
  const auto layout = PlanLayout(request, {.tp = 4, .dp = 2});
  ASSERT_TRUE(layout.ok()) << layout.status();
  Plan plan;
  plan.best = *layout;
  const std::string table = PlanTable(SubjectOf("Qwen2-7B", request), plan);
  EXPECT_EQ(Count(table, " x 32,768"), 1u) << table;
  EXPECT_THAT(table, HasSubstr(absl::StrCat(layout->kv_tokens / 2 / 131'072 * 2, " x 131,072\n")));
}

TEST(PlanReport, TheTableOfARefusalNamesTheBytesAndTheWayOut) {
  PlanRequest request = Request("Qwen2-72B", "H100", 1);
  request.context = 32'768;
  const auto plan = MakePlan(request);
  ASSERT_TRUE(plan.ok()) << plan.status();
  const std::string table = PlanTable(SubjectOf("Qwen2-72B", request), *plan);
  EXPECT_THAT(table, HasSubstr(absl::StrCat("does not fit: ", CountText(plan->best.missing_bytes),
                                            " bytes")));
  EXPECT_THAT(table, HasSubstr("fits with --gpus 2 (tp 2, dp 1, ep 1)"));
}

TEST(PlanReport, ThePictureHasAColumnForEachOfSixteenRanks) {
  for (const int gpus : {1, 2, 8, 16}) {
    const PlanRequest request = Request("Qwen2-57B-A14B", "B200", gpus);
    const auto layout = PlanLayout(request, {.tp = gpus, .dp = 1, .ep = gpus});
    ASSERT_TRUE(layout.ok()) << layout.status();
    const std::string svg = PlanSvg(SubjectOf("Qwen2-57B-A14B", request), *layout);
    EXPECT_EQ(Count(svg, "<title>KV cache: "), static_cast<size_t>(gpus));
    EXPECT_EQ(Count(svg, "<title>experts: "), static_cast<size_t>(gpus));
    EXPECT_THAT(svg, HasSubstr(">experts</text>"));
    EXPECT_THAT(svg, HasSubstr(">KV heads</text>"));
    EXPECT_THAT(svg, HasSubstr("not measured"));
    EXPECT_EQ(svg.substr(svg.size() - 7), "</svg>\n");
  }
}

TEST(PlanReport, NeighboursShareAColumnBeyondSixteen) {
  const PlanRequest request = Request("Qwen2-72B", "H100", 64);
  const auto layout = PlanLayout(request, {.tp = 63});
  ASSERT_TRUE(layout.ok()) << layout.status();
  const std::string svg = PlanSvg(SubjectOf("Qwen2-72B", request), *layout);
  EXPECT_GE(Count(svg, "<title>KV cache: "), 1u);
  EXPECT_LE(Count(svg, "<title>KV cache: "), kMaxColumns);
}

TEST(PlanReport, NamesAreEscapedInThePicture) {
  const PlanRequest request = Request("Qwen2-7B", "H100", 1);
  const auto layout = PlanLayout(request, {});
  ASSERT_TRUE(layout.ok()) << layout.status();
  EXPECT_THAT(PlanSvg(SubjectOf("a<b>&\"c\"", request), *layout),
              HasSubstr("a&lt;b>&amp;&quot;c&quot; in bf16"));
}

}  // namespace
}  // namespace cohort
