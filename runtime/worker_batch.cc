#include "runtime/worker_batch.h"

#include <algorithm>
#include <numeric>

namespace cohort {

absl::Status WorkerBatch::Allocate(int64_t max_tokens, int64_t max_sequences, Device& device,
                                   Rows& rows) {
  rows.positions.reserve(static_cast<size_t>(max_tokens));
  rows.sequences.reserve(static_cast<size_t>(max_tokens));
  rows.rope_rows.reserve(static_cast<size_t>(max_tokens));
  rows.logit_factors.reserve(static_cast<size_t>(max_tokens));
  ASSIGN_OR_RETURN(rows.positions_tensor, device.Allocate({max_tokens}, DType::kI32));
  ASSIGN_OR_RETURN(rows.sequences_tensor, device.Allocate({max_tokens}, DType::kI32));
  ASSIGN_OR_RETURN(rows.rope_rows_tensor, device.Allocate({max_tokens}, DType::kI32));
  ASSIGN_OR_RETURN(rows.logit_factors_tensor, device.Allocate({max_tokens}, DType::kF32));
  rows.first_rows.reserve(static_cast<size_t>(max_sequences + 1));
  ASSIGN_OR_RETURN(rows.first_rows_tensor, device.Allocate({max_sequences + 1}, DType::kI32));
  return absl::OkStatus();
}

absl::StatusOr<WorkerBatch> WorkerBatch::Create(int64_t max_tokens, int64_t max_sequences,
                                                int64_t blocks_per_sequence, PositionRule rule,
                                                Device& device) {
  WorkerBatch batch(std::move(rule));
  batch.device_ = &device;
  batch.ids_.reserve(static_cast<size_t>(max_tokens));
  batch.wanted_.reserve(static_cast<size_t>(max_tokens));
  batch.block_tables_.reserve(static_cast<size_t>(max_sequences));
  RETURN_IF_ERROR(Allocate(max_tokens, max_sequences, device, batch.all_));
  RETURN_IF_ERROR(Allocate(max_tokens, max_sequences, device, batch.wanted_rows_));
  ASSIGN_OR_RETURN(batch.ids_tensor_, device.Allocate({max_tokens}, DType::kI32));
  ASSIGN_OR_RETURN(batch.wanted_tensor_, device.Allocate({max_tokens}, DType::kI32));
  ASSIGN_OR_RETURN(batch.tables_tensor_,
                   device.Allocate({max_sequences * blocks_per_sequence}, DType::kI32));
  return batch;
}

int64_t WorkerBatch::WorkspaceBytes(int64_t max_tokens, int64_t max_sequences,
                                    int64_t blocks_per_sequence) {
  // Two kinds of rows with four numbers each and where sequences begin, all the ids and which are
  // wanted.
  return SizeOf(DType::kI32) *
         (10 * max_tokens + 2 * (max_sequences + 1) + max_sequences * blocks_per_sequence);
}

void WorkerBatch::Clear() {
  ids_.clear();
  wanted_.clear();
  for (Rows* rows : {&all_, &wanted_rows_}) {
    rows->positions.clear();
    rows->sequences.clear();
    rows->rope_rows.clear();
    rows->logit_factors.clear();
  }
  block_tables_.clear();
}

void WorkerBatch::AddSequence(int64_t first_position, const SequenceKind& kind,
                              const std::vector<int32_t>& blocks) {
  const int32_t sequence = static_cast<int32_t>(block_tables_.size());
  for (int64_t position = first_position; all_.positions.size() < ids_.size(); ++position) {
    all_.positions.push_back(static_cast<int32_t>(position));
    all_.sequences.push_back(sequence);
    all_.rope_rows.push_back(rule_.RopeRow(kind, position));
    all_.logit_factors.push_back(rule_.LogitFactor(kind, position));
  }
  block_tables_.push_back(&blocks);
}

int32_t WorkerBatch::Want(size_t row) {
  CHECK_LT(row, all_.positions.size());
  CHECK(wanted_.empty() || wanted_.back() < static_cast<int32_t>(row)) << "row " << row;
  wanted_.push_back(static_cast<int32_t>(row));
  wanted_rows_.positions.push_back(all_.positions[row]);
  wanted_rows_.sequences.push_back(all_.sequences[row]);
  wanted_rows_.rope_rows.push_back(all_.rope_rows[row]);
  wanted_rows_.logit_factors.push_back(all_.logit_factors[row]);
  return static_cast<int32_t>(wanted_.size() - 1);
}

TensorView WorkerBatch::UploadTables() {
  size_t width = 1;
  for (const std::vector<int32_t>* table : block_tables_) {
    width = std::max(width, table->size());
  }
  padded_tables_.assign(block_tables_.size() * width, 0);
  for (size_t i = 0; i < block_tables_.size(); ++i) {
    std::copy(block_tables_[i]->begin(), block_tables_[i]->end(),
              padded_tables_.begin() + static_cast<std::ptrdiff_t>(i * width));
  }
  const TensorView tables(tables_tensor_.view().data, DType::kI32,
                          {sequences(), static_cast<int64_t>(width)});
  device_->CopyFromHost(padded_tables_.data(), tables);
  return tables;
}

void WorkerBatch::CountRows(const Rows& rows, int64_t sequences, std::vector<int32_t>* first_rows) {
  first_rows->assign(static_cast<size_t>(sequences) + 1, 0);
  for (const int32_t sequence : rows.sequences) ++(*first_rows)[static_cast<size_t>(sequence) + 1];
  std::partial_sum(first_rows->begin(), first_rows->end(), first_rows->begin());
}

BatchView WorkerBatch::Upload(Rows& rows, TensorView block_table) {
  BatchView view;
  view.tokens = static_cast<int64_t>(rows.positions.size());
  view.sequences = block_table.rows();
  view.positions = rows.positions_tensor.view().Rows(0, view.tokens);
  view.sequence_of_token = rows.sequences_tensor.view().Rows(0, view.tokens);
  view.rope_rows = rows.rope_rows_tensor.view().Rows(0, view.tokens);
  view.logit_factors = rows.logit_factors_tensor.view().Rows(0, view.tokens);
  view.first_rows = rows.first_rows_tensor.view().Rows(0, view.sequences + 1);
  view.block_table = block_table;
  CountRows(rows, view.sequences, &rows.first_rows);
  for (int64_t sequence = 0; sequence < view.sequences; ++sequence) {
    const int32_t* first = &rows.first_rows[static_cast<size_t>(sequence)];
    const int64_t count = first[1] - first[0];
    view.longest_chunk = std::max(view.longest_chunk, count);
    view.leading_decodes += view.leading_decodes == sequence && count == 1 ? 1 : 0;
  }
  device_->CopyFromHost(rows.first_rows.data(), view.first_rows);
  device_->CopyFromHost(rows.rope_rows.data(), view.rope_rows);
  device_->CopyFromHost(rows.logit_factors.data(), view.logit_factors);
  device_->CopyFromHost(rows.positions.data(), view.positions);
  device_->CopyFromHost(rows.sequences.data(), view.sequence_of_token);
  return view;
}

StepRows WorkerBatch::Upload() {
  const TensorView tables = UploadTables();
  StepRows rows;
  rows.ids = ids_tensor_.view().Rows(0, tokens());
  device_->CopyFromHost(ids_.data(), rows.ids);
  rows.wanted = wanted_tensor_.view().Rows(0, static_cast<int64_t>(wanted_.size()));
  device_->CopyFromHost(wanted_.data(), rows.wanted);
  rows.batch = Upload(all_, tables);
  rows.wanted_batch =
      wanted_.size() == ids_.size() ? rows.batch : Upload(wanted_rows_, tables);  // as in decoding
  return rows;
}

}  // namespace cohort
