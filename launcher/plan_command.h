// `cohort plan`: what fits on which machine, where every byte goes and how fast it can be.
#ifndef COHORT_LAUNCHER_PLAN_COMMAND_H_
#define COHORT_LAUNCHER_PLAN_COMMAND_H_

#include <cstdint>
#include <optional>
#include <string>

#include "kernels/status.h"

namespace cohort {

struct PlanOptions {
  std::string model;  // a directory, a config.json, `pocket`, or the name of a published config
  std::optional<int64_t> gpus, nodes, tp, dp, ep, context;
  std::string gpu = "H200";
  std::optional<int64_t> gpu_memory_bytes;
  int64_t concurrency = 1;
  std::string dtype;  // "fp32", "bf16"; empty: as the config says
  bool json = false;
  std::string svg;  // path of the picture; empty: none
};

// What goes to standard output, and the exit code: 0 fits, 3 does not. Writes options.svg.
struct PlanOutput {
  std::string text;
  int exit_code = 0;
};
absl::StatusOr<PlanOutput> PlanCommand(const PlanOptions& options);

int RunPlan(const PlanOptions& options);

}  // namespace cohort

#endif  // COHORT_LAUNCHER_PLAN_COMMAND_H_
