// Decode steps that the device repeats from a recording: the host uploads one packed block of
// numbers, starts the recording and reads tokens later. Owned by the worker.
//
// The input token of a row may be what its slot sampled in the step before, which only the device
// knows: so a step is enqueued before the one ahead of it has been read. At most two are under way.
#ifndef COHORT_RUNTIME_RECORDED_STEPS_H_
#define COHORT_RUNTIME_RECORDED_STEPS_H_

#include <compare>
#include <cstdint>
#include <map>
#include <memory>
#include <vector>

#include "absl/time/time.h"
#include "absl/types/span.h"
#include "kernels/device.h"
#include "parallel/communicator.h"
#include "parallel/shard_plan.h"
#include "runtime/kv_cache.h"
#include "runtime/qwen2.h"
#include "runtime/recordable_slots.h"
#include "runtime/slot_tables.h"
#include "runtime/step_buckets.h"

namespace cohort {

// One sequence's next position.
struct RecordedRow {
  int32_t source = 0;  // its id, or -1 - slot for what the slot sampled last (Ops::SelectIds)
  int32_t position = 0;
  int32_t rope_row = 0;
  float logit_factor = 1;
  int32_t slot = 0;
  uint64_t admission = 0;  // WorkerSlots::admission()
  SamplingRow sampling = {};
  const std::vector<int32_t>* blocks = nullptr;
};

struct RecordedStepsOptions {
  int64_t max_rows = 0;  // of one step
  int64_t slots = 0;
  int64_t blocks_per_sequence = 0;
  int32_t scratch_block = 0;  // of KV memory: where rows that fill a step up write
  int64_t valid_ids = 0;
  absl::Duration timeout = absl::InfiniteDuration();  // of a step
};

class RecordedSteps {
 public:
  static constexpr size_t kMaxUnderWay = 2;

  // What a step is computed with. Outlives the recordings, which Forget() drops.
  struct Group {
    Qwen2& model;
    const KvCache& kv;
    Communicator& tp;
    Communicator& data;
  };
  struct Answer {
    absl::Span<const int32_t> tokens;       // per row; kNoToken where the logits held no number
    absl::Span<const int32_t> expert_hits;  // Qwen2::expert_hits() after the step
    bool is_filled_up = false;              // rows that nobody reads are among the hits
  };

  // `device` must outlive the object.
  static absl::StatusOr<std::unique_ptr<RecordedSteps>> Create(const ShardPlan& plan,
                                                               const RecordedStepsOptions& options,
                                                               Device& device);
  // Bytes of the device that Create() allocates.
  static int64_t WorkspaceBytes(const ShardPlan& plan, const RecordedStepsOptions& options);

  int64_t max_rows() const { return buckets_.max_rows(); }
  size_t under_way() const { return under_way_; }

  // This group's rows of a step of `kind`, 1 to max_rows() of them in the largest group; fewer than
  // kMaxUnderWay steps are under way. The first step of a size is computed as plain work, the
  // second is recorded.
  absl::Status Enqueue(absl::Span<const RecordedRow> rows, const StepKind& kind,
                       const Group& group);

  // Whether the oldest step under way is done.
  bool IsDone();
  // Waits for it. Valid until the next Enqueue(). DEADLINE_EXCEEDED; the first failure of a
  // communicator or of the device.
  absl::StatusOr<Answer> Collect(const Group& group);

  // Drops all recordings, and what is under way once the device is done with it.
  void Forget();

