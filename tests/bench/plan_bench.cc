// Measures how long a plan takes: every published model on many GPUs. Prints one JSON object per
// line, and ends with 1 where a plan took longer than allowed.
//
//   plan_bench [GPUS [SECONDS]]
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <string>

#include "kernels/check.h"
#include "runtime/planner.h"

namespace cohort {
namespace {

using Clock = std::chrono::steady_clock;

double SecondsToPlan(const std::string& model, int64_t gpus) {
  PlanRequest request;
  request.config = *ParseModelConfig(PublishedConfig(model), model);
  request.hardware = *FindHardware("H100");
  request.gpus = gpus;
  const Clock::time_point start = Clock::now();
  const auto plan = MakePlan(request);
  const double seconds = std::chrono::duration<double>(Clock::now() - start).count();
  CHECK(plan.ok()) << plan.status();
  CHECK(plan->best.fits) << model;
  return seconds;
}

int Run(int64_t gpus, double allowed_seconds) {
  int exit_code = 0;
  for (const std::string& model : PublishedConfigNames()) {
    const double seconds = SecondsToPlan(model, gpus);
    std::printf("{\"model\": \"%s\", \"gpus\": %lld, \"seconds\": %.4f}\n", model.c_str(),
                static_cast<long long>(gpus), seconds);
    if (seconds > allowed_seconds) {
      exit_code = 1;
    }
  }
  return exit_code;
}

}  // namespace
}  // namespace cohort

int main(int argc, char** argv) {
  return cohort::Run(argc > 1 ? std::atoll(argv[1]) : 1024, argc > 2 ? std::atof(argv[2]) : 1);
}
