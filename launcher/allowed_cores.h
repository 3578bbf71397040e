// The cores this process may run on.
#ifndef COHORT_LAUNCHER_ALLOWED_CORES_H_
#define COHORT_LAUNCHER_ALLOWED_CORES_H_

#include <sched.h>

namespace cohort {

// At least 1.
inline int AllowedCores() {
  cpu_set_t allowed;
  return sched_getaffinity(0, sizeof(allowed), &allowed) == 0 ? CPU_COUNT(&allowed) : 1;
}

}  // namespace cohort

#endif  // COHORT_LAUNCHER_ALLOWED_CORES_H_
