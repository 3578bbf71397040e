// Plans of all published models on 1 to 16 devices of each kind, as tests/golden/plans.txt has
// them: a table that people review. What depends on bytes has three digits, so that another buffer
// changes nothing here. COHORT_UPDATE_GOLDEN=1 in the environment writes it anew.
#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>
#include <sstream>
#include <string>

#include "absl/strings/str_format.h"
#include "tests/runtime/plan_requests.h"

namespace cohort {
namespace {

constexpr char kHeader[] =
    "# tp.dp.ep | KV tokens | host GB | slowest/mean | ms/token at batch 1 | prefill tokens/s "
    "|| layout of most tokens/s, tokens/s, sequences; or what is missing and the fewest that fit\n";

std::string Degrees(const Parallelism& parallelism) {
  return absl::StrFormat("%d.%d.%d", parallelism.tp, parallelism.dp, parallelism.ep);
}

std::string Throughput(const LayoutPlan& layout) {
  return absl::StrFormat("%8s %8.3g of %.3g", Degrees(layout.parallelism),
                         layout.predicted.decode_tokens_per_second,
                         static_cast<double>(layout.predicted.decode_sequences));
}

std::string Line(int64_t gpus, const Plan& plan) {
  const LayoutPlan& best = plan.best;
  const std::string beginning = absl::StrFormat("%3d  %8s", gpus, Degrees(best.parallelism));
  if (!best.fits) {
    std::string text = absl::StrFormat("%s  missing %6.3g GB", beginning,
                                       static_cast<double>(best.missing_bytes) / 1e9);
    for (const PlanChange& change : plan.changes) {
      if (change.kind == PlanChange::Kind::kMoreGpus) {
        absl::StrAppendFormat(&text, ", fits %d as %s", change.value, Degrees(change.parallelism));
      }
    }
    return text;
  }
  const bool is_both = best.why.find("most tokens") != std::string::npos;
  const LayoutPlan& fullest =
      is_both || plan.alternatives.empty() ? best : plan.alternatives.front();
  return absl::StrFormat("%s %8.3g %5.2f %6.4f %8.3f %8.0f || %s", beginning,
                         static_cast<double>(best.kv_tokens),
                         static_cast<double>(best.host_bytes) / 1e9, best.imbalance,
                         best.predicted.decode.total() * 1e3,
                         best.predicted.prefill_tokens_per_second, Throughput(fullest));
}

std::string Table() {
  std::string table = kHeader;
  for (const std::string& model : PublishedConfigNames()) {
    for (const Hardware& hardware : KnownHardware()) {
      absl::StrAppend(&table, "\n", model, " on ", hardware.name, "\n");
      for (int64_t gpus = 1; gpus <= 16; ++gpus) {
        const auto plan = MakePlan(RequestFor(model, hardware.name, gpus));
        EXPECT_TRUE(plan.ok()) << plan.status();
        absl::StrAppend(&table, Line(gpus, *plan), "\n");
      }
    }
  }
  return table;
}

TEST(PlannerGolden, PlansAreThoseThatWereReviewed) {
  const std::string path = COHORT_SOURCE_DIR "/tests/golden/plans.txt";
  const std::string table = Table();
  if (std::getenv("COHORT_UPDATE_GOLDEN") != nullptr) {
    std::ofstream(path) << table;
  }
  std::ifstream file(path);
  std::stringstream golden;
  golden << file.rdbuf();
  std::istringstream expected(golden.str()), actual(table);
  std::string expected_line, actual_line;
  while (std::getline(actual, actual_line)) {
    ASSERT_TRUE(std::getline(expected, expected_line)) << "new: " << actual_line;
    ASSERT_EQ(actual_line, expected_line);
  }
  EXPECT_FALSE(std::getline(expected, expected_line)) << "gone: " << expected_line;
}

}  // namespace
}  // namespace cohort
