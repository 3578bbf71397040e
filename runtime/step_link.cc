#include "runtime/step_link.h"

#include <algorithm>
#include <functional>
#include <iterator>
#include <utility>

#include "absl/strings/str_join.h"
#include "absl/time/clock.h"
#include "kernels/check.h"

namespace cohort {
namespace {

// The code of the first failure and the words of all.
absl::Status Joined(const std::vector<absl::Status>& failures) {
  return absl::Status(failures.front().code(),
                      absl::StrJoin(failures, "; ", [](std::string* out, const absl::Status& s) {
                        out->append(s.message().data(), s.message().size());
                      }));
}

}  // namespace

Executor::Executor(uint64_t epoch, std::vector<std::unique_ptr<StepLink>> links,
                   absl::Duration step_timeout, int data_parallel)
    : epoch_(epoch),
      links_(std::move(links)),
      group_ranks_(links_.size() / static_cast<size_t>(data_parallel)),
      step_timeout_(step_timeout) {
  CHECK(!links_.empty());
  CHECK_EQ(group_ranks_ * static_cast<size_t>(data_parallel), links_.size());
}

int32_t& Executor::TokenTop(uint32_t slot) {
  if (slot >= token_top_of_slot_.size()) {
    token_top_of_slot_.resize(size_t{slot} + 1, -1);
  }
  return token_top_of_slot_[slot];
}

Executor::ExpectedResult Executor::Expect(const StepPlan& plan) {
  ExpectedResult expected{.step = plan.step, .sequences = {}};
  for (const AdmitSequence& admit : plan.admits) {
    TokenTop(admit.slot) = admit.sampling.logprobs;
  }
  for (const SequenceRows& rows : plan.rows) {
    if (rows.sample || !rows.score_targets.empty()) {
      expected.sequences.push_back({.slot = rows.slot,
                                    .sampled = rows.sample,
                                    .token_top = TokenTop(rows.slot),
                                    .logprobs = rows.score_targets.size(),
                                    .score_top = rows.score_targets.size() * rows.score_top});
    }
  }
  return expected;
}

absl::Status Executor::Send(const StepPlan& plan) {
  CHECK_EQ(plan.epoch, epoch_);
  ExpectedResult expected = Expect(plan);
  const std::string bytes = Encode(plan);
  // A full link empties when the ranks have computed what was sent before.
  const absl::Time deadline =
      absl::Now() + step_timeout_ * static_cast<double>(outstanding_.size() + 1);
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
    return Annotate(Joined(failures), absl::StrCat("step ", expected.step, " of epoch ", epoch_));
  }
  for (size_t first = 0; first < links_.size(); first += group_ranks_) {
    RETURN_IF_ERROR(CompareDigests(absl::MakeSpan(results).subspan(first, group_ranks_), first));
  }
  return Join(std::move(results), expected);
}

// The first ranks' answers as one, in order of the groups, as the plan has their rows.
absl::StatusOr<StepResult> Executor::Join(std::vector<StepResult> results,
                                          const ExpectedResult& expected) const {
  StepResult whole = std::move(results.front());
  for (size_t first = group_ranks_; first < results.size(); first += group_ranks_) {
    std::vector<SequenceResult>& sequences = results[first].sequences;
    whole.sequences.insert(whole.sequences.end(), std::make_move_iterator(sequences.begin()),
                           std::make_move_iterator(sequences.end()));
    const std::vector<int32_t>& hits = results[first].expert_hits;
    if (hits.size() != whole.expert_hits.size()) {
      return absl::InternalError(absl::StrCat(links_[first]->name(), " counted ", hits.size(),
                                              " experts, ", links_.front()->name(), " ",
                                              whole.expert_hits.size()));
    }
    std::transform(hits.begin(), hits.end(), whole.expert_hits.begin(), whole.expert_hits.begin(),
                   std::plus<>());
  }
  std::string names = links_.front()->name();
  for (size_t first = group_ranks_; first < links_.size(); first += group_ranks_) {
    absl::StrAppend(&names, ", ", links_[first]->name());
  }
  RETURN_IF_ERROR(Annotate(CheckAnswer(expected, whole), names));
  return whole;
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

bool Executor::IsAnswer(const ExpectedSequence& asked, const SequenceResult& answer) {
  const size_t tokens = answer.tokens.size();
  const size_t top = static_cast<size_t>(std::max(asked.token_top, 0));
  return answer.slot == asked.slot && (tokens > 0) == asked.sampled &&
         answer.token_logprobs.size() == (asked.token_top >= 0 ? tokens : 0) &&
         answer.token_top.size() == tokens * top && answer.logprobs.size() == asked.logprobs &&
         answer.score_top.size() == asked.score_top;
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
    if (!IsAnswer(asked, answer)) {
      return absl::InternalError(
          absl::StrCat("step ", expected.step, ": asked slot ", asked.slot, " for ",
                       asked.sampled ? "tokens" : "no tokens", " with ", asked.token_top,
                       " alternatives (-1: no log-probabilities) and for ", asked.logprobs,
                       " log-probabilities with ", asked.score_top, " alternatives in all; slot ",
                       answer.slot, " answered ", answer.tokens.size(), " tokens, ",
                       answer.token_logprobs.size(), " and ", answer.token_top.size(), " of them, ",
                       answer.logprobs.size(), " and ", answer.score_top.size(), " of the prompt"));
    }
  }
  return absl::OkStatus();
}

absl::Status Executor::CompareDigests(absl::Span<const StepResult> results, size_t first) const {
  const auto differs = [&](const StepResult& r) { return r.digest != results.front().digest; };
  if (std::none_of(results.begin(), results.end(), differs)) {
    return absl::OkStatus();
  }
  std::string digests;
  for (size_t i = 0; i < results.size(); ++i) {
    absl::StrAppend(&digests, i == 0 ? "" : ", ", links_[first + i]->name(), " has 0x",
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
