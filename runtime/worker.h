// One rank: its slice of the weights, its KV memory and the sequences that plans told it of. Used
// from one thread; Abort() from any. Weights and device outlive groups: JoinEpoch and LeaveEpoch
// bracket one.
#ifndef COHORT_RUNTIME_WORKER_H_
#define COHORT_RUNTIME_WORKER_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "kernels/device.h"
#include "kernels/product_tuning.h"
#include "parallel/communicator.h"
#include "parallel/expert_exchange.h"
#include "parallel/shard_plan.h"
#include "runtime/model_config.h"
#include "runtime/step_plan.h"
#include "runtime/weight_source.h"
#include "runtime/worker_memory.h"

namespace cohort {

struct WorkerOptions {
  std::string model_dir;  // a checkpoint directory; unused with dummy weights
  bool dummy_weights =
      false;                 // seeded random weights from the config alone, equal for every degree
  bool mask_padding = true;  // never choose ids without a token
  int64_t token_ids = 0;     // ids below this have a token
  DType dtype = DType::kBF16;  // of weights, activations and KV
  Parallelism parallelism;
  int rank = 0;
  int64_t kv_blocks = 0;
  int64_t block_size = 16;
  int64_t max_batch_tokens = 512;
  int64_t max_running = 256;  // of this rank's data-parallel group, as max_batch_tokens is
  int64_t max_model_len = 0;
  // How rows reach the ranks of their experts; nullopt: all-to-all between data-parallel groups.
  std::optional<ExpertExchangeKind> expert_exchange;
  // The embedding lies in the host's memory, where the device reads its rows. No tied head.
  bool host_embedding = false;
  WeightStreamOptions weight_stream;  // to memory that is not the host's
  // Rank `rank` of a tensor group that is not there (parallel/silent_communicator.h): it answers
  // for the group.
  bool is_simulated = false;
  absl::Duration step_timeout = absl::Seconds(300);  // of a recorded step on the device
  // Chooses the algorithms of products by the clock before the weights are loaded
  // (kernels/product_tuning.h). `tuning_file`, which may be empty, keeps them.
  bool tune_products = false;
  std::string tuning_file;
  // Decode steps are recorded. Worker::Create() sets it, as the device says (RecordsSteps()).
  bool records_steps = false;
};

// Loading: bytes of this rank's slice done so far, and in all.
using LoadProgress = std::function<void(int64_t done_bytes, int64_t total_bytes)>;

class Worker {
 public:
  // Loads the weights. The errors of config, checkpoint and memory.
  static absl::StatusOr<std::unique_ptr<Worker>> Create(const ModelConfig& config,
                                                        const WorkerOptions& options,
                                                        std::unique_ptr<Device> device,
                                                        LoadProgress progress);
  ~Worker();

  // A new group: drops all sequences and KV contents; the first plan is step 1 of `epoch`.
  // `data_group`, the ranks of equal index in their tensor groups, is needed where data-parallel
  // groups share experts, and may else be null.
  absl::Status JoinEpoch(uint64_t epoch, std::unique_ptr<Communicator> tensor_group,
                         std::unique_ptr<Communicator> data_group = nullptr);
  // Aborts and drops the communicators. Idempotent.
  void LeaveEpoch();

  // Executes exactly what this plan has for the rank's data-parallel group (plan_parts.h).
  // FAILED_PRECONDITION for another epoch or a gap in the steps;
  // ABORTED or DEADLINE_EXCEEDED from the communicator; afterwards only LeaveEpoch is sensible.
  // Nothing may be outstanding.
  absl::StatusOr<StepResult> Run(const StepPlan& plan);

  // Its two halves, for a step ahead. Enqueue() of a plan that RunsAhead() returns while the device
  // computes (recorded_steps.h); of any other plan once it has been computed, and all before it.
  // Collect() gives the results, one for each plan, in order; IsDone() says whether the next one
  // is there. RunsAhead() is false while as many steps are under way as may be.
  bool RunsAhead(const StepPlan& plan) const;
  absl::Status Enqueue(const StepPlan& plan);
  size_t outstanding() const;  // plans whose results were not collected
  size_t under_way() const;    // of these, those that the device repeats
  bool IsDone();
  absl::StatusOr<StepResult> Collect();
  // The same into a result of before, whose memory serves again. Unspecified on failure.
  absl::Status Collect(StepResult& result);

  // Wakes a wait in a collective. Any thread.
  void Abort();

  int64_t weight_bytes() const;
  int64_t kv_bytes() const;
  WorkerMemory planned_memory() const;    // by the ledger
  WorkerMemory allocated_memory() const;  // on the device
  const ProductTuning& tuning() const;
  std::vector<std::string> warnings() const;  // one per extra tensor, in the checkpoint's order

 private:
  class State;
  explicit Worker(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace cohort

#endif  // COHORT_RUNTIME_WORKER_H_
