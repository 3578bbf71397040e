#include "runtime/worker.h"

#include <utility>

#include "absl/memory/memory.h"
#include "runtime/worker_state.h"

namespace cohort {

Worker::Worker(std::unique_ptr<State> state) : state_(std::move(state)) {}
Worker::~Worker() { state_->LeaveEpoch(); }

absl::StatusOr<std::unique_ptr<Worker>> Worker::Create(const ModelConfig& config,
                                                       const WorkerOptions& options,
                                                       std::unique_ptr<Device> device,
                                                       LoadProgress progress) {
  ASSIGN_OR_RETURN(std::unique_ptr<State> state,
                   State::Create(config, options, std::move(device), progress));
  return absl::WrapUnique(new Worker(std::move(state)));
}

absl::Status Worker::JoinEpoch(uint64_t epoch, std::unique_ptr<Communicator> tensor_group,
                               std::unique_ptr<Communicator> data_group) {
  return state_->JoinEpoch(epoch, std::move(tensor_group), std::move(data_group));
}
void Worker::LeaveEpoch() { state_->LeaveEpoch(); }
absl::Status Worker::Enqueue(const StepPlan& plan) { return state_->Enqueue(plan); }
absl::Status Worker::Collect(StepResult& result) { return state_->Collect(result); }
absl::StatusOr<StepResult> Worker::Collect() {
  StepResult result;
  RETURN_IF_ERROR(Collect(result));
  return result;
}
size_t Worker::outstanding() const { return state_->outstanding(); }
size_t Worker::under_way() const { return state_->under_way(); }
bool Worker::IsDone() { return state_->IsDone(); }
bool Worker::RunsAhead(const StepPlan& plan) const { return state_->RunsAhead(plan); }
absl::StatusOr<StepResult> Worker::Run(const StepPlan& plan) {
  CHECK_EQ(outstanding(), 0u);
  RETURN_IF_ERROR(Enqueue(plan));
  return Collect();
}
void Worker::Abort() { state_->Abort(); }

int64_t Worker::weight_bytes() const { return state_->parts().model->weight_bytes(); }
int64_t Worker::kv_bytes() const { return state_->parts().kv.bytes(); }
WorkerMemory Worker::planned_memory() const { return state_->parts().planned; }
WorkerMemory Worker::allocated_memory() const { return state_->parts().allocated; }
const ProductTuning& Worker::tuning() const { return state_->parts().tuning; }
std::vector<std::string> Worker::warnings() const { return state_->parts().warnings; }

}  // namespace cohort
