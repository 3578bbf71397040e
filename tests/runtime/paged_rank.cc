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

int32_t HashModel::NextToken(absl::Span<const int32_t> ids, const Choice& choice) const {
  const uint64_t hash = Hash(ids, choice.seed + choice.sequence_index);
  if (nan_one_in > 0 && (hash >> 40) % nan_one_in == 0) {
    return -1;
  }
  int32_t id = static_cast<int32_t>(hash % static_cast<uint64_t>(vocabulary));
  while (ids.size() - choice.prompt_tokens < choice.min_tokens &&
         std::count(choice.held_back_ids.begin(), choice.held_back_ids.end(), id) > 0) {
    id = (id + 1) % vocabulary;
  }
  return id;
}

float HashModel::LogProbability(absl::Span<const int32_t> ids, int32_t target) const {
  return target < 0 ? 0 : -static_cast<float>(Hash(ids, static_cast<uint64_t>(target)) % 1000);
}

void HashModel::AppendTop(absl::Span<const int32_t> ids, int32_t count,
                          std::vector<TokenLogprob>& top) const {
  for (int32_t id = 0; id < count; ++id) {
    top.push_back({.id = id, .logprob = LogProbability(ids, id)});
  }
}

namespace {

void ExpectScores(const HashModel& model, const Request& request, ExpectedOutcome& outcome) {
  for (size_t i = 1; i < request.prompt.size(); ++i) {
    const auto before = absl::MakeConstSpan(request.prompt).subspan(0, i);
    outcome.prompt_logprobs.push_back(model.LogProbability(before, request.prompt[i]));
    model.AppendTop(before, request.prompt_logprobs, outcome.prompt_top);
  }
}

bool Contains(absl::Span<const int32_t> ids, int32_t id) {
  return std::count(ids.begin(), ids.end(), id) > 0;
}

}  // namespace

