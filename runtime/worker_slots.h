// What a rank remembers of the sequences that plans told it of, one slot each. Owned by the worker
// and used from its thread.
#ifndef COHORT_RUNTIME_WORKER_SLOTS_H_
#define COHORT_RUNTIME_WORKER_SLOTS_H_

#include <array>
#include <cstdint>
#include <vector>

#include "kernels/ops.h"
#include "runtime/position_rule.h"
#include "runtime/step_plan.h"
#include "runtime/worker_edits.h"

namespace cohort {

struct WorkerLimits {
  int64_t slots = 0;            // sequences at a time
  int64_t positions = 0;        // of a sequence
  int64_t plain_positions = 0;  // of one with plain rope, beside others with YaRN; 0: there is none
  int64_t kv_blocks = 0;        // of this rank
  int64_t block_size = 0;       // tokens
  int64_t vocabulary = 0;
  int64_t blocks_per_sequence() const { return (positions + block_size - 1) / block_size; }
};

// Every method answers INTERNAL, naming the slot and the values, for what a correct scheduler does
// not plan.
class WorkerSlots {
 public:
  explicit WorkerSlots(const WorkerLimits& limits);

  void Reset();  // no slot holds a sequence
  absl::Status Admit(const AdmitSequence& admit);
  // Appends the blocks, and resolves the tokens of the rows into `ids` (its end). A token that only
  // the device knows yet becomes -1 - slot.
  absl::Status Extend(const SequenceRows& rows, std::vector<int32_t>& ids);
  // The slot samples in `step` what RecordSample() of the step will tell; until then the device
  // alone knows it.
  void ExpectSample(uint32_t slot, uint64_t step);
  void RecordSample(uint32_t slot, uint64_t step, int32_t token);
  absl::Status Release(uint32_t slot);

  const std::vector<int32_t>& blocks(uint32_t slot) const { return slots_[slot].blocks; }
  SequenceKind kind(uint32_t slot) const {
    return {slots_[slot].plain_rope, static_cast<int64_t>(slots_[slot].prompt_tokens)};
  }
  // How the token after the slot's last position is chosen, and what of the sequence that depends
  // on.
  SamplingRow NextSamplingRow(uint32_t slot) const;
  SequenceView View(uint32_t slot) const;
  // Another number for each sequence that the slot has held.
  uint64_t admission(uint32_t slot) const { return slots_[slot].admission; }

 private:
  // Plans run ahead of their results by a step or two; what they can still name is kept.
  static constexpr size_t kKeptSamples = 8;
  struct Sample {
    uint64_t step = 0;  // 0: none
    int32_t token = 0;
    bool is_expected = false;  // the token is not known yet
  };
  struct Slot {
    bool is_live = false;
    uint32_t sequence_index = 0;
    uint64_t admission = 0;
    SamplingParameters sampling;
    int64_t length = 0;  // positions planned so far
    uint64_t prompt_tokens = 0;
    bool plain_rope = false;
    uint64_t min_tokens = 0;
    std::vector<int32_t> held_back_ids;
    std::vector<int32_t> ids;     // [length] where sampling.NeedsHistory(), else empty
    std::vector<int32_t> blocks;  // the block table
    std::array<Sample, kKeptSamples> samples;
    size_t sample_count = 0;
  };

  absl::Status CheckSlot(uint32_t slot) const;
  absl::Status CheckAdmission(const AdmitSequence& admit) const;
  absl::Status CheckRows(const SequenceRows& rows) const;
  absl::StatusOr<int32_t> Resolve(uint32_t slot, const TokenSource& source) const;

  WorkerLimits limits_;
  std::vector<Slot> slots_;
  uint64_t admissions_ = 0;
};

}  // namespace cohort

#endif  // COHORT_RUNTIME_WORKER_SLOTS_H_
