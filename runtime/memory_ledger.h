// The one sum of what a rank holds in memory: a worker is checked by it before it allocates, the
// planner predicts with it, and status shows it beside what was allocated.
#ifndef COHORT_RUNTIME_MEMORY_LEDGER_H_
#define COHORT_RUNTIME_MEMORY_LEDGER_H_

#include "parallel/shard_plan.h"
#include "runtime/model_config.h"
#include "runtime/qwen2.h"
#include "runtime/recorded_steps.h"
#include "runtime/worker.h"
#include "runtime/worker_memory.h"

namespace cohort {

Qwen2Options ModelOptionsOf(const WorkerOptions& options);

// Whether workers record their decode steps, on devices that do. Not where the host finds out in
// the middle of a step which rows go to which experts.
bool MayRecordSteps(const ModelConfig& config, const WorkerOptions& options);
RecordedStepsOptions RecordedOptionsOf(const ModelConfig& config, const WorkerOptions& options);
// Blocks of KV memory with the one that recorded steps scribble on.
int64_t KvBlocksOf(const WorkerOptions& options);

// Of the rank that `plan` is of. On the device: not an embedding in
// the host's memory. KV bytes that overflow are a number that fits no machine.
WorkerMemory LedgerOf(const ModelConfig& config, const ShardPlan& plan,
                      const WorkerOptions& options);

}  // namespace cohort

#endif  // COHORT_RUNTIME_MEMORY_LEDGER_H_
