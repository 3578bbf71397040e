#include "runtime/step_link.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_join.h"
#include "absl/time/clock.h"
#include "kernels/check.h"

namespace cohort {
namespace {

// The code of the first failure and the words of all.
absl::Status Merge(const std::vector<absl::Status>& failures) {
  return absl::Status(failures.front().code(),
                      absl::StrJoin(failures, "; ", [](std::string* out, const absl::Status& s) {
                        out->append(s.message().data(), s.message().size());
                      }));
}

}  // namespace

Executor::Executor(uint64_t epoch, std::vector<std::unique_ptr<StepLink>> links,
                   absl::Duration step_timeout)
    : epoch_(epoch), links_(std::move(links)), step_timeout_(step_timeout) {
  CHECK(!links_.empty());
}

absl::Status Executor::Send(const StepPlan& plan) {
  CHECK_EQ(plan.epoch, epoch_);
  ExpectedResult expected{.step = plan.step, .sequences = {}};
  for (const SequenceRows& rows : plan.rows) {
    if (rows.sample || !rows.score_targets.empty()) {
      expected.sequences.push_back(
          {.slot = rows.slot, .sampled = rows.sample, .logprobs = rows.score_targets.size()});
    }
  }
  const std::string bytes = Encode(plan);
  const absl::Time deadline = absl::Now() + step_timeout_;
  for (const std::unique_ptr<StepLink>& link : links_) {
    RETURN_IF_ERROR(Annotate(link->Send(bytes, deadline),
                             absl::StrCat(link->name(), ": sending step ", plan.step)));
  }
  outstanding_.push_back(std::move(expected));
  return absl::OkStatus();
}

absl::StatusOr<StepResult> Executor::Receive() {
  CHECK(!outstanding_.empty()) << "no plan of epoch " << epoch_ << " awaits a result";
  const ExpectedResult expected = std::move(outstanding_.front());
  outstanding_.pop_front();
  absl::Time deadline = absl::Now() + step_timeout_;
  std::vector<StepResult> results;
  std::vector<absl::Status> failures;
  for (const std::unique_ptr<StepLink>& link : links_) {
    auto result = ReceiveFrom(*link, expected, deadline);
    if (result.ok()) {
      results.push_back(*std::move(result));
    } else {
      failures.push_back(Annotate(result.status(), link->name()));
      deadline = absl::Now();  // the step is lost: only hear what the others have said already
    }
  }
  if (!failures.empty()) {
    return Annotate(Merge(failures), absl::StrCat("step ", expected.step, " of epoch ", epoch_));
  }
  RETURN_IF_ERROR(CompareDigests(results));
  RETURN_IF_ERROR(Annotate(CheckAnswer(expected, results.front()), links_.front()->name()));
  return std::move(results.front());
}

absl::StatusOr<StepResult> Executor::ReceiveFrom(StepLink& link, const ExpectedResult& expected,
                                                 absl::Time deadline) {
  ASSIGN_OR_RETURN(const std::string bytes, link.Receive(deadline));
  ASSIGN_OR_RETURN(StepResult result, DecodeStepResult(bytes));
  if (result.epoch != epoch_ || result.step != expected.step) {
    return absl::InternalError(
        absl::StrCat("answered step ", result.step, " of epoch ", result.epoch, " instead"));
  }
  return result;
}

absl::Status Executor::CheckAnswer(const ExpectedResult& expected, const StepResult& result) {
  if (result.sequences.size() != expected.sequences.size()) {
    return absl::InternalError(absl::StrCat("step ", expected.step, ": ", result.sequences.size(),
                                            " sequences answered, ", expected.sequences.size(),
                                            " asked"));
  }
  for (size_t i = 0; i < result.sequences.size(); ++i) {
    const SequenceResult& answer = result.sequences[i];
    const ExpectedSequence& asked = expected.sequences[i];
    if (answer.slot != asked.slot || answer.tokens.empty() == asked.sampled ||
        answer.logprobs.size() != asked.logprobs) {
      return absl::InternalError(absl::StrCat("step ", expected.step, ": asked slot ", asked.slot,
                                              " for ", asked.sampled ? "tokens" : "no tokens",
                                              " and ", asked.logprobs, " log-probabilities, slot ",
                                              answer.slot, " answered ", answer.tokens.size(),
                                              " and ", answer.logprobs.size()));
    }
  }
  return absl::OkStatus();
}

absl::Status Executor::CompareDigests(const std::vector<StepResult>& results) const {
  const auto differs = [&](const StepResult& r) { return r.digest != results.front().digest; };
  if (std::none_of(results.begin(), results.end(), differs)) {
    return absl::OkStatus();
  }
  std::string digests;
  for (size_t i = 0; i < results.size(); ++i) {
    absl::StrAppend(&digests, i == 0 ? "" : ", ", links_[i]->name(), " has 0x",
                    absl::Hex(results[i].digest, absl::kZeroPad16));
  }
  return absl::InternalError(absl::StrCat("step ", results.front().step, " of epoch ", epoch_,
                                          ": the ranks' results differ: ", digests));
}

void Executor::Abort(absl::Status reason) {
  for (const std::unique_ptr<StepLink>& link : links_) {
    link->Abort(reason);
  }
}

}  // namespace cohort
