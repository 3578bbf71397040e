#include "launcher/plan_report.h"

#include "absl/strings/str_format.h"

namespace cohort {
bool HoldTheSame(const RankPlan& left, const RankPlan& right) {
  const auto sizes = [](const RankPlan& rank) {
    return std::vector<int64_t>{rank.query_heads.size(),
                                rank.kv_heads.size(),
                                rank.ffn_columns.size(),
                                rank.experts.size(),
                                rank.expert_columns.size(),
                                rank.vocabulary.size(),
                                rank.shared_expert_columns.size(),
                                rank.workspace,
                                rank.reserve};
  };
  return sizes(left) == sizes(right);
}

std::vector<MemoryPart> MemoryParts(const RankPlan& rank) {
  const WeightParts& weights = rank.weights;
  const std::vector<MemoryPart> all = {
      {"attention", "#4c72b0", true, weights.attention},
      {"dense FFN", "#5cab6e", false, weights.dense_ffn},
      {"experts", "#2e7d5b", true, weights.experts},
      {"shared expert", "#8fc79a", false, weights.shared_expert},
      {"router and norms", "#7a6f9b", true, weights.router + weights.norms},
      {"embedding", "#c9a227", false, weights.embedding - rank.host},
      {"head", "#e3c565", false, weights.head},
      {"workspace", "#c44e52", true, rank.workspace},
      {"communication", "#e08e79", false, rank.communication},
      {"reserve", "#b0b0b0", false, rank.reserve},
      {"KV cache", "#9ecae1", false, rank.kv},
  };
  std::vector<MemoryPart> parts;
  for (const MemoryPart& part : all) {
    if (part.bytes > 0) parts.push_back(part);
  }
  return parts;
}

std::string BytesText(int64_t bytes) {
  const double value = static_cast<double>(bytes);
  if (bytes == 0) return "0";
  if (bytes >= 1'000'000'000'000) return absl::StrFormat("%.2f TB", value / 1e12);
  if (bytes >= 1'000'000'000) return absl::StrFormat("%.2f GB", value / 1e9);
  if (bytes >= 1'000'000) return absl::StrFormat("%.1f MB", value / 1e6);
  return absl::StrFormat("%.1f kB", value / 1e3);
}

std::string CountText(int64_t count) {
  const std::string digits = absl::StrCat(count);
  const size_t sign = count < 0 ? 1 : 0;
  std::string text;
  for (size_t i = 0; i < digits.size(); ++i) {
    if (i > sign && (digits.size() - i) % 3 == 0) text.push_back(',');
    text.push_back(digits[i]);
  }
  return text;
}

std::string RangeText(Range range) {
  if (range.size() <= 0) return "-";
  return range.size() == 1 ? absl::StrCat(range.begin)
                           : absl::StrCat(range.begin, "-", range.end - 1);
}

std::string ChangeText(const PlanChange& change) {
  const Parallelism& layout = change.parallelism;
  const std::string degrees =
      absl::StrCat("tp ", layout.tp, ", dp ", layout.dp, ", ep ", layout.ep);
  switch (change.kind) {
    case PlanChange::Kind::kMoreGpus:
      return absl::StrCat("--gpus ", change.value, " (", degrees, ")");
    case PlanChange::Kind::kShorterContext:
      return absl::StrCat("--context ", change.value, " (", degrees, ")");
    case PlanChange::Kind::kFewerSequences:
      return absl::StrCat("--concurrency ", change.value, " (", degrees, ")");
  }
  return "";
}

}  // namespace cohort
