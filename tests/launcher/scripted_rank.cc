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

namespace {

float LogprobOf(int32_t id) { return id < 0 ? 0 : -static_cast<float>(id) / 4; }

void AppendTop(int64_t count, std::vector<TokenLogprob>& top) {
  for (int32_t id = 0; id < count; ++id) top.push_back({.id = id, .logprob = LogprobOf(id)});
}

}  // namespace

void ScriptedRank::Answer(const SequenceRows& rows, SequenceResult& result) {
  result.slot = rows.slot;
  if (rows.sample) {
    const int32_t token = script_->choose_(rows.first_position + rows.tokens.size() - 1);
    result.tokens = {token};
    const int32_t logprobs = logprobs_.at(rows.slot);
    if (logprobs >= 0) result.token_logprobs = {LogprobOf(token)};
    AppendTop(logprobs, result.token_top);
  }
  for (const int32_t target : rows.score_targets) {
    result.logprobs.push_back(LogprobOf(target));
    AppendTop(rows.score_top, result.score_top);
  }
}

absl::Status ScriptedRank::Send(StringView plan_bytes, absl::Time) {
  ASSIGN_OR_RETURN(const StepPlan plan, DecodeStepPlan(plan_bytes));
  for (const AdmitSequence& admit : plan.admits) logprobs_[admit.slot] = admit.sampling.logprobs;
  StepResult result;
  result.epoch = plan.epoch;
  result.step = plan.step;
  for (const SequenceRows& rows : plan.rows) {
    if (rows.sample || !rows.score_targets.empty()) Answer(rows, result.sequences.emplace_back());
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