 private:
  // int32 words of one step's upload; offsets of its parts. Either `tables` are there, or they are
  // kept (KeepsTables()) and `table_rows` of them are gathered after the changes.
  struct Layout {
    int64_t sources = 0, positions = 0, rope_rows = 0, logit_factors = 0, slots = 0, sampling = 0,
            tables = 0, table_rows = 0, changed_places = 0, changed_blocks = 0, words = 0;
  };
  struct Turn {
    Tensor upload;       // [words of the largest upload] int32, host memory
    Tensor new_tables;   // [max rows, blocks per sequence] int32, host memory, where they are kept
    Tensor tokens;       // [max rows] int32, host memory
    Tensor expert_hits;  // as the model's, host memory
    std::unique_ptr<Mark> mark;
    int64_t rows = 0;
    bool is_filled_up = false;
    absl::Status status;  // of a wait that ended with an error before Collect()
  };
  // Recordings are alike in these.
  struct Key {
    int64_t rows = 0;
    int32_t candidates = 0;
    bool by_mass = false;     // some rows may be chosen by mass
    bool whole_rows = false;  // some may take all their logits
    auto operator<=>(const Key&) const = default;
  };
  struct Recorded {
    bool has_run = false;
    std::unique_ptr<Recording> recording;
  };

  RecordedSteps(const ShardPlan& plan, const RecordedStepsOptions& options, Device& device);
  // Whether a step of this size leaves block tables on the device: where they are too many to be
  // brought every time.
  static bool KeepsTables(int64_t rows, const RecordedStepsOptions& options);
  static Layout LayoutFor(int64_t rows, const RecordedStepsOptions& options);
  static int64_t UploadWords(const StepBuckets& buckets, const RecordedStepsOptions& options);
  absl::Status Allocate(const ShardPlan& plan);
  absl::Status AllocateTurn(Turn& turn, const Shape& expert_hits);
  void Pack(absl::Span<const RecordedRow> rows, int64_t size, int32_t* words) const;
  void PackTables(absl::Span<const RecordedRow> rows, int64_t size, int32_t* words) const;
  // Of kept tables, what changed.
  void BringTables(absl::Span<const RecordedRow> rows, int64_t size, Turn& turn);
  void GatherTables(int64_t size);
  absl::Status Run(const Key& key, const Group& group);
  void Compute(const Key& key, const Group& group);
  // The tokens of the rows begin to begin + count.
  void Choose(int64_t begin, int64_t count, const Key& key, const Group& group);
  // Of at most Qwen2::kMaxLogitRows rows, whose logits these are.
  void ChooseByMass(const TensorView& logits, const RecordedRows& rows, Communicator& tp);
  // The words of all ranks, in the memory of `gathered`; `local` itself where there is one rank.
  TensorView Gather(const TensorView& local, const Tensor& gathered, Communicator& tp) const;
  StepRows RowsOf(int64_t size) const;
  TensorView Part(int64_t offset, DType dtype, Shape shape) const;
  absl::Status WaitFor(Turn& turn, const Group& group) const;
  Turn& oldest() { return turns_[(next_turn_ + kMaxUnderWay - under_way_) % kMaxUnderWay]; }

  Device& device_;
  RecordedStepsOptions options_;
  StepBuckets buckets_;
  VocabularySlice slice_;
  int64_t ranks_;
  int64_t groups_;                       // data-parallel ones
  std::vector<int64_t> rows_of_groups_;  // of the step that is computed

  SlotTables slot_tables_;  // none where no size keeps tables
  Tensor tables_;           // [max rows, blocks per sequence] int32, those of a step; likewise

  Tensor upload_;       // [words of the largest upload] int32
  Tensor counting_;     // [max rows + 1] int32: 0, 1, 2, ...
  Tensor last_tokens_;  // [slots] int32
  Tensor ids_;          // [max rows] int32
  Tensor tokens_;       // [max rows] int32
  Tensor records_;      // [max rows * words of a record] int32
  Tensor gathered_;     // [max rows * ranks * words of a record] int32, none with one rank
  Tensor masses_;       // [Qwen2::kMaxLogitRows, 2] int32
  Tensor picks_;        // likewise
  Tensor all_masses_;   // [Qwen2::kMaxLogitRows, 2 * ranks] int32, then the picks

  std::map<Key, Recorded> recorded_;
  Turn turns_[kMaxUnderWay];
  size_t next_turn_ = 0;
  size_t under_way_ = 0;
};

}  // namespace cohort

#endif  // COHORT_RUNTIME_RECORDED_STEPS_H_
