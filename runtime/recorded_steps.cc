#include "runtime/recorded_steps.h"

#include <algorithm>
#include <bit>
#include <numeric>
#include <utility>

#include "absl/memory/memory.h"
#include "absl/time/clock.h"
#include "kernels/candidates.h"

namespace cohort {
namespace {

// Between two looks at the communicators while a step is awaited.
constexpr absl::Duration kLookInterval = absl::Milliseconds(100);
// Tables of up to so many blocks are brought with every step, which takes about as long as the two
// kernels that keep them up to date would.
constexpr int64_t kMostTableWords = 16384;

int64_t RecordWords(int64_t rows) { return rows * CandidateRecord::Words(kMaxCandidates); }

int64_t RankCount(const ShardPlan& plan) {
  return static_cast<int64_t>(plan.vocabulary_parts().size());
}

bool HasExperts(const ShardPlan& plan) { return plan.dims().sparse_layers > 0; }

Shape ExpertHits(const ShardPlan& plan) {
  return {plan.dims().sparse_layers, HasExperts(plan) ? plan.dims().experts : 0};
}

}  // namespace

RecordedSteps::RecordedSteps(const ShardPlan& plan, const RecordedStepsOptions& options,
                             Device& device)
    : device_(device),
      options_(options),
      buckets_(options.max_rows, HasExperts(plan)),
      slice_{.first_id = plan.vocabulary().begin, .valid_ids = options.valid_ids},
      ranks_(RankCount(plan)),
      groups_(plan.parallelism().dp) {}

bool RecordedSteps::KeepsTables(int64_t rows, const RecordedStepsOptions& options) {
  return rows * options.blocks_per_sequence > kMostTableWords;
}

// Every part begins at a multiple of 16 bytes.
RecordedSteps::Layout RecordedSteps::LayoutFor(int64_t rows, const RecordedStepsOptions& options) {
  Layout layout;
  const auto take = [&layout](int64_t words) {
    return std::exchange(layout.words, layout.words + (words + 3) / 4 * 4);
  };
  layout.sources = take(rows);
  layout.positions = take(rows);
  layout.rope_rows = take(rows);
  layout.logit_factors = take(rows);
  layout.slots = take(rows);
  layout.sampling = take(rows * kSamplingWords);
  if (KeepsTables(rows, options)) {
    layout.table_rows = take(rows);
    layout.changed_places = take(rows);
    layout.changed_blocks = take(rows);
  } else {
    layout.tables = take(rows * options.blocks_per_sequence);
  }
  return layout;
}

int64_t RecordedSteps::UploadWords(const StepBuckets& buckets,
                                   const RecordedStepsOptions& options) {
  int64_t most = 0;
  for (const int64_t rows : buckets.sizes()) {
    most = std::max(most, LayoutFor(rows, options).words);
  }
  return most;
}

int64_t RecordedSteps::WorkspaceBytes(const ShardPlan& plan, const RecordedStepsOptions& options) {
  const StepBuckets buckets(options.max_rows, HasExperts(plan));
  const int64_t rows = buckets.max_rows();
  const int64_t columns = options.blocks_per_sequence;
  const int64_t kept = KeepsTables(rows, options) ? rows * columns : 0;
  const int64_t ranks = RankCount(plan);
  const int64_t gathered = ranks > 1 ? ranks : 0;
  return (kept > 0 ? SlotTables::WorkspaceBytes(options.slots, columns) : 0) +
         SizeOf(DType::kI32) *
             (kept + UploadWords(buckets, options) + (rows + 1) + options.slots + 2 * rows +
              RecordWords(rows) * (1 + gathered) + 2 * Qwen2::kMaxLogitRows * (2 + gathered));
}

absl::StatusOr<std::unique_ptr<RecordedSteps>> RecordedSteps::Create(
    const ShardPlan& plan, const RecordedStepsOptions& options, Device& device) {
  auto steps = absl::WrapUnique(new RecordedSteps(plan, options, device));
  RETURN_IF_ERROR(steps->Allocate(plan));
  return steps;
}

absl::Status RecordedSteps::Allocate(const ShardPlan& plan) {
  const int64_t rows = max_rows();
  const auto words = [&](int64_t count) { return device_.Allocate({count}, DType::kI32); };
  ASSIGN_OR_RETURN(upload_, words(UploadWords(buckets_, options_)));
  if (KeepsTables(rows, options_)) {
    ASSIGN_OR_RETURN(slot_tables_, SlotTables::Create(options_.slots, options_.blocks_per_sequence,
                                                      options_.scratch_block, device_));
    ASSIGN_OR_RETURN(tables_, device_.Allocate({rows, options_.blocks_per_sequence}, DType::kI32));
  }
  ASSIGN_OR_RETURN(counting_, words(rows + 1));
  ASSIGN_OR_RETURN(last_tokens_, words(options_.slots));
  ASSIGN_OR_RETURN(ids_, words(rows));
  ASSIGN_OR_RETURN(tokens_, words(rows));
  ASSIGN_OR_RETURN(records_, words(RecordWords(rows)));
  if (ranks_ > 1) {
    ASSIGN_OR_RETURN(gathered_, words(RecordWords(rows) * ranks_));
    ASSIGN_OR_RETURN(all_masses_, words(2 * Qwen2::kMaxLogitRows * ranks_));
  }
  ASSIGN_OR_RETURN(masses_, device_.Allocate({Qwen2::kMaxLogitRows, 2}, DType::kI32));
  ASSIGN_OR_RETURN(picks_, device_.Allocate({Qwen2::kMaxLogitRows, 2}, DType::kI32));
  for (Turn& turn : turns_) {
    RETURN_IF_ERROR(AllocateTurn(turn, ExpertHits(plan)));
  }
  std::vector<int32_t> counting(static_cast<size_t>(rows + 1));
  std::iota(counting.begin(), counting.end(), 0);
  device_.CopyFromHost(counting.data(), counting_.view());
  const std::vector<int32_t> no_tokens(static_cast<size_t>(options_.slots), kNoToken);
  device_.CopyFromHost(no_tokens.data(), last_tokens_.view());
  return device_.Synchronize();  // before the numbers are gone
}

absl::Status RecordedSteps::AllocateTurn(Turn& turn, const Shape& expert_hits) {
  ASSIGN_OR_RETURN(turn.upload,
                   device_.AllocateHost({UploadWords(buckets_, options_)}, DType::kI32));
  if (KeepsTables(max_rows(), options_)) {
    ASSIGN_OR_RETURN(turn.new_tables,
                     device_.AllocateHost({max_rows(), options_.blocks_per_sequence}, DType::kI32));
  }
  ASSIGN_OR_RETURN(turn.tokens, device_.AllocateHost({max_rows()}, DType::kI32));
  ASSIGN_OR_RETURN(turn.expert_hits, device_.AllocateHost(expert_hits, DType::kI32));
  ASSIGN_OR_RETURN(turn.mark, device_.CreateMark());
  return absl::OkStatus();
}

// Rows beyond `rows` decode id 0 at position 0 of the scratch block, for no slot.
void RecordedSteps::Pack(absl::Span<const RecordedRow> rows, int64_t size, int32_t* words) const {
  static const RecordedRow kFiller{.slot = -1};
  const Layout layout = LayoutFor(size, options_);
  for (int64_t i = 0; i < size; ++i) {
    const bool is_filler = i >= static_cast<int64_t>(rows.size());
    const RecordedRow& row = is_filler ? kFiller : rows[static_cast<size_t>(i)];
    words[layout.sources + i] = row.source;
    words[layout.positions + i] = row.position;
    words[layout.rope_rows + i] = row.rope_row;
    words[layout.logit_factors + i] = std::bit_cast<int32_t>(row.logit_factor);
    words[layout.slots + i] = row.slot;
    WriteSamplingRow(row.sampling, words + layout.sampling + i * kSamplingWords);
  }
}

// Only what attention reads is written.
void RecordedSteps::PackTables(absl::Span<const RecordedRow> rows, int64_t size,
                               int32_t* words) const {
  int32_t* table = words + LayoutFor(size, options_).tables;
  for (int64_t i = 0; i < size; ++i, table += options_.blocks_per_sequence) {
    if (i < static_cast<int64_t>(rows.size())) {
      const std::vector<int32_t>& blocks = *rows[static_cast<size_t>(i)].blocks;
      std::copy(blocks.begin(), blocks.end(), table);
    } else {
      *table = options_.scratch_block;
    }
  }
}

void RecordedSteps::BringTables(absl::Span<const RecordedRow> rows, int64_t size, Turn& turn) {
  const Layout layout = LayoutFor(size, options_);
  int32_t* const words = turn.upload.view().As<int32_t>();
  int32_t* const staging = turn.new_tables.view().As<int32_t>();
  for (int64_t i = 0; i < size; ++i) {
    SlotTables::Change change;
    int32_t table_row = slot_tables_.scratch_row();
    if (i < static_cast<int64_t>(rows.size())) {
      const RecordedRow& row = rows[static_cast<size_t>(i)];
      table_row = row.slot;
      change = slot_tables_.Bring(row.slot, row.admission, *row.blocks,
                                  staging + i * options_.blocks_per_sequence);
    }
    words[layout.table_rows + i] = table_row;
    words[layout.changed_places + i] = change.place;
    words[layout.changed_blocks + i] = change.block;
  }
}

void RecordedSteps::GatherTables(int64_t size) {
  const Layout layout = LayoutFor(size, options_);
  Ops& ops = device_.ops();
  ops.StoreTokens(Part(layout.changed_blocks, DType::kI32, {size}),
                  Part(layout.changed_places, DType::kI32, {size}), slot_tables_.all());
  ops.GatherRows(slot_tables_.rows(), Part(layout.table_rows, DType::kI32, {size}),
                 tables_.view().Rows(0, size));
}

TensorView RecordedSteps::Part(int64_t offset, DType dtype, Shape shape) const {
  return TensorView(upload_.view().As<int32_t>() + offset, dtype, shape);
}

StepRows RecordedSteps::RowsOf(int64_t size) const {
  const Layout layout = LayoutFor(size, options_);
  const TensorView counting = counting_.view();
  StepRows rows;
  rows.ids = ids_.view().Rows(0, size);
  rows.wanted = counting.Rows(0, size);
  rows.batch = {
      .tokens = size,
      .sequences = size,
      .positions = Part(layout.positions, DType::kI32, {size}),
      .sequence_of_token = counting.Rows(0, size),
      .block_table = KeepsTables(size, options_)
                         ? tables_.view().Rows(0, size)
                         : Part(layout.tables, DType::kI32, {size, options_.blocks_per_sequence}),
      .rope_rows = Part(layout.rope_rows, DType::kI32, {size}),
      .logit_factors = Part(layout.logit_factors, DType::kF32, {size}),
      .first_rows = counting.Rows(0, size + 1),
      .leading_decodes = size,
      .longest_chunk = 1};
  rows.wanted_batch = rows.batch;
  rows.rows_of_groups = rows_of_groups_;
  rows.wanted_of_groups = rows_of_groups_;
  return rows;
}

void RecordedSteps::Compute(const Key& key, const Group& group) {
  const Layout layout = LayoutFor(key.rows, options_);
  Ops& ops = device_.ops();
  ops.SelectIds(Part(layout.sources, DType::kI32, {key.rows}), last_tokens_.view(),
                ids_.view().Rows(0, key.rows));
  if (KeepsTables(key.rows, options_)) {
    GatherTables(key.rows);
  }
  // Every group is filled up to the same size.
  rows_of_groups_.assign(static_cast<size_t>(groups_), key.rows);
  group.model.Forward(RowsOf(key.rows), group.kv, group.tp, group.data);

  // What records do not decide is read again, so the logits of its rows must still be there.
  const int64_t step = key.by_mass || key.whole_rows ? Qwen2::kMaxLogitRows : key.rows;
  for (int64_t begin = 0; begin < key.rows; begin += step) {
    Choose(begin, std::min(step, key.rows - begin), key, group);
  }
  ops.StoreTokens(tokens_.view().Rows(0, key.rows), Part(layout.slots, DType::kI32, {key.rows}),
                  last_tokens_.view());
}

void RecordedSteps::Choose(int64_t begin, int64_t count, const Key& key, const Group& group) {
  Ops& ops = device_.ops();
  const int64_t words = CandidateRecord::Words(key.candidates);
  const TensorView sampling =
      Part(LayoutFor(key.rows, options_).sampling, DType::kI32, {key.rows, kSamplingWords})
          .Rows(begin, count);
  const TensorView records(records_.view().data, DType::kI32, {count, words});
  TensorView logits;
  for (int64_t row = 0; row < count; row += Qwen2::kMaxLogitRows) {
    const int64_t some = std::min(Qwen2::kMaxLogitRows, count - row);
    logits = group.model.LocalLogits(begin + row, some);
    ops.RecordedCandidates(logits, sampling.Rows(row, some), key.candidates, slice_,
                           records.Rows(row, some));
  }
  const RecordedRows rows = {.records = Gather(records, gathered_, group.tp),
                             .ranks = ranks_,
                             .sampling = sampling,
                             .tokens = tokens_.view().Rows(begin, count)};
  ops.ChooseRecorded(rows.records, ranks_, sampling, options_.valid_ids, rows.tokens);
  if (key.by_mass) {
    ChooseByMass(logits, rows, group.tp);
  }
  if (key.whole_rows) {
    CHECK_EQ(ranks_, 1) << "ranks with whole rows";
    ops.SampleUndecided(logits, sampling, options_.valid_ids, rows.tokens);
  }
}

void RecordedSteps::ChooseByMass(const TensorView& logits, const RecordedRows& rows,
                                 Communicator& tp) {
  Ops& ops = device_.ops();
  const TensorView masses = masses_.view().Rows(0, logits.rows());
  ops.RecordedMasses(logits, rows, slice_, masses);
  const TensorView picks = picks_.view().Rows(0, logits.rows());
  ops.RecordedPicks(logits, rows, Gather(masses, all_masses_, tp), tp.rank(), slice_, picks);
  ops.TakePicks(Gather(picks, all_masses_, tp), rows.tokens);
}

TensorView RecordedSteps::Gather(const TensorView& local, const Tensor& gathered,
                                 Communicator& tp) const {
  if (ranks_ == 1) {
    return local;
  }
  const int64_t words = local.columns();
  std::vector<Range> parts;
  for (int64_t rank = 0; rank < ranks_; ++rank) {
    parts.push_back({rank * words, (rank + 1) * words});
  }
  const TensorView all(gathered.view().data, DType::kI32, {local.rows(), ranks_ * words});
  tp.AllGather(local, parts, all);
  return all;
}

// The plain run before the recording also makes libraries choose and load what they need, which
// they may not do while it is made.
absl::Status RecordedSteps::Run(const Key& key, const Group& group) {
  Recorded& recorded = recorded_[key];
  if (!recorded.has_run) {
    Compute(key, group);
    recorded.has_run = true;
    return absl::OkStatus();
  }
  if (recorded.recording == nullptr) {
    ASSIGN_OR_RETURN(recorded.recording,
                     device_.Record([this, key, group] { Compute(key, group); }));
  }
  recorded.recording->Enqueue();
  return absl::OkStatus();
}

absl::Status RecordedSteps::Enqueue(absl::Span<const RecordedRow> rows, const StepKind& kind,
                                    const Group& group) {
  CHECK_LT(under_way_, kMaxUnderWay);
  const int64_t size = buckets_.SizeFor(kind.rows);
  CHECK_LE(static_cast<int64_t>(rows.size()), size);
  Turn& turn = turns_[next_turn_];
  Pack(rows, size, turn.upload.view().As<int32_t>());
  if (KeepsTables(size, options_)) {
    BringTables(rows, size, turn);
  } else {
    PackTables(rows, size, turn.upload.view().As<int32_t>());
  }
  device_.EnqueueCopyFromHost(turn.upload.view().data,
                              upload_.view().Rows(0, LayoutFor(size, options_).words));
  RETURN_IF_ERROR(
      Run({size, CandidateBucketFor(kind.candidates), kind.by_mass, kind.whole_rows}, group));
  turn.rows = static_cast<int64_t>(rows.size());
  turn.is_filled_up = turn.rows < size;
  device_.EnqueueCopyToHost(tokens_.view().Rows(0, turn.rows), turn.tokens.view().data);
  if (turn.expert_hits.view().rows() > 0) {
    device_.EnqueueCopyToHost(group.model.expert_hits(), turn.expert_hits.view().data);
  }
  turn.mark->Set();
  turn.status = absl::OkStatus();
  next_turn_ = (next_turn_ + 1) % kMaxUnderWay;
  ++under_way_;
  return absl::OkStatus();
}

bool RecordedSteps::IsDone() {
  CHECK_GT(under_way_, 0u);
  Turn& turn = oldest();
  const absl::Status status = turn.mark->Wait(absl::ZeroDuration());
  if (absl::IsDeadlineExceeded(status)) {
    return false;
  }
  turn.status.Update(status);
  return true;
}

absl::Status RecordedSteps::WaitFor(Turn& turn, const Group& group) const {
  const absl::Time deadline = absl::Now() + options_.timeout;
  for (;;) {
    const absl::Status status = turn.mark->Wait(kLookInterval);
    RETURN_IF_ERROR(group.tp.status());
    RETURN_IF_ERROR(group.data.status());
    if (!absl::IsDeadlineExceeded(status)) {
      return status;
    }
    if (absl::Now() >= deadline) {
      return absl::DeadlineExceededError(
          absl::StrCat("the device was not done with a recorded step of ", turn.rows,
                       " rows within ", absl::FormatDuration(options_.timeout)));
    }
  }
}

absl::StatusOr<RecordedSteps::Answer> RecordedSteps::Collect(const Group& group) {
  CHECK_GT(under_way_, 0u);
  Turn& turn = oldest();
  turn.status.Update(WaitFor(turn, group));
  --under_way_;
  RETURN_IF_ERROR(turn.status);
  const TensorView& hits = turn.expert_hits.view();
  return Answer{.tokens = {turn.tokens.view().As<int32_t>(), static_cast<size_t>(turn.rows)},
                .expert_hits = {hits.As<int32_t>(), static_cast<size_t>(hits.shape.elements())},
                .is_filled_up = turn.is_filled_up};
}

void RecordedSteps::Forget() {
  if (under_way_ > 0) {
    // Its memory is used again. An error belongs to the group that is gone.
    device_.Synchronize().IgnoreError();
  }
  recorded_.clear();
  slot_tables_.Forget();
  under_way_ = 0;
}

}  // namespace cohort
