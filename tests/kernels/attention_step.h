// Steps of attention for the kernel tests: batches of chunks with their paged memory, run on a
// device and compared with the reference.
#ifndef COHORT_TESTS_KERNELS_ATTENTION_STEP_H_
#define COHORT_TESTS_KERNELS_ATTENTION_STEP_H_

#include <random>
#include <vector>

#include "tests/kernels/devices.h"
#include "tests/kernels/reference_ops.h"

namespace cohort {

struct AttentionDims {
  DType dtype = DType::kF32;
  int64_t head_dim = 8;
  int64_t block_size = 4;
  std::vector<int32_t> kv_head_of_query = {0, 0, 1};
  int64_t kv_heads = 2;

  int64_t query_heads() const { return static_cast<int64_t>(kv_head_of_query.size()); }
};

// Tokens of one step: of each sequence, positions [begin, end).
struct Chunk {
  int64_t begin = 0;
  int64_t end = 0;
};

// Everything one step of attention reads. Slots that no sequence holds are poison, and so are the
// entries of the block table behind a sequence's last block.
struct AttentionStep {
  AttentionDims dims;
  HostTensor queries;
  reference::Batch batch;
  reference::Kv kv;
  double scale = 1;
};

// The rows of `chunks` in memory of shuffled blocks, `blocks` in all.
reference::Batch MakeBatch(std::mt19937_64& random, const AttentionDims& dims,
                           const std::vector<Chunk>& chunks, int64_t* blocks);
AttentionStep MakeStep(std::mt19937_64& random, const AttentionDims& dims,
                       const std::vector<Chunk>& chunks, double key_offset = 0);

// The step with only these of its rows.
AttentionStep StepOfRows(const AttentionStep& whole, int64_t begin, int64_t count);

// The batch and the paged memory of a step on a device.
struct DeviceStep {
  DeviceTensor positions;
  DeviceTensor sequences;
  DeviceTensor block_table;
  std::vector<int32_t> host_first_rows;
  DeviceTensor first_rows;
  DeviceTensor keys;
  DeviceTensor values;

  DeviceStep(Device& device, const reference::Batch& batch, const reference::Kv& kv)
      : positions(device, batch.positions),
        sequences(device, batch.sequence_of_token),
        block_table(device, batch.block_table),
        host_first_rows(FirstRows(batch)),
        first_rows(device, Indices(host_first_rows)),
        keys(device, kv.keys),
        values(device, kv.values) {}

  static std::vector<int32_t> FirstRows(const reference::Batch& batch) {
    std::vector<int32_t> rows(static_cast<size_t>(batch.block_table.rows()) + 1, 0);
    for (const double sequence : batch.sequence_of_token.values) {
      ++rows[static_cast<size_t>(sequence) + 1];
    }
    std::partial_sum(rows.begin(), rows.end(), rows.begin());
    return rows;
  }

  BatchView batch() const {
    BatchView view = {.tokens = positions.view().rows(),
                      .sequences = block_table.view().rows(),
                      .positions = positions.view(),
                      .sequence_of_token = sequences.view(),
                      .block_table = block_table.view(),
                      .rope_rows = positions.view(),
                      .first_rows = first_rows.view()};
    for (size_t sequence = 0; sequence + 1 < host_first_rows.size(); ++sequence) {
      const int64_t rows = host_first_rows[sequence + 1] - host_first_rows[sequence];
      view.longest_chunk = std::max(view.longest_chunk, rows);
      const bool leads = view.leading_decodes == static_cast<int64_t>(sequence);
      view.leading_decodes += leads && rows == 1 ? 1 : 0;
    }
    return view;
  }
  KvView kv() const { return {keys.view(), values.view()}; }
};

HostTensor Attend(Device& device, const AttentionStep& step, int64_t padding = 0);

// Whether the device may round the weights of such a step to bf16 for the sum over values, and sum
// products without rounding each partial sum to nearest: CUDA on tensor cores.
bool HasTensorCores(const Device& device, DType dtype, int64_t head_dim, int64_t block_size);

// A step and what the reference makes of it, computed once for all devices.
class CheckedStep {
 public:
  explicit CheckedStep(AttentionStep step);

  const AttentionStep& step() const { return step_; }
  void ExpectOn(Device& device, int64_t padding = 0) const;

 private:
  std::vector<double> Bounds(bool has_tensor_cores) const;

  AttentionStep step_;
  HostTensor expected_;
  HostTensor magnitudes_;  // the same sums over the magnitudes of the values
};

void ExpectMatchesReference(Device& device, const AttentionStep& step, int64_t padding = 0);

}  // namespace cohort

#endif  // COHORT_TESTS_KERNELS_ATTENTION_STEP_H_
