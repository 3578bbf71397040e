#include "tests/launcher/scripted_rank.h"

#include <utility>

#include "absl/time/clock.h"

namespace cohort {

void RankScript::Hold() {
  const std::lock_guard<std::mutex> lock(mutex_);
  held_ = true;
}

void RankScript::Release() {
  const std::lock_guard<std::mutex> lock(mutex_);
  held_ = false;
  changed_.notify_all();
}

absl::Status ScriptedRank::Send(StringView plan_bytes, absl::Time) {
  ASSIGN_OR_RETURN(const StepPlan plan, DecodeStepPlan(plan_bytes));
  StepResult result;
  result.epoch = plan.epoch;
  result.step = plan.step;
  for (const SequenceRows& rows : plan.rows) {
    if (!rows.sample && rows.score_targets.empty()) continue;
    SequenceResult& sequence = result.sequences.emplace_back();
    sequence.slot = rows.slot;
    const uint64_t last = rows.first_position + rows.tokens.size() - 1;
    if (rows.sample) sequence.tokens = {script_->choose_(last)};
    for (const int32_t target : rows.score_targets) {
      sequence.logprobs.push_back(target < 0 ? 0 : -static_cast<float>(target) / 4);
    }
  }
  const std::lock_guard<std::mutex> lock(script_->mutex_);
  script_->answers_.push_back(Encode(result));
  script_->changed_.notify_all();
  return script_->aborted_;
}

absl::StatusOr<std::string> ScriptedRank::Receive(absl::Time deadline) {
  std::unique_lock<std::mutex> lock(script_->mutex_);
  const auto ready = [this] {
    return !script_->aborted_.ok() || (!script_->held_ && !script_->answers_.empty());
  };
  if (!script_->changed_.wait_until(lock, absl::ToChronoTime(deadline), ready)) {
    return absl::DeadlineExceededError("no answer of the scripted rank");
  }
  RETURN_IF_ERROR(script_->aborted_);
  std::string answer = std::move(script_->answers_.front());
  script_->answers_.pop_front();
  return answer;
}

void ScriptedRank::Abort(absl::Status reason) {
  const std::lock_guard<std::mutex> lock(script_->mutex_);
  script_->aborted_ = std::move(reason);
  script_->changed_.notify_all();
}

std::unique_ptr<Executor> ScriptedGroup(uint64_t epoch, std::shared_ptr<RankScript> script) {
  std::vector<std::unique_ptr<StepLink>> links;
  links.push_back(std::make_unique<ScriptedRank>(std::move(script)));
  return std::make_unique<Executor>(epoch, std::move(links), absl::Seconds(60));
}

}  // namespace cohort
