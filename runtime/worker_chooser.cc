#include "runtime/worker_chooser.h"

#include <algorithm>
#include <bit>

#include "kernels/probability_mass.h"

namespace cohort {
namespace {

constexpr int64_t kRows = Qwen2::kMaxLogitRows;
constexpr int64_t kWholeRows = Qwen2::kMaxWholeRows;
// Of one rank and row: what the choice needs and what the log-probabilities need.
constexpr int64_t kMaxWords =
    CandidateRecord::Words(kMaxCandidates) + CandidateRecord::Words(kMaxLogprobs);

uint64_t Joined(const int32_t* words) {
  return uint64_t{static_cast<uint32_t>(words[0])} | uint64_t{static_cast<uint32_t>(words[1])}
                                                         << 32;
}

}  // namespace

int64_t WorkerChooser::WorkspaceBytes(const ShardPlan& plan) {
  const int64_t ranks = static_cast<int64_t>(plan.vocabulary_parts().size());
  return 4 * (kRows + kWholeRows + kRows * kMaxWords * (1 + ranks) +
              kWholeRows * plan.vocabulary().size());
}

absl::StatusOr<WorkerChooser> WorkerChooser::Create(const ShardPlan& plan, int64_t valid_ids,
                                                    int64_t max_tokens, Device& device) {
  WorkerChooser chooser(plan.vocabulary());
  chooser.device_ = &device;
  chooser.slice_ = {.first_id = plan.vocabulary().begin, .valid_ids = valid_ids};
  chooser.vocabulary_ = plan.vocabulary_parts().back().end;
  chooser.rows_.reserve(static_cast<size_t>(max_tokens));
  chooser.edits_.resize(kRows);
  const int64_t ranks = static_cast<int64_t>(plan.vocabulary_parts().size());
  ASSIGN_OR_RETURN(chooser.row_indices_, device.Allocate({kRows}, DType::kI32));
  ASSIGN_OR_RETURN(chooser.tokens_, device.Allocate({kWholeRows}, DType::kI32));
  ASSIGN_OR_RETURN(chooser.local_, device.Allocate({kRows * kMaxWords}, DType::kI32));
  ASSIGN_OR_RETURN(chooser.gathered_, device.Allocate({kRows * ranks * kMaxWords}, DType::kI32));
  ASSIGN_OR_RETURN(chooser.edited_,
                   device.Allocate({kWholeRows, plan.vocabulary().size()}, DType::kF32));
  return chooser;
}

void WorkerChooser::Run(Qwen2& model, Communicator& tp) {
  // Those to sample first, so that in every chunk they are a leading block of the logits.
  std::partition(rows_.begin(), rows_.end(), [](const LogitRow& row) { return row.sample; });
  constexpr size_t kChunk = static_cast<size_t>(kRows);
  for (size_t begin = 0; begin < rows_.size(); begin += kChunk) {
    RunChunk(absl::MakeSpan(rows_).subspan(begin, kChunk), model, tp);
  }
}

void WorkerChooser::RunChunk(absl::Span<LogitRow> rows, Qwen2& model, Communicator& tp) {
  const auto sampled =
      std::find_if(rows.begin(), rows.end(), [](auto& row) { return !row.sample; });
  const Chunk chunk{.rows = rows,
                    .sampled = static_cast<size_t>(sampled - rows.begin()),
                    .logits = Logits(rows, model)};
  MakeRequests(chunk);
  const absl::Span<const int32_t> words = GatherRecords(chunk, tp);
  if (!tp.status().ok()) {
    return;
  }
  Choose(chunk, words);
  ChooseByMass(chunk, tp);
  ChooseFromWholeRows(chunk, model, tp);
  ReadLogprobs(chunk, words);
}

TensorView WorkerChooser::Logits(absl::Span<const LogitRow> rows, Qwen2& model) {
  host_.clear();
  for (const LogitRow& row : rows) {
    host_.push_back(row.row);
  }
  const TensorView indices = row_indices_.view().Rows(0, static_cast<int64_t>(rows.size()));
  device_->CopyFromHost(host_.data(), indices);
  return model.LocalLogits(indices);
}

void WorkerChooser::MakeRequests(const Chunk& chunk) {
  requests_.clear();
  raw_requests_.clear();
  sampling_words_ = 0;
  raw_words_ = 0;
  for (size_t i = 0; i < chunk.rows.size(); ++i) {
    const LogitRow& row = chunk.rows[i];
    if (row.sample) {
      requests_.push_back(
          RequestFor(row.sampling, edits_maker_.Make(row.view, &edits_[i]), slice_.valid_ids));
      sampling_words_ =
          std::max(sampling_words_, CandidateRecord::Words(requests_.back().candidates));
    }
    CandidateRequest raw;
    if (row.wants_logprobs()) {
      raw = {.candidates = std::max({row.score_top, row.token_top(), 1}),
             .temperature = 1,
             .target = row.target};
      raw_words_ = std::max(raw_words_, CandidateRecord::Words(raw.candidates));
    }
    raw_requests_.push_back(raw);
  }
}

absl::Span<const int32_t> WorkerChooser::GatherRecords(const Chunk& chunk, Communicator& tp) {
  const int64_t count = static_cast<int64_t>(chunk.rows.size());
  const int64_t sampled = static_cast<int64_t>(chunk.sampled);
  const TensorView local(local_.view().data, DType::kI32, {count, sampling_words_ + raw_words_});
  if (sampling_words_ > 0) {
    device_->ops().LocalCandidates(chunk.logits.Rows(0, sampled), requests_, slice_,
                                   local.Rows(0, sampled).Columns(0, sampling_words_));
  }
  if (raw_words_ > 0) {
    device_->ops().LocalCandidates(chunk.logits, raw_requests_,
                                   {.first_id = slice_.first_id, .valid_ids = vocabulary_},
                                   local.Columns(sampling_words_, raw_words_));
  }
  return Gather(local, tp, &record_words_);
}

absl::Span<const int32_t> WorkerChooser::Gather(TensorView local, Communicator& tp,
                                                std::vector<int32_t>* words) {
  const int64_t columns = local.columns();
  parts_.clear();
  for (int rank = 0; rank < tp.size(); ++rank) {
    parts_.push_back({rank * columns, (rank + 1) * columns});
  }
  TensorView gathered = local;
  if (tp.size() > 1) {
    gathered = TensorView(gathered_.view().data, DType::kI32, {local.rows(), tp.size() * columns});
    tp.AllGather(local, parts_, gathered);
  }
  words->resize(static_cast<size_t>(gathered.shape.elements()));
  device_->CopyToHost(gathered, words->data());
  return *words;
}

absl::Span<const CandidateRecord> WorkerChooser::RecordsOf(absl::Span<const int32_t> words,
                                                           size_t row, int64_t offset) {
  const size_t step = static_cast<size_t>(sampling_words_ + raw_words_);
  records_.clear();
  for (size_t rank = 0; rank < parts_.size(); ++rank) {
    records_.emplace_back(words.data() + (row * parts_.size() + rank) * step + offset);
  }
  return records_;
}

void WorkerChooser::Choose(const Chunk& chunk, absl::Span<const int32_t> words) {
  by_mass_.clear();
  whole_.clear();
  token_logits_.resize(chunk.sampled);
  for (size_t i = 0; i < chunk.sampled; ++i) {
    LogitRow& row = chunk.rows[i];
    const Choice choice = chooser_.Choose(RecordsOf(words, i, 0), row.sampling, slice_.valid_ids);
    if (choice.kind == Choice::Kind::kByMass) {
      by_mass_.push_back({i, choice});
    } else if (choice.kind == Choice::Kind::kWhole) {
      whole_.push_back({i, choice});
    }
    row.token = choice.token;
    token_logits_[i] = choice.raw;
    if (choice.token == kNoToken && !choice.is_nan && !requests_[i].edits.empty()) {
      row.token = kNothingAllowed;
    }
  }
}

void WorkerChooser::ChooseByMass(const Chunk& chunk, Communicator& tp) {
  if (by_mass_.empty()) {
    return;
  }
  mass_requests_.clear();
  for (const Unchosen& unchosen : by_mass_) {
    mass_requests_.push_back({.row = static_cast<int32_t>(unchosen.row),
                              .edits = requests_[unchosen.row].edits,
                              .temperature = chunk.rows[unchosen.row].sampling.temperature,
                              .largest = unchosen.choice.largest,
                              .lowest = unchosen.choice.lowest});
  }
  const TensorView local(local_.view().data, DType::kI32,
                         {static_cast<int64_t>(by_mass_.size()), 2});
  device_->ops().LocalMasses(chunk.logits, mass_requests_, slice_, local);
  const absl::Span<const int32_t> masses = Gather(local, tp, &host_);
  if (!tp.status().ok()) {
    return;
  }
  FindOwners(chunk, masses, static_cast<size_t>(tp.rank()));
  device_->ops().LocalPick(chunk.logits, mass_requests_, slice_, local);
  const absl::Span<const int32_t> picks = Gather(local, tp, &host_);
  for (size_t i = 0; i < by_mass_.size(); ++i) {
    const int32_t* pick = &picks[(i * parts_.size() + by_mass_[i].owner) * 2];
    chunk.rows[by_mass_[i].row].token = pick[0];
    token_logits_[by_mass_[i].row] = std::bit_cast<float>(pick[1]);
  }
}

// The rank in whose columns the cumulative mass exceeds what the uniform number asks for.
void WorkerChooser::FindOwners(const Chunk& chunk, absl::Span<const int32_t> masses,
                               size_t own_rank) {
  const size_t ranks = parts_.size();
  for (size_t i = 0; i < by_mass_.size(); ++i) {
    const auto mass_of = [&](size_t rank) { return Joined(&masses[(i * ranks + rank) * 2]); };
    uint64_t total = 0;
    for (size_t rank = 0; rank < ranks; ++rank) {
      total += mass_of(rank);
    }
    uint64_t wanted = PartOfMass(total, UniformOf(chunk.rows[by_mass_[i].row].sampling));
    size_t owner = 0;
    for (; mass_of(owner) <= wanted; ++owner) {
      wanted -= mass_of(owner);
    }
    by_mass_[i].owner = owner;
    mass_requests_[i].wanted = owner == own_rank ? wanted : MassRequest::kOtherRank;
  }
}

void WorkerChooser::ChooseFromWholeRows(const Chunk& chunk, Qwen2& model, Communicator& tp) {
  constexpr size_t kGroup = static_cast<size_t>(kWholeRows);
  const absl::Span<const Unchosen> all(whole_);
  for (size_t begin = 0; begin < all.size(); begin += kGroup) {
    SampleWholeRows(chunk, all.subspan(begin, kGroup), model, tp);
  }
  for (const Unchosen& unchosen : all) {
    const LogitRow& row = chunk.rows[unchosen.row];
    if (row.token_top() >= 0 && row.token >= 0) {
      const TensorView raw = chunk.logits.Rows(static_cast<int64_t>(unchosen.row), 1);
      device_->CopyToHost(model.GatherLogits(raw, tp).Columns(row.token, 1),
                          &token_logits_[unchosen.row]);
    }
  }
}

void WorkerChooser::SampleWholeRows(const Chunk& chunk, absl::Span<const Unchosen> rows,
                                    Qwen2& model, Communicator& tp) {
  const int64_t count = static_cast<int64_t>(rows.size());
  const TensorView edited = edited_.view().Rows(0, count);
  sampling_.clear();
  for (size_t i = 0; i < rows.size(); ++i) {
    const int64_t row = static_cast<int64_t>(rows[i].row);
    device_->ops().EditLogits(chunk.logits.Rows(row, 1), {&requests_[rows[i].row].edits, 1},
                              slice_.first_id, edited.Rows(static_cast<int64_t>(i), 1));
    sampling_.push_back(chunk.rows[rows[i].row].sampling);
  }
  const TensorView tokens = tokens_.view().Rows(0, count);
  device_->ops().Sample(model.GatherLogits(edited, tp), sampling_, slice_.valid_ids, tokens);
  host_.resize(rows.size());
  device_->CopyToHost(tokens, host_.data());
  for (size_t i = 0; i < rows.size(); ++i) {
    chunk.rows[rows[i].row].token = host_[i];
  }
}

void WorkerChooser::ReadLogprobs(const Chunk& chunk, absl::Span<const int32_t> words) {
  for (size_t i = 0; i < chunk.rows.size(); ++i) {
    LogitRow& row = chunk.rows[i];
    if (!row.wants_logprobs()) {
      continue;
    }
    const auto records = RecordsOf(words, i, sampling_words_);
    const double log_of_sum = LogOfSum(records);
    const auto logprob = [&](float logit) {
      return static_cast<float>(double{logit} - log_of_sum);
    };
    for (const CandidateRecord& record : records) {
      row.logprob = record.has_target() ? logprob(record.target()) : row.logprob;
    }
    if (row.token_top() >= 0 && row.token >= 0) {
      row.token_logprob = logprob(token_logits_[i]);
    }
    const int32_t top = std::max(row.score_top, row.token_top());
    if (top > 0) {
      for (const Candidate& candidate : chooser_.Likeliest(records, static_cast<size_t>(top))) {
        row.top.push_back({.id = candidate.id, .logprob = logprob(candidate.logit)});
      }
    }
  }
}

}  // namespace cohort
