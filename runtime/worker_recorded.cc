#include <algorithm>
#include <utility>

#include "runtime/plan_parts.h"
#include "runtime/step_digest.h"
#include "runtime/worker_state.h"

namespace cohort {

std::optional<StepKind> Worker::State::RecordedKind(const StepPlan& whole) {
  if (parts_.recorded == nullptr || parts_.recorded->under_way() == RecordedSteps::kMaxUnderWay) {
    return std::nullopt;
  }
  const std::optional<StepKind> kind = recordable_.KindOf(whole);
  return kind.has_value() && kind->rows <= parts_.recorded->max_rows() ? kind : std::nullopt;
}

absl::Status Worker::State::EnqueueRecorded(const StepPlan& plan, const StepKind& kind) {
  Outstanding step{.step = plan.step, .slots = {}, .result = std::nullopt};
  step.slots.reserve(plan.rows.size());
  recorded_rows_.clear();
  for (const SequenceRows& rows : plan.rows) {
    sources_.clear();
    RETURN_IF_ERROR(slots_.Extend(rows, sources_));
    const SequenceKind sequence = slots_.kind(rows.slot);
    const int64_t position = static_cast<int64_t>(rows.first_position);
    recorded_rows_.push_back({.source = sources_.front(),
                              .position = static_cast<int32_t>(position),
                              .rope_row = position_rule_.RopeRow(sequence, position),
                              .logit_factor = position_rule_.LogitFactor(sequence, position),
                              .slot = static_cast<int32_t>(rows.slot),
                              .admission = slots_.admission(rows.slot),
                              .sampling = slots_.NextSamplingRow(rows.slot),
                              .blocks = &slots_.blocks(rows.slot)});
    step.slots.push_back(rows.slot);
  }
  RETURN_IF_ERROR(parts_.recorded->Enqueue(recorded_rows_, kind, recorded_group()));
  for (const uint32_t slot : step.slots) {
    slots_.ExpectSample(slot, plan.step);
  }
  for (const uint32_t slot : plan.releases) {
    RETURN_IF_ERROR(slots_.Release(slot));
  }
  outstanding_.push_back(std::move(step));
  return absl::OkStatus();
}

absl::Status Worker::State::CollectRecorded(const Outstanding& step, StepResult& result) {
  ASSIGN_OR_RETURN(const RecordedSteps::Answer answer, parts_.recorded->Collect(recorded_group()));
  result.epoch = epoch_;
  result.step = step.step;
  StepDigest digest;
  digest.Add(step.step);
  for (size_t i = 0; i < step.slots.size(); ++i) {
    const int32_t token = answer.tokens[i];
    if (token == kUndecided) {
      return absl::InternalError(
          absl::StrCat("the records of slot ", step.slots[i], "'s logits do not tell its token"));
    }
    slots_.RecordSample(step.slots[i], step.step, token);
    digest.Add(static_cast<uint32_t>(token));
  }
  result.digest = digest.value();
  result.sequences.resize(answers() ? step.slots.size() : 0);
  for (size_t i = 0; i < result.sequences.size(); ++i) {
    SequenceResult& sequence = result.sequences[i];
    sequence.slot = step.slots[i] + first_slot();
    sequence.tokens.assign(1, answer.tokens[i]);
    sequence.token_logprobs.clear();
    sequence.token_top.clear();
    sequence.logprobs.clear();
    sequence.score_top.clear();
  }
  result.expert_hits.clear();
  if (answers()) {
    expert_load_.Take(answer.expert_hits, parts_.model->expert_hits().columns(),
                      result.expert_hits);
  }
  if (answer.is_filled_up) {  // what nobody reads has chosen experts too: such steps do not count
    std::fill(result.expert_hits.begin(), result.expert_hits.end(), 0);
  }
  return absl::OkStatus();
}

// What the plan has for this rank's data-parallel group.
absl::Status Worker::State::EnqueuePart(const StepPlan& plan, const std::optional<StepKind>& kind) {
  if (kind.has_value()) {
    return EnqueueRecorded(plan, *kind);
  }
  for (Outstanding& before : outstanding_) {
    if (!before.result.has_value()) {
      StepResult result;
      RETURN_IF_ERROR(CollectRecorded(before, result));
      before.result = std::move(result);
    }
  }
  ASSIGN_OR_RETURN(StepResult result, RunAtOnce(plan));
  outstanding_.push_back({.step = plan.step, .slots = {}, .result = std::move(result)});
  return absl::OkStatus();
}

absl::Status Worker::State::Named(const absl::Status& status, uint64_t step) const {
  return status.ok() ? status
                     : Annotate(status, absl::StrCat("rank ", options_.rank, ", epoch ", epoch_,
                                                     ", step ", step));
}

absl::Status Worker::State::Enqueue(const StepPlan& whole) {
  RETURN_IF_ERROR(CheckTurn(whole));
  const std::optional<StepKind> kind = RecordedKind(whole);
  if (!kind.has_value() && parts_.model->exchanges_rows()) {
    group_rows_ = RowsOfGroups(whole, options_.parallelism.dp, options_.max_running);
  }
  absl::Status enqueued;
  if (options_.parallelism.dp == 1) {
    enqueued = EnqueuePart(whole, kind);
  } else {
    const absl::StatusOr<StepPlan> part =
        PartOf(whole, group(), options_.parallelism.dp, options_.max_running);
    enqueued = part.ok() ? EnqueuePart(*part, kind) : part.status();
  }
  RETURN_IF_ERROR(Named(enqueued, whole.step));
  recordable_.Follow(whole);
  last_step_ = whole.step;
  return absl::OkStatus();
}

bool Worker::State::IsDone() {
  CHECK(!outstanding_.empty());
  return outstanding_.front().result.has_value() || parts_.recorded->IsDone();
}

absl::Status Worker::State::Collect(StepResult& result) {
  CHECK(!outstanding_.empty());
  Outstanding step = std::move(outstanding_.front());
  outstanding_.pop_front();
  if (step.result.has_value()) {
    result = *std::move(step.result);
    return absl::OkStatus();
  }
  return Named(CollectRecorded(step, result), step.step);
}

}  // namespace cohort
