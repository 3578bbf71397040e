// A StepLink whose rank is a thread of this process.
#ifndef COHORT_TESTS_RUNTIME_THREAD_STEP_LINK_H_
#define COHORT_TESTS_RUNTIME_THREAD_STEP_LINK_H_

#include <memory>
#include <string>

#include "runtime/step_link.h"

namespace cohort {

// What the rank does with its plans. Run and the destructor are called on the link's thread.
class RankBody {
 public:
  virtual ~RankBody() = default;
  virtual absl::StatusOr<StepResult> Run(const StepPlan& plan) = 0;
  virtual void Abort() = 0;  // any thread, any number of times: a Run in progress returns soon
};

// Destroying the link aborts the body and joins the thread.
std::unique_ptr<StepLink> MakeThreadStepLink(std::string name, std::unique_ptr<RankBody> body);

}  // namespace cohort

#endif  // COHORT_TESTS_RUNTIME_THREAD_STEP_LINK_H_
