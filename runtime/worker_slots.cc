#include "runtime/worker_slots.h"

#include <algorithm>

namespace cohort {

WorkerSlots::WorkerSlots(const WorkerLimits& limits)
    : limits_(limits), slots_(static_cast<size_t>(limits.slots)) {
  for (Slot& slot : slots_) {
    slot.blocks.reserve(static_cast<size_t>(limits.blocks_per_sequence()));
  }
}

void WorkerSlots::Reset() {
  for (Slot& slot : slots_) {
    slot.is_live = false;
  }
}

absl::Status WorkerSlots::CheckSlot(uint32_t slot) const {
  return slot < slots_.size() ? absl::OkStatus()
                              : absl::InternalError(absl::StrCat("the plan names slot ", slot,
                                                                 " of ", slots_.size()));
}

absl::Status WorkerSlots::CheckAdmission(const AdmitSequence& admit) const {
  RETURN_IF_ERROR(CheckSlot(admit.slot));
  const auto error = [&](auto... parts) {
    return absl::InternalError(absl::StrCat("the plan admits to slot ", admit.slot, " ", parts...));
  };
  if (const absl::Status status = Validate(admit.sampling); !status.ok()) {
    return error("a sequence that no request can ask for: ", status.message());
  }
  if (admit.first_position >= static_cast<uint64_t>(limits_.positions) ||
      admit.first_position % static_cast<uint64_t>(limits_.block_size) != 0) {
    return error("a sequence that begins at position ", admit.first_position, " of ",
                 limits_.positions, " with blocks of ", limits_.block_size);
  }
  if (admit.plain_rope && admit.first_position >= static_cast<uint64_t>(limits_.plain_positions)) {
    return error("a sequence with plain rope, of which there are ", limits_.plain_positions,
                 " positions, at position ", admit.first_position);
  }
  const size_t history = admit.sampling.NeedsHistory() ? admit.first_position : 0;
  if (admit.history.size() != history) {
    return error(admit.history.size(), " ids of history where ", history, " were expected");
  }
  return absl::OkStatus();
}

absl::Status WorkerSlots::Admit(const AdmitSequence& admit) {
  RETURN_IF_ERROR(CheckAdmission(admit));
  Slot& slot = slots_[admit.slot];
  slot.is_live = true;
  slot.sequence_index = admit.sequence_index;
  slot.admission = ++admissions_;
  slot.sampling = admit.sampling;
  slot.length = static_cast<int64_t>(admit.first_position);
  slot.prompt_tokens = admit.prompt_tokens;
  slot.plain_rope = admit.plain_rope;
  slot.min_tokens = admit.min_tokens;
  slot.held_back_ids = admit.held_back_ids;
  if (admit.sampling.NeedsHistory()) {
    slot.ids.reserve(static_cast<size_t>(limits_.positions));  // no step allocates
  }
  slot.ids.assign(admit.history.begin(), admit.history.end());
  slot.blocks.clear();
  slot.samples.fill({});
  slot.sample_count = 0;
  return absl::OkStatus();
}

absl::Status WorkerSlots::CheckRows(const SequenceRows& rows) const {
  RETURN_IF_ERROR(CheckSlot(rows.slot));
  const Slot& slot = slots_[rows.slot];
  const int64_t count = static_cast<int64_t>(rows.tokens.size());
  const auto error = [&](auto... parts) {
    return absl::InternalError(absl::StrCat("the plan for slot ", rows.slot, " ", parts...));
  };
  if (!slot.is_live || count == 0) {
    return error(slot.is_live ? "has no rows" : "names a sequence that was never admitted");
  }
  if (rows.first_position != static_cast<uint64_t>(slot.length)) {
    return error("begins at position ", rows.first_position, " where ", slot.length,
                 " was expected");
  }
  const int64_t positions = slot.plain_rope ? limits_.plain_positions : limits_.positions;
  if (count > positions - slot.length) {
    return error("goes beyond the ", positions, " positions of a sequence");
  }
  const int64_t blocks = static_cast<int64_t>(slot.blocks.size() + rows.appended_blocks.size());
  if (blocks > limits_.blocks_per_sequence() || slot.length + count > blocks * limits_.block_size) {
    return error("has ", blocks, " blocks for ", slot.length + count, " positions");
  }
  for (const int32_t block : rows.appended_blocks) {
    if (block < 0 || block >= limits_.kv_blocks) {
      return error("appends block ", block, " of ", limits_.kv_blocks);
    }
  }
  if (!rows.score_targets.empty() && rows.score_targets.size() != rows.tokens.size()) {
    return error("has ", rows.score_targets.size(), " score targets for ", count, " rows");
  }
  for (const int32_t target : rows.score_targets) {
    if (target >= limits_.vocabulary) {
      return error("scores id ", target, " of ", limits_.vocabulary);
    }
  }
  if (rows.score_top > static_cast<uint32_t>(kMaxLogprobs)) {
    return error("asks for the ", rows.score_top, " most probable ids of at most ", kMaxLogprobs);
  }
  return absl::OkStatus();
}

absl::StatusOr<int32_t> WorkerSlots::Resolve(uint32_t slot, const TokenSource& source) const {
  if (source.is_literal()) {
    if (source.id < 0 || source.id >= limits_.vocabulary) {
      return absl::InternalError(
          absl::StrCat("the plan holds token id ", source.id, " of ", limits_.vocabulary));
    }
    return source.id;
  }
  const Slot& live = slots_[slot];
  for (size_t age = 1; age <= kKeptSamples; ++age) {  // the newest first
    const Sample& sample = live.samples[(live.sample_count - age) % kKeptSamples];
    if (sample.step == source.sampled_in_step && sample.step != 0) {
      if (sample.is_expected) {
        // The device keeps the last one only; the next step is planned for no other.
        CHECK_EQ(age, 1u) << "slot " << slot;
        return -1 - static_cast<int32_t>(slot);
      }
      // What follows logits that were not numbers is computed with any id and thrown away.
      return sample.token < 0 ? 0 : sample.token;
    }
  }
  return absl::InternalError(absl::StrCat("the plan names a token sampled in step ",
                                          source.sampled_in_step,
                                          ", which the sequence does not have"));
}

absl::Status WorkerSlots::Extend(const SequenceRows& rows, std::vector<int32_t>& ids) {
  RETURN_IF_ERROR(CheckRows(rows));
  Slot& slot = slots_[rows.slot];
  for (const TokenSource& source : rows.tokens) {
    ASSIGN_OR_RETURN(const int32_t id, Resolve(rows.slot, source));
    ids.push_back(id);
    if (slot.sampling.NeedsHistory()) {
      slot.ids.push_back(id);
    }
  }
  slot.blocks.insert(slot.blocks.end(), rows.appended_blocks.begin(), rows.appended_blocks.end());
  slot.length += static_cast<int64_t>(rows.tokens.size());
  return absl::OkStatus();
}

void WorkerSlots::ExpectSample(uint32_t slot, uint64_t step) {
  Slot& live = slots_[slot];
  live.samples[live.sample_count++ % kKeptSamples] = {step, 0, true};
}

// An expected sample of a slot that has begun another sequence meanwhile is nobody's.
void WorkerSlots::RecordSample(uint32_t slot, uint64_t step, int32_t token) {
  Slot& live = slots_[slot];
  for (Sample& sample : live.samples) {
    if (sample.is_expected && sample.step == step) {
      sample = {step, token, false};
      return;
    }
  }
  live.samples[live.sample_count++ % kKeptSamples] = {step, token, false};
}

absl::Status WorkerSlots::Release(uint32_t slot) {
  RETURN_IF_ERROR(CheckSlot(slot));
  slots_[slot].is_live = false;
  return absl::OkStatus();
}

SamplingRow WorkerSlots::NextSamplingRow(uint32_t slot) const {
  const Slot& live = slots_[slot];
  SamplingRow row;
  row.temperature = live.sampling.temperature;
  row.top_p = live.sampling.top_p;
  row.top_k = live.sampling.top_k;
  row.min_p = live.sampling.min_p;
  row.seed = live.sampling.seed;
  row.sequence_index = live.sequence_index;
  row.position = static_cast<uint64_t>(live.length);
  return row;
}

SequenceView WorkerSlots::View(uint32_t slot) const {
  const Slot& live = slots_[slot];
  SequenceView view;
  view.sampling = &live.sampling;
  view.ids = live.ids;
  view.prompt_tokens = static_cast<size_t>(live.prompt_tokens);
  const uint64_t length = static_cast<uint64_t>(live.length);
  if (length - std::min(length, live.prompt_tokens) < live.min_tokens) {
    view.held_back_ids = live.held_back_ids;
  }
  return view;
}

}  // namespace cohort