ExpectedOutcome Expect(const HashModel& model, const Request& request,
                       absl::Span<const int32_t> eos_token_ids) {
  ExpectedOutcome outcome;
  if (request.score || request.prompt_logprobs >= 0) {
    ExpectScores(model, request, outcome);
  }
  if (request.score) {
    return outcome;
  }
  std::vector<int32_t> ids = request.prompt;
  std::vector<int32_t> ends = request.stopping.stop_token_ids;
  if (!request.stopping.ignore_eos) {
    ends.insert(ends.end(), eos_token_ids.begin(), eos_token_ids.end());
  }
  const HashModel::Choice choice = {
      .seed = request.sampling.seed,
      .sequence_index = request.sequence_index,
      .prompt_tokens = request.prompt.size(),
      .min_tokens = static_cast<uint64_t>(request.stopping.min_tokens),
      .held_back_ids = ends};
  while (true) {
    const int32_t id = model.NextToken(ids, choice);
    if (id < 0) {
      outcome.reason = FinishReason::kError;
      outcome.prompt_logprobs.clear();
      outcome.prompt_top.clear();
      return outcome;
    }
    if (request.sampling.logprobs >= 0) {
      outcome.logprobs.push_back(model.LogProbability(ids, id));
      model.AppendTop(ids, request.sampling.logprobs, outcome.top);
    }
    ids.push_back(id);
    outcome.tokens.push_back(id);
    if (Contains(ends, id)) {
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
      cells_(static_cast<size_t>(options.blocks * options.block_size), -2),
      written_in_step_(cells_.size(), 0) {}

absl::StatusOr<StepResult> PagedRank::Run(const StepPlan& plan) {
  if (plan.epoch != epoch_ || plan.step != last_step_ + 1) {
    return Bad("epoch or step", plan.step, last_step_ + 1);
  }
  last_step_ = plan.step;
  if (plan.tokens() > max_batch_tokens_) {
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
    RETURN_IF_ERROR(RunRows(rows, result));
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
  if (admit.first_position % static_cast<uint64_t>(block_size_) != 0) {
    return Bad("a prefix that is not whole blocks", admit.first_position, admit.prompt_tokens);
  }
  Slot fresh;
  fresh.live = true;
  fresh.admit = admit;
  fresh.choice = {.seed = admit.sampling.seed,
                  .sequence_index = admit.sequence_index,
                  .prompt_tokens = admit.prompt_tokens,
                  .min_tokens = admit.min_tokens,
                  .held_back_ids = admit.held_back_ids};
  fresh.length = static_cast<int64_t>(admit.first_position);
  slots_[admit.slot] = fresh;
  return absl::OkStatus();
}

// The cached prefix was written by earlier steps, and its ids came with the admission where the
// choice needs them.
absl::Status PagedRank::CheckPrefix(const Slot& slot) const {
  const size_t first = static_cast<size_t>(slot.admit.first_position);
  if (first > slot.blocks.size() * static_cast<size_t>(block_size_)) {
    return Bad("prefix without blocks", first, slot.blocks.size());
  }
  for (size_t position = 0; position < first; ++position) {
    const size_t cell = CellOf(slot, position);
    if (written_in_step_[cell] == 0 || written_in_step_[cell] >= last_step_) {
      return Bad("prefix that no earlier step wrote", position, written_in_step_[cell]);
    }
  }
  const std::vector<int32_t> ids = ReadBack(slot);
  if (slot.admit.history != (slot.admit.sampling.NeedsHistory() ? ids : std::vector<int32_t>())) {
    return Bad("history", slot.admit.history.size(), ids.size());
  }
  return absl::OkStatus();
}

absl::Status PagedRank::RunRows(const SequenceRows& rows, StepResult& result) {
  if (rows.slot >= slots_.size() || !slots_[rows.slot].live) {
    return Bad("rows of a slot that is not live", rows.slot, last_step_);
  }
  Slot& slot = slots_[rows.slot];
  if (rows.first_position != static_cast<uint64_t>(slot.length)) {
    return Bad("first position", rows.first_position, static_cast<uint64_t>(slot.length));
  }
  slot.blocks.insert(slot.blocks.end(), rows.appended_blocks.begin(), rows.appended_blocks.end());
  if (rows.first_position == slot.admit.first_position) {
    RETURN_IF_ERROR(CheckPrefix(slot));
  }
  SequenceResult answer;
  answer.slot = rows.slot;
  for (size_t i = 0; i < rows.tokens.size(); ++i) {
    RETURN_IF_ERROR(Write(rows.tokens[i], slot));
    if (!rows.score_targets.empty()) {
      answer.logprobs.push_back(model_.LogProbability(ReadBack(slot), rows.score_targets[i]));
      model_.AppendTop(ReadBack(slot), static_cast<int32_t>(rows.score_top), answer.score_top);
    }
  }
  if (slot.length <= (static_cast<int64_t>(slot.blocks.size()) - 1) * block_size_) {
    return Bad("blocks beyond the positions", slot.blocks.size(), rows.first_position);
  }
  if (rows.sample) {
    Sample(slot, answer);
  }
  if (rows.sample || !rows.score_targets.empty()) {
    result.sequences.push_back(std::move(answer));
  }
  return absl::OkStatus();
}

void PagedRank::Sample(Slot& slot, SequenceResult& answer) const {
  std::vector<int32_t> ids = ReadBack(slot);
  do {
    const int32_t id = model_.NextToken(ids, slot.choice);
    answer.tokens.push_back(id);
    if (slot.admit.sampling.logprobs >= 0) {
      answer.token_logprobs.push_back(model_.LogProbability(ids, id));
      model_.AppendTop(ids, slot.admit.sampling.logprobs, answer.token_top);
    }
    ids.push_back(id);
  } while (ids.back() >= 0 && static_cast<int32_t>(answer.tokens.size()) <= model_.extra_tokens);
  slot.sampled_in_step = last_step_;
  slot.sample = answer.tokens.front();
}

absl::Status PagedRank::Write(const TokenSource& source, Slot& slot) {
  if (!source.is_literal() && source.sampled_in_step != slot.sampled_in_step) {
    return Bad("source step", source.sampled_in_step, slot.sampled_in_step);
  }
  const size_t position = static_cast<size_t>(slot.length);
  if (position >= slot.blocks.size() * static_cast<size_t>(block_size_)) {
    return Bad("position without a block", position, slot.blocks.size());
  }
  const size_t cell = CellOf(slot, position);
  if (cell >= cells_.size()) {
    return Bad("block id", cell, cells_.size());
  }
  cells_[cell] = source.is_literal() ? source.id : slot.sample;
  written_in_step_[cell] = last_step_;
  ++slot.length;
  return absl::OkStatus();
}

size_t PagedRank::CellOf(const Slot& slot, size_t position) const {
  const size_t size = static_cast<size_t>(block_size_);
  return static_cast<size_t>(slot.blocks[position / size]) * size + position % size;
}

std::vector<int32_t> PagedRank::ReadBack(const Slot& slot) const {
  std::vector<int32_t> ids;
  ids.reserve(static_cast<size_t>(slot.length));
  for (size_t position = 0; position < static_cast<size_t>(slot.length); ++position) {
    ids.push_back(cells_[CellOf(slot, position)]);
  }
  return ids;
}

}  // namespace cohort
