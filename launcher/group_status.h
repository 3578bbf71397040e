// A snapshot of the group for GetLoad, health and logs.
#ifndef COHORT_LAUNCHER_GROUP_STATUS_H_
#define COHORT_LAUNCHER_GROUP_STATUS_H_

#include <cstdint>
#include <string>
#include <vector>

namespace cohort {

struct RankStatus {
  int rank = 0;
  std::string agent;
  int64_t process_id = 0;
  std::string state = "starting";  // "starting", "loading", "ready", "serving", "lost"
  double load_progress = 0;        // 0..1
  int64_t weight_bytes = 0;
  int64_t kv_bytes = 0;
  uint64_t restarts = 0;
  std::string device;
};

struct GroupStatus {
  std::string state = "starting";  // "starting", "serving", "recovering", "draining"
  uint64_t epoch = 0;
  std::vector<RankStatus> ranks;
};

}  // namespace cohort

#endif  // COHORT_LAUNCHER_GROUP_STATUS_H_
