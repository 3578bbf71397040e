// What a worker is made of. worker_state.cc computes plans as they come, worker_recorded.cc those
// whose step the device repeats.
#ifndef COHORT_RUNTIME_WORKER_STATE_H_
#define COHORT_RUNTIME_WORKER_STATE_H_

#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "runtime/expert_load.h"
#include "runtime/kv_cache.h"
#include "runtime/metered_device.h"
#include "runtime/plan_parts.h"
#include "runtime/position_rule.h"
#include "runtime/qwen2.h"
#include "runtime/recordable_slots.h"
#include "runtime/recorded_steps.h"
#include "runtime/worker.h"
#include "runtime/worker_batch.h"
#include "runtime/worker_chooser.h"
#include "runtime/worker_setup.h"
#include "runtime/worker_slots.h"

namespace cohort {

class Worker::State {
 public:
  struct Parts {
    std::unique_ptr<Device> device;
    std::unique_ptr<Qwen2> model;
    KvCache kv;
    WorkerBatch batch;
    WorkerChooser chooser;
    std::unique_ptr<RecordedSteps> recorded;  // null: every step is computed as it comes
    std::vector<std::string> warnings;
    WorkerMemory planned;
    WorkerMemory allocated;
    ProductTuning tuning;
  };

  State(const ModelConfig& config, const WorkerOptions& options, const WorkerLimits& limits,
        Parts parts)
      : options_(options),
        valid_ids_(ValidIds(config, options)),
        position_rule_(config, options.max_model_len),
        parts_(std::move(parts)),
        slots_(limits),
        recordable_(parts_.model->exchanges_rows() ? 0 : first_slot(),
                    parts_.model->exchanges_rows() ? options.parallelism.dp : 1,
                    options.max_running, valid_ids_, options.parallelism.tp == 1) {}

  static absl::StatusOr<std::unique_ptr<State>> Create(const ModelConfig& config,
                                                       WorkerOptions options,
                                                       std::unique_ptr<Device> device,
                                                       const LoadProgress& progress);

  absl::Status JoinEpoch(uint64_t epoch, std::unique_ptr<Communicator> tensor_group,
                         std::unique_ptr<Communicator> data_group);
  void LeaveEpoch();
  absl::Status Enqueue(const StepPlan& plan);
  absl::Status Collect(StepResult& result);
  size_t outstanding() const { return outstanding_.size(); }
  size_t under_way() const { return parts_.recorded == nullptr ? 0 : parts_.recorded->under_way(); }
  bool IsDone();
  bool RunsAhead(const StepPlan& plan) { return RecordedKind(plan).has_value(); }
  void Abort();

  const Parts& parts() const { return parts_; }

 private:
  absl::Status CheckGroup(const Communicator* communicator, const RankList& group) const;
  absl::Status CheckTurn(const StepPlan& plan) const;
  // A step that was enqueued: its result, or that of a recorded step is yet to come.
  struct Outstanding {
    uint64_t step = 0;
    std::vector<uint32_t> slots;  // of its rows, where it is recorded
    std::optional<StepResult> result;
  };

  absl::Status EnqueuePart(const StepPlan& plan, const std::optional<StepKind>& kind);
  // Of a plan that may be enqueued as a recorded step now.
  std::optional<StepKind> RecordedKind(const StepPlan& whole);
  absl::Status EnqueueRecorded(const StepPlan& plan, const StepKind& kind);
  absl::Status CollectRecorded(const Outstanding& step, StepResult& result);
  absl::StatusOr<StepResult> RunAtOnce(const StepPlan& plan);
  absl::Status Accept(const StepPlan& plan);
  absl::Status AddRows(const SequenceRows& rows, size_t sequence);
  absl::Status Compute();
  StepResult Report(const StepPlan& plan);
  std::vector<int32_t> TakeExpertHits();
  absl::Status Named(const absl::Status& status, uint64_t step) const;
  int group() const { return options_.rank / options_.parallelism.tp; }
  // Whether this rank tells what the group computed.
  bool answers() const { return options_.is_simulated || tensor_group_->rank() == 0; }
  // Of this rank's data-parallel group, among all slots.
  uint32_t first_slot() const { return static_cast<uint32_t>(group() * options_.max_running); }
  RecordedSteps::Group recorded_group() const {
    return {*parts_.model, parts_.kv, *tensor_group_, *data_group_};
  }

  WorkerOptions options_;
  int64_t valid_ids_;
  PositionRule position_rule_;
  Parts parts_;
  WorkerSlots slots_;
  RecordableSlots recordable_;
  ExpertLoad expert_load_;
  uint64_t epoch_ = 0;
  uint64_t last_step_ = 0;               // that was enqueued
  std::deque<Outstanding> outstanding_;  // oldest first
  std::vector<int32_t> sources_;         // of a recorded step
  std::vector<RecordedRow> recorded_rows_;
  std::vector<int32_t> expert_hits_;
  GroupRows group_rows_;  // of the plan that is computed, where groups exchange rows
  std::mutex mutex_;      // of the pointers, against Abort() from another thread
  std::unique_ptr<Communicator> tensor_group_;
  std::unique_ptr<Communicator> data_group_;
};

}  // namespace cohort

#endif  // COHORT_RUNTIME_WORKER_STATE_H_
