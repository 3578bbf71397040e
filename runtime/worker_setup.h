// What a worker checks and loads before it serves.
#ifndef COHORT_RUNTIME_WORKER_SETUP_H_
#define COHORT_RUNTIME_WORKER_SETUP_H_

#include <cstdint>
#include <string>
#include <vector>

#include "kernels/device.h"
#include "parallel/shard_plan.h"
#include "runtime/model_config.h"
#include "runtime/weight_loader.h"
#include "runtime/worker.h"

namespace cohort {

// INVALID_ARGUMENT or UNIMPLEMENTED names the option that no worker can serve with.
absl::Status CheckWorkerOptions(const ModelConfig& config, const WorkerOptions& options,
                                Device* device);

struct LoadedWeights {
  ModelWeights weights;
  std::vector<std::string> warnings;  // one per extra tensor, in the checkpoint's order
};

absl::StatusOr<LoadedWeights> LoadWorkerWeights(const ModelConfig& config,
                                                const WorkerOptions& options, const ShardPlan& plan,
                                                Device& device, const LoadProgress& progress);

// Chooses the algorithms of the rank's products by the clock, where the options say so. Takes
// memory of the device for a moment; where there is too little, the rest stays as it is and the
// note says so.
absl::StatusOr<ProductTuning> TuneWorkerProducts(const ShardPlan& plan,
                                                 const WorkerOptions& options, Device& device);

// Ids that may be chosen: those with a token, or all where the tokenizer's are not known.
int64_t ValidIds(const ModelConfig& config, const WorkerOptions& options);

}  // namespace cohort

#endif  // COHORT_RUNTIME_WORKER_SETUP_H_
