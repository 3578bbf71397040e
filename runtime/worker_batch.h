// The rows of one step on their way to the device. Owned by the worker; allocated once.
#ifndef COHORT_RUNTIME_WORKER_BATCH_H_
#define COHORT_RUNTIME_WORKER_BATCH_H_

#include <cstdint>
#include <utility>
#include <vector>

#include "kernels/device.h"
#include "runtime/position_rule.h"
#include "runtime/step_rows.h"

namespace cohort {

class WorkerBatch {
 public:
  // `device` must outlive the batch.
  static absl::StatusOr<WorkerBatch> Create(int64_t max_tokens, int64_t max_sequences,
                                            int64_t blocks_per_sequence, PositionRule rule,
                                            Device& device);
  // Bytes that Create() allocates.
  static int64_t WorkspaceBytes(int64_t max_tokens, int64_t max_sequences,
                                int64_t blocks_per_sequence);

  void Clear();
  int64_t tokens() const { return static_cast<int64_t>(all_.positions.size()); }
  int64_t sequences() const { return static_cast<int64_t>(block_tables_.size()); }

  // The ids of the rows, in order; the caller appends those of a sequence before AddSequence().
  std::vector<int32_t>& ids() { return ids_; }
  // The rows added to ids() since the last call, at consecutive positions. `blocks` must stay as it
  // is until Upload().
  void AddSequence(int64_t first_position, const SequenceKind& kind,
                   const std::vector<int32_t>& blocks);

  // Wants the logits of a row that AddSequence() has added, later than those wanted before. Its
  // index among the wanted.
  int32_t Want(size_t row);

  // Copies everything to the device; valid until the next Clear().
  StepRows Upload();

 private:
  explicit WorkerBatch(PositionRule rule) : rule_(std::move(rule)) {}

  PositionRule rule_;
  Device* device_ = nullptr;
  struct Rows {
    std::vector<int32_t> positions, sequences, rope_rows;         // [rows]
    std::vector<float> logit_factors;                             // [rows]
    std::vector<int32_t> first_rows;                              // [sequences + 1]
    Tensor positions_tensor, sequences_tensor, rope_rows_tensor;  // [max tokens] int32
    Tensor logit_factors_tensor;                                  // [max tokens] fp32
    Tensor first_rows_tensor;                                     // [max sequences + 1] int32
  };
  static absl::Status Allocate(int64_t max_tokens, int64_t max_sequences, Device& device,
                               Rows& rows);
  static void CountRows(const Rows& rows, int64_t sequences, std::vector<int32_t>* first_rows);
  BatchView Upload(Rows& rows, TensorView block_table);
  TensorView UploadTables();

  std::vector<int32_t> ids_;     // [tokens]
  std::vector<int32_t> wanted_;  // [wanted rows]
  Rows all_, wanted_rows_;
  std::vector<const std::vector<int32_t>*> block_tables_;  // [sequences]
  std::vector<int32_t> padded_tables_;                     // [sequences, longest table]
  Tensor ids_tensor_, wanted_tensor_;                      // [max tokens] int32
  Tensor tables_tensor_;  // [max sequences * blocks per sequence] int32
};

}  // namespace cohort

#endif  // COHORT_RUNTIME_WORKER_BATCH_H_
