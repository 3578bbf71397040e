// A plan as JSON, as a table and as a picture.
#ifndef COHORT_LAUNCHER_PLAN_REPORT_H_
#define COHORT_LAUNCHER_PLAN_REPORT_H_

#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "runtime/planner.h"

namespace cohort {

// What the reports say beside the plan.
struct PlanSubject {
  std::string model;
  DType dtype = DType::kBF16;
  Hardware hardware;
  int64_t gpus = 1;
};

nlohmann::ordered_json PlanJson(const PlanSubject& subject, const Plan& plan);

// For a terminal, ends in a newline.
std::string PlanTable(const PlanSubject& subject, const Plan& plan);

// One SVG document: a column per rank, its memory stacked by kind. Beyond kMaxColumns ranks, runs
// of neighbours share a column, which is that of the fullest among them.
std::string PlanSvg(const PlanSubject& subject, const LayoutPlan& layout);
inline constexpr size_t kMaxColumns = 16;

// The parts of one rank's memory in the order of the stack, with names for people. Without those
// that are 0 on this rank.
struct MemoryPart {
  const char* name;
  const char* color;
  bool is_dark;  // so that text on it is white
  int64_t bytes = 0;
};
std::vector<MemoryPart> MemoryParts(const RankPlan& rank);

// 12345678901 -> "12.35 GB"; in the unit that leaves one to three digits before the point, kB at
// least.
std::string BytesText(int64_t bytes);
// 1234567 -> "1,234,567".
std::string CountText(int64_t count);
// {3, 5} -> "3-4", {3, 4} -> "3", an empty one -> "-".
std::string RangeText(Range range);
// "more GPUs: 2 (tp 2, dp 1, ep 1)".
std::string ChangeText(const PlanChange& change);

// Do both hold as much of everything?
bool HoldTheSame(const RankPlan& left, const RankPlan& right);

}  // namespace cohort

#endif  // COHORT_LAUNCHER_PLAN_REPORT_H_
