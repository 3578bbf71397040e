// A rank's memory between processes.
#ifndef COHORT_LAUNCHER_RANK_MEMORY_H_
#define COHORT_LAUNCHER_RANK_MEMORY_H_

#include "cohort/v1/memory.pb.h"
#include "runtime/worker_memory.h"

namespace cohort {

v1::RankMemory ToMessage(const WorkerMemory& memory);
WorkerMemory FromMessage(const v1::RankMemory& message);

}  // namespace cohort

#endif  // COHORT_LAUNCHER_RANK_MEMORY_H_
