// The tensors of the model as they are stored, and the slices of them that one rank keeps.
#ifndef COHORT_RUNTIME_WEIGHTS_H_
#define COHORT_RUNTIME_WEIGHTS_H_

#include <memory>
#include <string>
#include <vector>

#include "parallel/shard_plan.h"
#include "runtime/model_config.h"
#include "runtime/safetensors.h"

namespace cohort {

// A tensor the model needs: name and shape as stored ([out, in] for matrices).
struct DeclaredTensor {
  std::string name;
  std::vector<int64_t> shape;
};

// Every tensor of a checkpoint of `config`, in a fixed order (the lm_head of a tied model is not
// among them).
std::vector<DeclaredTensor> DeclareTensors(const ModelConfig& config);

struct CheckpointReport {
  std::vector<std::string>
      extra_tensors;  // in the checkpoint, unknown to the model (a stored lm_head of a tied model
                      // and rotary_emb.inv_freq are not counted)
  bool all_fp32 = false;  // every declared tensor is stored as F32
};

// Checks names, shapes and dtypes of all declared tensors without touching data: INVALID_ARGUMENT
// or NOT_FOUND names the first tensor that is missing or misshapen and what was expected. The
// coordinator calls it before a rank is started.
absl::StatusOr<CheckpointReport> CheckCheckpoint(const Checkpoint& checkpoint,
                                                 const ModelConfig& config);

}  // namespace cohort

#endif  // COHORT_RUNTIME_WEIGHTS_H_
