#include "tests/runtime/hash_group.h"

#include <gtest/gtest.h>

#include <utility>
#include <vector>

#include "tests/runtime/recording_sink.h"
#include "tests/runtime/thread_step_link.h"

namespace cohort {
namespace {

class HashRank : public RankBody {
 public:
  HashRank(const HashGroupOptions& options, uint64_t epoch, int rank)
      : options_(options),
        is_first_(rank == 0),
        is_last_(rank + 1 == options.ranks),
        rank_(options.model, options.scheduler, epoch) {}

  absl::StatusOr<StepResult> Run(const StepPlan& plan) override {
    if (!options_.gate->Pass(plan.step, aborted_)) {
      return absl::AbortedError("aborted while held");
    }
    if (is_last_ && plan.step == options_.fails_at_step) {
      return absl::InternalError("out of numbers");
    }
    if (is_last_ && plan.step == options_.is_silent_at_step) {
      silent_.HoldBefore(0);
      silent_.Pass(plan.step, silenced_);
      return absl::AbortedError("aborted while silent");
    }
    ASSIGN_OR_RETURN(StepResult result, rank_.Run(plan));
    if (is_last_ && plan.step == options_.diverges_at_step) {
      ++result.digest;
    }
    if (!is_first_) {
      result.sequences.clear();
    }
    return result;
  }

  void Abort() override {
    options_.gate->Abort(aborted_);
    silent_.Abort(silenced_);
  }

 private:
  HashGroupOptions options_;
  bool is_first_;
  bool is_last_;
  PagedRank rank_;
  bool aborted_ = false;   // guarded by the gate
  StepGate silent_;        // never opened
  bool silenced_ = false;  // guarded by silent_
};

}  // namespace

void StepGate::HoldBefore(uint64_t step) {
  const std::lock_guard<std::mutex> lock(mutex_);
  held_step_ = step;
}

void StepGate::Open() {
  const std::lock_guard<std::mutex> lock(mutex_);
  held_step_ = ~uint64_t{0};
  changed_.notify_all();
}

void StepGate::WaitUntilHeld() {
  std::unique_lock<std::mutex> lock(mutex_);
  EXPECT_TRUE(changed_.wait_for(lock, kTestTimeout, [this] { return waiting_ > 0; }));
}

bool StepGate::Pass(uint64_t step, const bool& aborted) {
  std::unique_lock<std::mutex> lock(mutex_);
  if (step >= held_step_) {
    ++waiting_;
    changed_.notify_all();
    changed_.wait(lock, [&] { return step < held_step_ || aborted; });
    --waiting_;
  }
  return !aborted;
}

void StepGate::Abort(bool& aborted) {
  const std::lock_guard<std::mutex> lock(mutex_);
  aborted = true;
  changed_.notify_all();
}

std::unique_ptr<Executor> MakeHashGroup(uint64_t epoch, const HashGroupOptions& options) {
  std::vector<std::unique_ptr<StepLink>> links;
  for (int rank = 0; rank < options.ranks; ++rank) {
    links.push_back(MakeThreadStepLink(absl::StrCat("rank ", rank),
                                       std::make_unique<HashRank>(options, epoch, rank)));
  }
  return std::make_unique<Executor>(epoch, std::move(links), options.step_timeout);
}

}  // namespace cohort
