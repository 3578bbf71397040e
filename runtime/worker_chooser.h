// The end of a step: which rows become logits, and what is read of them. Owned by the worker.
#ifndef COHORT_RUNTIME_WORKER_CHOOSER_H_
#define COHORT_RUNTIME_WORKER_CHOOSER_H_

#include <cstdint>
#include <vector>

#include "kernels/device.h"
#include "kernels/ops.h"
#include "parallel/communicator.h"
#include "runtime/qwen2.h"

namespace cohort {

// A row of the step whose logits are wanted, and the answers.
struct LogitRow {
  int32_t row = 0;      // in the step
  int32_t target = -1;  // id whose log-probability is wanted; -1: none
  bool sample = false;
  SamplingRow sampling;    // when `sample`
  size_t sequence = 0;     // of the plan's rows
  size_t row_of_rows = 0;  // inside that sequence's rows
  int32_t token = -1;      // out: the token chosen
  float logprob = 0;       // out: of `target`
};

class WorkerChooser {
 public:
  // Ids from `valid_ids` on are never chosen. `device` must outlive the chooser.
  static absl::StatusOr<WorkerChooser> Create(int64_t valid_ids, int64_t max_tokens,
                                              Device& device);

  std::vector<LogitRow>& rows() { return rows_; }

  // Computes the answers of all rows() from the model's last Forward(); reorders them.
  void Run(Qwen2& model, Communicator& tp);

 private:
  WorkerChooser() = default;
  void RunChunk(size_t begin, size_t count, Qwen2& model, Communicator& tp);

  Device* device_ = nullptr;
  int64_t valid_ids_ = 0;
  std::vector<LogitRow> rows_;
  std::vector<SamplingRow> sampling_;      // of one chunk
  std::vector<int32_t> host_ids_;          // of one chunk
  std::vector<float> host_logprobs_;       // of one chunk
  Tensor row_indices_, targets_, tokens_;  // [kMaxLogitRows] int32
  Tensor logprobs_;                        // [kMaxLogitRows] fp32
};

}  // namespace cohort

#endif  // COHORT_RUNTIME_WORKER_CHOOSER_H_
