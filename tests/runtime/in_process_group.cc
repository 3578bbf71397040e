#include "tests/runtime/in_process_group.h"

#include <utility>

#include "kernels/device.h"
#include "parallel/thread_communicator.h"
#include "tests/runtime/thread_step_link.h"

namespace cohort {

// A worker's life in one epoch: joins with the first plan, on the link's thread, and leaves with
// the link.
class InProcessGroup::Rank : public RankBody {
 public:
  Rank(InProcessGroup* group, Worker* worker, uint64_t epoch, std::unique_ptr<Communicator> tensor,
       std::unique_ptr<Communicator> data)
      : group_(group),
        worker_(worker),
        epoch_(epoch),
        tensor_(std::move(tensor)),
        data_(std::move(data)) {}

  ~Rank() override {
    worker_->LeaveEpoch();
    const std::lock_guard<std::mutex> lock(group_->mutex_);
    --group_->joined_;
    group_->left_.notify_all();
  }

  absl::StatusOr<StepResult> Run(const StepPlan& plan) override {
    if (tensor_ != nullptr) {
      RETURN_IF_ERROR(worker_->JoinEpoch(epoch_, std::move(tensor_), std::move(data_)));
    }
    return worker_->Run(plan);
  }

  void Abort() override { worker_->Abort(); }

 private:
  InProcessGroup* group_;
  Worker* worker_;
  uint64_t epoch_;
  std::unique_ptr<Communicator> tensor_, data_;  // until joined
};

absl::StatusOr<std::unique_ptr<InProcessGroup>> InProcessGroup::Create(
    const ModelConfig& config, WorkerOptions options, const DeviceOptions& device_options) {
  std::unique_ptr<InProcessGroup> group(new InProcessGroup(config, options));
  for (int rank = 0; rank < options.parallelism.world(); ++rank) {
    ASSIGN_OR_RETURN(std::unique_ptr<Device> device, Device::Create(device_options));
    options.rank = rank;
    ASSIGN_OR_RETURN(std::unique_ptr<Worker> worker,
                     Worker::Create(config, options, std::move(device), [](int64_t, int64_t) {}));
    group->workers_.push_back(std::move(worker));
  }
  return group;
}

std::unique_ptr<Executor> InProcessGroup::Join(uint64_t epoch, absl::Duration step_timeout) {
  {
    std::unique_lock<std::mutex> lock(mutex_);
    left_.wait(lock, [this] { return joined_ == 0; });
    joined_ = static_cast<int>(workers_.size());
  }
  const Parallelism& parallelism = options_.parallelism;
  std::vector<std::vector<std::unique_ptr<Communicator>>> tensor, data;  // [group][rank in it]
  for (int group = 0; group < parallelism.dp; ++group) {
    tensor.push_back(MakeThreadCommunicators(parallelism.tp, step_timeout));
  }
  for (int group = 0; group < parallelism.tp; ++group) {
    data.push_back(MakeThreadCommunicators(parallelism.dp, step_timeout));
  }
  const size_t tp = static_cast<size_t>(parallelism.tp);
  std::vector<std::unique_ptr<StepLink>> links;
  for (size_t rank = 0; rank < workers_.size(); ++rank) {
    links.push_back(
        MakeThreadStepLink(absl::StrCat("rank ", rank),
                           std::make_unique<Rank>(this, workers_[rank].get(), epoch,
                                                  std::move(tensor[rank / tp][rank % tp]),
                                                  std::move(data[rank % tp][rank / tp]))));
  }
  return std::make_unique<Executor>(epoch, std::move(links), step_timeout, options_.parallelism.dp);
}

SchedulerOptions InProcessGroup::scheduler_options() const {
  SchedulerOptions options;
  options.plain_rope_positions = config_.plain_rope_positions();
  options.unscaled_positions = config_.unscaled_positions();
  options.blocks = options_.kv_blocks;
  options.block_size = options_.block_size;
  options.max_running = options_.max_running;
  options.max_batch_tokens = options_.max_batch_tokens;
  options.max_model_len = options_.max_model_len;
  options.eos_token_ids = config_.eos_token_ids;
  return options;
}

}  // namespace cohort
