// Groups of hash ranks (paged_rank.h) on threads, which a test can hold, fail or silence at a step.
#ifndef COHORT_TESTS_RUNTIME_HASH_GROUP_H_
#define COHORT_TESTS_RUNTIME_HASH_GROUP_H_

#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>

#include "runtime/step_link.h"
#include "tests/runtime/paged_rank.h"

namespace cohort {

// Stops ranks before a step until the test lets them go.
class StepGate {
 public:
  // From now on no rank begins step `step` or a later one.
  void HoldBefore(uint64_t step);
  void Open();
  // Until a rank stands before the held step.
  void WaitUntilHeld();

  // Of the ranks: false when `aborted` came true while held.
  bool Pass(uint64_t step, const bool& aborted);
  void Abort(bool& aborted);  // sets it and wakes those held

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  uint64_t held_step_ = ~uint64_t{0};
  int64_t waiting_ = 0;
};

struct HashGroupOptions {
  HashModel model;
  SchedulerOptions scheduler;
  int ranks = 2;
  absl::Duration step_timeout = absl::Seconds(60);
  std::shared_ptr<StepGate> gate = std::make_shared<StepGate>();
  // The last rank misbehaves at these steps; 0: never.
  uint64_t fails_at_step = 0;      // answers INTERNAL "out of numbers"
  uint64_t diverges_at_step = 0;   // another digest
  uint64_t is_silent_at_step = 0;  // answers nothing until aborted
};

std::unique_ptr<Executor> MakeHashGroup(uint64_t epoch, const HashGroupOptions& options);

}  // namespace cohort

#endif  // COHORT_TESTS_RUNTIME_HASH_GROUP_H_
