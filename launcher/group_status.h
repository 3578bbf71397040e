// A snapshot of the group for GetLoad, health and logs.
#ifndef COHORT_LAUNCHER_GROUP_STATUS_H_
#define COHORT_LAUNCHER_GROUP_STATUS_H_

#include <cstdint>
#include <string>
#include <vector>

#include "runtime/worker_memory.h"

namespace cohort {

struct RankStatus {
  int rank = 0;
  std::string agent;
  int64_t process_id = 0;
  std::string state = "starting";  // "starting", "loading", "ready", "serving", "lost"
  double load_progress = 0;        // 0..1
  int64_t weight_bytes = 0;
  int64_t kv_bytes = 0;
  WorkerMemory planned;  // once it is ready
  WorkerMemory allocated;
  uint64_t restarts = 0;
  std::string device;
  std::string transport;  // to the GPUs of its group
};

struct AgentStatus {
  std::string name;               // of the last one, while its place is free
  std::string state = "awaited";  // "awaited" (nobody was there yet), "joined", "lost"
  std::string address;            // where ranks of other agents reach its ranks; may be empty
  int cores = 0;
  int first_rank = 0;  // its ranks, once they are decided
  int ranks = 0;
  std::string loss;  // "agent 'b' at 10.0.0.2 was lost: its session ended", while it is
};

struct GroupStatus {
  std::string state = "starting";  // "starting", "serving", "recovering", "draining"
  uint64_t epoch = 0;
  std::vector<RankStatus> ranks;
  std::vector<AgentStatus> agents;
  std::string awaited;  // one sentence
};

}  // namespace cohort

#endif  // COHORT_LAUNCHER_GROUP_STATUS_H_
