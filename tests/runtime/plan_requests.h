// Requests to the planner, for the published models.
#ifndef COHORT_TESTS_RUNTIME_PLAN_REQUESTS_H_
#define COHORT_TESTS_RUNTIME_PLAN_REQUESTS_H_

#include <gtest/gtest.h>

#include <string>

#include "runtime/planner.h"

namespace cohort {

inline PlanRequest RequestFor(const std::string& model, StringView hardware, int64_t gpus) {
  const auto config = ParseModelConfig(PublishedConfig(model), model);
  const auto machine = FindHardware(hardware);
  EXPECT_TRUE(config.ok()) << config.status();
  EXPECT_TRUE(machine.ok()) << machine.status();
  PlanRequest request;
  request.config = *config;
  request.hardware = *machine;
  request.gpus = gpus;
  return request;
}

}  // namespace cohort

#endif  // COHORT_TESTS_RUNTIME_PLAN_REQUESTS_H_
