#include "tests/runtime/paged_rank.h"

#include <algorithm>

namespace cohort {
namespace {

// FNV-1a over the bytes of each value.
uint64_t Mix(uint64_t hash, uint64_t value) {
  for (int byte = 0; byte < 8; ++byte) {
    hash = (hash ^ ((value >> (8 * byte)) & 0xff)) * 0x100000001b3u;
  }
  return hash;
}

uint64_t Hash(absl::Span<const int32_t> ids, uint64_t seed) {
  uint64_t hash = Mix(0xcbf29ce484222325u, seed);
  for (const int32_t id : ids) {
    hash = Mix(hash, static_cast<uint64_t>(id));
  }
  return hash ^ (hash >> 32);
}

absl::Status Bad(StringView what, uint64_t a, uint64_t b) {
  return absl::InternalError(absl::StrCat("hash rank: ", what, ": ", a, " vs ", b));
}

}  // namespace

int32_t HashModel::NextToken(absl::Span<const int32_t> ids, uint64_t seed) const {
  const uint64_t hash = Hash(ids, seed);
  if (nan_one_in > 0 && (hash >> 40) % nan_one_in == 0) {
    return -1;
  }
  return static_cast<int32_t>(hash % static_cast<uint64_t>(vocabulary));
}

float HashModel::LogProbability(absl::Span<const int32_t> ids, int32_t target) const {
  return target < 0 ? 0 : -static_cast<float>(Hash(ids, static_cast<uint64_t>(target)) % 1000);
}

ExpectedOutcome Expect(const HashModel& model, const Request& request,
                       absl::Span<const int32_t> eos_token_ids) {
  ExpectedOutcome outcome;
  std::vector<int32_t> ids = request.prompt;
  if (request.score) {
    for (size_t i = 1; i < ids.size(); ++i) {
      outcome.prompt_logprobs.push_back(
          model.LogProbability(absl::MakeSpan(ids).subspan(0, i), ids[i]));
    }
    return outcome;
  }
  const std::vector<int32_t>& stops = request.stopping.stop_token_ids;
  while (true) {
    const int32_t id = model.NextToken(ids, request.sampling.seed);
    if (id < 0) {
      outcome.reason = FinishReason::kError;
      return outcome;
    }
    ids.push_back(id);
    outcome.tokens.push_back(id);
    if (std::count(stops.begin(), stops.end(), id) > 0 ||
        (!request.stopping.ignore_eos &&
         std::count(eos_token_ids.begin(), eos_token_ids.end(), id) > 0)) {
      return outcome;
    }
    if (static_cast<int64_t>(outcome.tokens.size()) == request.stopping.max_tokens) {
      outcome.reason = FinishReason::kLength;
      return outcome;
    }
  }
}

PagedRank::PagedRank(HashModel model, const SchedulerOptions& options, uint64_t epoch)
    : model_(model),
      block_size_(options.block_size),
      max_batch_tokens_(options.max_batch_tokens),
      epoch_(epoch),
      slots_(static_cast<size_t>(options.max_running)),
      cells_(static_cast<size_t>(options.blocks * options.block_size), -2) {}

absl::StatusOr<StepResult> PagedRank::Run(const StepPlan& plan) {
  if (plan.epoch != epoch_ || plan.step != last_step_ + 1) {
    return Bad("epoch or step", plan.step, last_step_ + 1);
  }
  last_step_ = plan.step;
  if (plan.tokens() < 1 || plan.tokens() > max_batch_tokens_) {
    return Bad("rows", static_cast<uint64_t>(plan.tokens()), 0);
  }
  StepResult result{.epoch = plan.epoch, .step = plan.step, .digest = 0, .sequences = {}};
  for (const AdmitSequence& admit : plan.admits) {
    RETURN_IF_ERROR(Admit(admit));
  }
  std::vector<uint32_t> seen;
  for (const SequenceRows& rows : plan.rows) {
    if (std::count(seen.begin(), seen.end(), rows.slot) > 0) {
      return Bad("a slot comes twice", rows.slot, plan.step);
    }
    seen.push_back(rows.slot);
    RETURN_IF_ERROR(RunRows(rows, plan.step, result));
  }
  for (const uint32_t slot : plan.releases) {
    if (slot >= slots_.size() || !slots_[slot].live) {
      return Bad("release of a slot that is not live", slot, plan.step);
    }
    slots_[slot].live = false;
  }
  result.digest = plan.step;
  for (const SequenceResult& sequence : result.sequences) {
    result.digest = Hash(sequence.tokens, result.digest);
  }
  return result;
}

absl::Status PagedRank::Admit(const AdmitSequence& admit) {
  if (admit.slot >= slots_.size()) {
    return Bad("admitted slot", admit.slot, slots_.size());
  }
  Slot fresh;
  fresh.live = true;
  fresh.seed = admit.sampling.seed;
  slots_[admit.slot] = fresh;
  return absl::OkStatus();
}

absl::Status PagedRank::RunRows(const SequenceRows& rows, uint64_t step, StepResult& result) {
  if (rows.slot >= slots_.size() || !slots_[rows.slot].live) {
    return Bad("rows of a slot that is not live", rows.slot, step);
  }
  Slot& slot = slots_[rows.slot];
  if (rows.first_position != static_cast<uint64_t>(slot.length)) {
    return Bad("first position", rows.first_position, static_cast<uint64_t>(slot.length));
  }
  slot.blocks.insert(slot.blocks.end(), rows.appended_blocks.begin(), rows.appended_blocks.end());
  SequenceResult answer;
  answer.slot = rows.slot;
  for (size_t i = 0; i < rows.tokens.size(); ++i) {
    RETURN_IF_ERROR(Write(rows.tokens[i], slot));
    if (!rows.score_targets.empty()) {
      answer.logprobs.push_back(model_.LogProbability(ReadBack(slot), rows.score_targets[i]));
    }
  }
  if (slot.length <= (static_cast<int64_t>(slot.blocks.size()) - 1) * block_size_) {
    return Bad("blocks beyond the positions", slot.blocks.size(), rows.first_position);
  }
  if (rows.sample) {
    slot.sampled_in_step = step;
    slot.sample = model_.NextToken(ReadBack(slot), slot.seed);
    answer.tokens.push_back(slot.sample);
  }
  if (rows.sample || !rows.score_targets.empty()) {
    result.sequences.push_back(std::move(answer));
  }
  return absl::OkStatus();
}

absl::Status PagedRank::Write(const TokenSource& source, Slot& slot) {
  if (!source.is_literal() && source.sampled_in_step != slot.sampled_in_step) {
    return Bad("source step", source.sampled_in_step, slot.sampled_in_step);
  }
  const size_t block = static_cast<size_t>(slot.length / block_size_);
  if (block >= slot.blocks.size()) {
    return Bad("position without a block", static_cast<uint64_t>(slot.length), slot.blocks.size());
  }
  const int64_t cell = slot.blocks[block] * block_size_ + slot.length % block_size_;
  if (cell < 0 || cell >= static_cast<int64_t>(cells_.size())) {
    return Bad("block id", static_cast<uint64_t>(cell), cells_.size());
  }
  cells_[static_cast<size_t>(cell)] = source.is_literal() ? source.id : slot.sample;
  ++slot.length;
  return absl::OkStatus();
}

std::vector<int32_t> PagedRank::ReadBack(const Slot& slot) const {
  std::vector<int32_t> ids;
  ids.reserve(static_cast<size_t>(slot.length));
  for (int64_t position = 0; position < slot.length; ++position) {
    const int64_t block = slot.blocks[static_cast<size_t>(position / block_size_)];
    ids.push_back(cells_[static_cast<size_t>(block * block_size_ + position % block_size_)]);
  }
  return ids;
}

}  // namespace cohort
