#include "runtime/worker_chooser.h"

#include <algorithm>

namespace cohort {

absl::StatusOr<WorkerChooser> WorkerChooser::Create(int64_t valid_ids, int64_t max_tokens,
                                                    Device& device) {
  constexpr int64_t kRows = Qwen2::kMaxLogitRows;
  WorkerChooser chooser;
  chooser.device_ = &device;
  chooser.valid_ids_ = valid_ids;
  chooser.rows_.reserve(static_cast<size_t>(max_tokens));
  chooser.sampling_.reserve(kRows);
  chooser.host_ids_.resize(kRows);
  chooser.host_logprobs_.resize(kRows);
  ASSIGN_OR_RETURN(chooser.row_indices_, device.Allocate({kRows}, DType::kI32));
  ASSIGN_OR_RETURN(chooser.targets_, device.Allocate({kRows}, DType::kI32));
  ASSIGN_OR_RETURN(chooser.tokens_, device.Allocate({kRows}, DType::kI32));
  ASSIGN_OR_RETURN(chooser.logprobs_, device.Allocate({kRows}, DType::kF32));
  return chooser;
}

void WorkerChooser::Run(Qwen2& model, Communicator& tp) {
  // Those to sample first, so that in every chunk they are a leading block of the logits.
  std::partition(rows_.begin(), rows_.end(), [](const LogitRow& row) { return row.sample; });
  constexpr size_t kChunk = static_cast<size_t>(Qwen2::kMaxLogitRows);
  for (size_t begin = 0; begin < rows_.size(); begin += kChunk) {
    RunChunk(begin, std::min(kChunk, rows_.size() - begin), model, tp);
  }
}

void WorkerChooser::RunChunk(size_t begin, size_t count, Qwen2& model, Communicator& tp) {
  const absl::Span<LogitRow> rows(rows_.data() + begin, count);
  const auto upload = [&](int32_t LogitRow::*field, const Tensor& tensor) {
    for (size_t i = 0; i < count; ++i) {
      host_ids_[i] = rows[i].*field;
    }
    const TensorView view = tensor.view().Rows(0, static_cast<int64_t>(count));
    device_->CopyFromHost(host_ids_.data(), view);
    return view;
  };
  const TensorView logits = model.Logits(upload(&LogitRow::row, row_indices_), tp);
  sampling_.clear();
  bool has_targets = false;
  for (const LogitRow& row : rows) {
    has_targets = has_targets || row.target >= 0;
    if (row.sample) {
      sampling_.push_back(row.sampling);
    }
  }
  if (!sampling_.empty()) {
    const int64_t sampled = static_cast<int64_t>(sampling_.size());
    const TensorView tokens = tokens_.view().Rows(0, sampled);
    device_->ops().Sample(logits.Rows(0, sampled), sampling_, valid_ids_, tokens);
    device_->CopyToHost(tokens, host_ids_.data());
    for (size_t i = 0; i < sampling_.size(); ++i) {
      rows[i].token = host_ids_[i];
    }
  }
  if (has_targets) {
    const TensorView logprobs = logprobs_.view().Rows(0, static_cast<int64_t>(count));
    device_->ops().LogProbability(logits, upload(&LogitRow::target, targets_), logprobs);
    device_->CopyToHost(logprobs, host_logprobs_.data());
    for (size_t i = 0; i < count; ++i) {
      rows[i].logprob = host_logprobs_[i];
    }
  }
}

}  // namespace cohort
