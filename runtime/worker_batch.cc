#include "runtime/worker_batch.h"

#include <algorithm>

namespace cohort {

absl::StatusOr<WorkerBatch> WorkerBatch::Create(int64_t max_tokens, int64_t max_sequences,
                                                int64_t blocks_per_sequence, Device& device) {
  WorkerBatch batch;
  batch.device_ = &device;
  batch.ids_.reserve(static_cast<size_t>(max_tokens));
  batch.positions_.reserve(static_cast<size_t>(max_tokens));
  batch.sequence_of_token_.reserve(static_cast<size_t>(max_tokens));
  batch.block_tables_.reserve(static_cast<size_t>(max_sequences));
  ASSIGN_OR_RETURN(batch.ids_tensor_, device.Allocate({max_tokens}, DType::kI32));
  ASSIGN_OR_RETURN(batch.positions_tensor_, device.Allocate({max_tokens}, DType::kI32));
  ASSIGN_OR_RETURN(batch.sequences_tensor_, device.Allocate({max_tokens}, DType::kI32));
  ASSIGN_OR_RETURN(batch.tables_tensor_,
                   device.Allocate({max_sequences * blocks_per_sequence}, DType::kI32));
  return batch;
}

void WorkerBatch::Clear() {
  ids_.clear();
  positions_.clear();
  sequence_of_token_.clear();
  block_tables_.clear();
}

void WorkerBatch::AddSequence(int64_t first_position, const std::vector<int32_t>& blocks) {
  const int32_t sequence = static_cast<int32_t>(block_tables_.size());
  for (int64_t position = first_position; positions_.size() < ids_.size(); ++position) {
    positions_.push_back(static_cast<int32_t>(position));
    sequence_of_token_.push_back(sequence);
  }
  block_tables_.push_back(&blocks);
}

BatchView WorkerBatch::Upload() {
  size_t width = 1;
  for (const std::vector<int32_t>* table : block_tables_) {
    width = std::max(width, table->size());
  }
  padded_tables_.assign(block_tables_.size() * width, 0);
  for (size_t i = 0; i < block_tables_.size(); ++i) {
    std::copy(block_tables_[i]->begin(), block_tables_[i]->end(),
              padded_tables_.begin() + static_cast<std::ptrdiff_t>(i * width));
  }
  BatchView view;
  view.tokens = tokens();
  view.sequences = sequences();
  view.positions = positions_tensor_.view().Rows(0, view.tokens);
  view.sequence_of_token = sequences_tensor_.view().Rows(0, view.tokens);
  view.block_table = TensorView(tables_tensor_.view().data, DType::kI32,
                                {view.sequences, static_cast<int64_t>(width)});
  device_->CopyFromHost(ids_.data(), device_ids());
  device_->CopyFromHost(positions_.data(), view.positions);
  device_->CopyFromHost(sequence_of_token_.data(), view.sequence_of_token);
  device_->CopyFromHost(padded_tables_.data(), view.block_table);
  return view;
}

}  // namespace cohort
